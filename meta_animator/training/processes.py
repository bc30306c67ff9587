"""The processes of a run, one or several, and how long they wait for each other."""

import datetime
import os
import sys
from collections.abc import Callable

import torch.distributed
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from meta_animator.devices import compute_device
from meta_animator.errors import UserError

BEFORE_STEPS = datetime.timedelta(hours=24)  # one makes data, or encodes for longer than the others
WITHIN_STEPS = datetime.timedelta(minutes=30)  # one shows a preview, copies a checkpoint or compiles


def several_processes() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def make_accelerator(mixed_precision: str) -> Accelerator:
    compute_device()  # refuses a GPU that cannot be used
    return Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[InitProcessGroupKwargs(timeout=BEFORE_STEPS)])


def hang_no_longer() -> None:
    """From now on, a process that hears nothing of the others for `WITHIN_STEPS` ends with an error."""
    if torch.distributed.is_initialized():
        of_newer_torch = getattr(torch.distributed.distributed_c10d, "set_timeout", None)
        (of_newer_torch or torch.distributed.distributed_c10d._set_pg_timeout)(WITHIN_STEPS)


def main_first(accelerator: Accelerator, prepare: Callable[[], None]) -> None:
    """Call `prepare` in the main process while the others wait. Where it fails, all end: each with the main one's UserError, the
    others silently where it is a bug."""
    error, said = None, ""
    if accelerator.is_main_process:
        try:
            prepare()
        except Exception as caught:
            error, said = caught, str(caught) if isinstance(caught, UserError) else ""
    told = [(error is not None, said)]
    broadcast_object_list(told)
    failed, said = told[0]
    if not failed:
        return
    leave_together(accelerator)
    if error is not None:
        raise error
    if said:
        raise UserError(said)
    sys.exit(1)


def leave_together(accelerator: Accelerator) -> None:
    """One that leaves while another still listens to it can abort that one."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.end_training()
