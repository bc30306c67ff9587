"""What the noise of a clip is made of, in training as in sampling: a part that all frames share, and one of each frame's own."""

import math

from torch import Tensor


def clip_noise(shared: Tensor, own: Tensor, share: float) -> Tensor:
    """(b f c h w) from what all frames have in common (b c h w) and what each has of its own (b f c h w).

    share   of the variance that is common, 0 .. 1: what a config calls `shared_noise`. Where both inputs have unit variance, so
            has the result.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a value in [0, 1], got {share}")
    if share == 1:
        return shared[:, None].expand_as(own)
    return math.sqrt(share) * shared[:, None] + math.sqrt(1 - share) * own
