"""Frames of a clip and latent frames of it, where a latent frame stands for several frames."""

from meta_animator.errors import UserError

TEMPORAL = (False, True, True)  # which levels of Wan's published VAE halve time too


def latent_frames(num_frames: int, each: int) -> int:
    """How many latent frames a clip has whose first frame has one of its own and whose others share one between `each` of them.
    Raises UserError, with the nearest numbers that will do, where some are left over."""
    if (num_frames - 1) % each:
        below = (num_frames - 1) // each * each + 1
        raise UserError(
            f"{num_frames} frames: this base takes clips of {each}k + 1 frames; the nearest are {below} and {below + each}"
        )
    return 1 + (num_frames - 1) // each
