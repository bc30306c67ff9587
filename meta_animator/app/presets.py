"""Bases and qualities that can be chosen, and what they mean as settings."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from meta_animator.app.folders import REPOSITORY
from meta_animator.config import load_config
from meta_animator.errors import UserError
from meta_animator.published import check_base
from meta_animator.settings import RunConfig

GET = "python scripts/get_weights.py"


@dataclasses.dataclass(frozen=True)
class Base:
    """A family of base models.

    configs   folder of its YAMLs, as animate.sh's CONFIG names it
    weights   what get_weights.py calls it; "" where all is shipped
    qualities {name: settings beside the YAMLs'}
    """

    title: str
    configs: str
    weights: str
    qualities: Mapping[str, Sequence[str]]


def _by_steps(quick: str, thorough: str) -> dict[str, list[str]]:
    """Qualities by "steps of learning, of sampling"; the usual one is as the YAMLs have it."""
    both = {"quick": quick, "usual": "", "thorough": thorough}
    keys = ("train.max_steps", "sample.num_inference_steps")
    return {name: [f"{k}={v}" for k, v in zip(keys, text.split(), strict=False)] for name, text in both.items()}


BASES = {
    "embedded": Base("Embedded: small, any machine", "configs/demo", "", _by_steps("200 8", "1600 25")),
    "sd15": Base("Stable Diffusion 1.5", "configs/sd15", "sd15", _by_steps("300 20", "1600 50")),
    "wan": Base("Wan 2.1 VACE 1.3B", "configs/wan", "wan", _by_steps("300 20", "1600 50")),
}


def with_quality(text: str) -> tuple[str, list[str]]:
    """NAME="key=value key=value" of the command line. Raises UserError for anything else."""
    name, found, settings = text.partition("=")
    words = settings.split()
    if not found or not name.strip().isidentifier() or not words or not all("=" in word for word in words):
        raise UserError(f"--quality {text!r}: expected NAME=\"key=value ...\", such as tiny=\"train.max_steps=20\"")
    return name.strip(), words


def add_quality(bases: Mapping[str, Base], name: str, settings: Sequence[str]) -> dict[str, Base]:
    """Bases with one more quality each. Raises UserError where a base's configs do not know a setting."""
    more = {}
    for key, base in bases.items():
        config_of(base, "step2", settings), config_of(base, "step3", settings)
        more[key] = dataclasses.replace(base, qualities={**base.qualities, name: list(settings)})
    return more


def config_of(base: Base, step: str, settings: Sequence[str] = ()) -> RunConfig:
    """The run that animate.py makes of it."""
    folder = REPOSITORY / base.configs
    places = (folder / "quickstart" / f"{step}.yaml", folder / f"{step}.yaml")
    return load_config(next(path for path in places if path.is_file()), list(settings))


def lacking(base: Base) -> str:
    """What is not there of a base, in one line that says how to get it; "" where all is."""
    if not base.weights:
        return ""
    step2, step3 = config_of(base, "step2"), config_of(base, "step3")
    try:
        check_base(REPOSITORY / step2.model.base)
    except UserError:
        return f"not here yet: {GET} {base.weights}"
    wanted = [step2.model.base, step2.model.vae, step2.model.tokenizer, step2.model.control_from, step3.model.motion_from]
    gone = [path for path in wanted if path.startswith("models/") and not (REPOSITORY / path).exists()]
    return f"not here yet ({gone[0]}): {GET} {base.weights}" if gone else ""


def advice(base: Base) -> str:
    """What else to know before choosing it; "" for nothing."""
    return "no NVIDIA GPU is seen: this base takes days without one" if base.weights and not shutil.which("nvidia-smi") else ""


def in_words(base: Base, settings: Sequence[str]) -> str:
    """What a quality means."""
    train, sample = config_of(base, "step2", settings).train, config_of(base, "step3", settings).sample
    said = f"{train.max_steps} steps of learning, {sample.num_inference_steps} of sampling"
    return f"{said} ({' '.join(settings)})" if settings else f"{said} (as {base.configs} has it)"


def check_choice(bases: Mapping[str, Base], base: object, quality: object) -> tuple[Base, list[str]]:
    """(base, settings). Raises UserError for a choice that is not offered, or a base that is not here."""
    if base not in bases or quality not in bases[base].qualities:
        raise UserError("choose a base and a quality from the lists")
    if gone := lacking(bases[base]):
        raise UserError(f"{bases[base].title} is {gone}")
    return bases[base], list(bases[base].qualities[quality])


def relative(path: Path) -> str:
    """As a command in the repository names it."""
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
