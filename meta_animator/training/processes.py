"""The processes of a run, one or several, and how long they wait for each other."""

import datetime

import torch.distributed
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

BEFORE_STEPS = datetime.timedelta(hours=24)  # one makes data, or encodes for longer than the others
WITHIN_STEPS = datetime.timedelta(minutes=30)  # one shows a preview, copies a checkpoint or compiles


def make_accelerator(mixed_precision: str) -> Accelerator:
    return Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[InitProcessGroupKwargs(timeout=BEFORE_STEPS)])


def hang_no_longer() -> None:
    """From now on, a process that hears nothing of the others for `WITHIN_STEPS` ends with an error."""
    if torch.distributed.is_initialized():
        of_newer_torch = getattr(torch.distributed.distributed_c10d, "set_timeout", None)
        (of_newer_torch or torch.distributed.distributed_c10d._set_pg_timeout)(WITHIN_STEPS)
