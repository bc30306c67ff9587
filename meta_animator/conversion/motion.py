"""Motion weights from a run of ours, or from a folder in diffusers' MotionAdapter format."""

from pathlib import Path

from diffusers import MotionAdapter

from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.training.checkpoint import read_weights
from meta_animator.weights import copy_strict


def load_motion(models: Assembly, path: str) -> None:
    """Fill the motion module by name. Raises UserError where a weight is missing, unknown or of another shape."""
    if not (Path(path) / "config.json").is_file():
        models.load_motion(*read_weights(path), path)
        return
    try:
        adapter = MotionAdapter.from_pretrained(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"motion module {path}: {str(error).splitlines()[0]}") from error
    copy_strict(dict(models.motion.named_parameters()), dict(adapter.named_parameters()), f"motion module {path}")
