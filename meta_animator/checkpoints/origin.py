"""Whether weights at hand are those that a checkpoint names as its base or as its ControlNet."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from meta_animator.checkpoints.old_fingerprints import is_old_fingerprint, old_fingerprint, same_old, short_old
from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint, is_fingerprint, short

State = Callable[[], Mapping[str, Tensor]]  # asked only where a name alone does not tell


def check_fingerprint(name: str, what: str) -> None:
    """Raises UserError unless `name` reads as a fingerprint, of today or of earlier versions."""
    if not is_fingerprint(name) and not is_old_fingerprint(name):
        shown = repr(name) if len(name) <= 40 else f"{name[:40]!r}..."
        raise UserError(f"{what} is {shown}; expected the name of weights, 'sha256:' and 64 hex digits; is it damaged?")


def check_origin(found: str, own: str, state: State, sentence: Callable[[str, str], str]) -> None:
    """Raises UserError unless the name `found` in a file is that of the weights `state()`, whose fingerprint is `own`.

    sentence   of the error, from the short names of both
    """
    if is_old_fingerprint(found):
        now = old_fingerprint(state())
        if not same_old(found, now):
            raise UserError(sentence(short_old(found), short_old(now)))
    elif found != own:
        raise UserError(sentence(short(found), short(own)) + rounding_note(found, state()))


def rounding_note(found: str, state: Mapping[str, Tensor]) -> str:
    """What to add to an error where the weights differ by bfloat16's rounding, as far as that can be told; else ''."""
    if fingerprint(state, rounded_to=torch.bfloat16) == found:
        return " (a bfloat16 copy of these: such a copy counts as other weights; give the copy itself)"
    if all(torch.equal(weight, weight.bfloat16().to(weight.dtype)) for weight in state.values()):
        return " (which is in bfloat16; if it is a copy, give its float32 or float16 original: the copy counts as other weights)"
    return ""
