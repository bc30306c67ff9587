"""The processes of a run, one or several."""

import datetime

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs


def make_accelerator(mixed_precision: str) -> Accelerator:
    """find_unused_parameters: inactive LoRAs take no part in a step. The long timeout: some encode for longer than others."""
    return Accelerator(
        mixed_precision=mixed_precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=24)),
        ],
    )
