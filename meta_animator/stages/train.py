"""A training run from its config to its last checkpoint; each stage's own story is in control.py, motion.py, reference.py."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.kernels import kernels_of
from meta_animator.settings import PuppetsConfig, RunConfig
from meta_animator.stages import control, motion, reference
from meta_animator.stages.checks import check_run
from meta_animator.stages.data import Training, load_batches
from meta_animator.training.engine import Trainer
from meta_animator.training.lock import lock_folder
from meta_animator.training.processes import hang_no_longer, leave_together, main_first, make_accelerator
from meta_animator.training.resume import check_same_run
from meta_animator.training.sharding import take_sharding_request

Builder = Callable[[RunConfig, Accelerator], Training]
STAGES: dict[str, Builder] = {"control": control.build, "motion": motion.build, "reference": reference.build}


def check_folder(config: RunConfig, processes: int) -> None:
    """Raises UserError, before anything is encoded, where another run is at work in the run's folder, or one of other settings
    has left checkpoints there."""
    folder, train = Path(config.output_dir), config.train
    if not folder.is_dir():
        return
    lock_folder(folder).close()
    if found := list_checkpoints(folder):
        own = {"stage": config.stage, "seed": config.seed, "optimizer": train.optimizer, "has_ema": bool(train.ema_decay)}
        own["samples_per_step"] = train.batch_size * train.gradient_accumulation_steps * processes
        check_same_run(own, {"optimizer": "adamw", **read_json(found[-1] / "manifest.json")}, found[-1])


def train(
    config: RunConfig, stages: Mapping[str, Builder] | None = None, make_data: Callable[[PuppetsConfig], None] | None = None
) -> None:  # fmt: skip
    """Run a training stage. Raises UserError for what the user can mend.

    stages      what builds other stages than those of the method, by name
    make_data   makes the data sets of `data.puppets` that are not there
    """
    builders = STAGES | dict(stages or {})
    if config.stage not in builders:
        raise UserError(f"stage '{config.stage}' is not trained; use {', '.join(builders)}")
    sharded = take_sharding_request(config.stage, config.train, config.data)
    accelerator = make_accelerator(config.train.mixed_precision)
    torch.manual_seed(config.seed)  # fresh weights

    def prepare() -> None:
        with kernels_of(config):  # or says now that it cannot
            pass
        for note in check_run(config):
            print(f"note: {note}")
        if accelerator.is_main_process:
            check_folder(config, accelerator.num_processes)
        if make_data:
            make_data(config.data.puppets)

    main_first(accelerator, prepare)
    training = builders[config.stage](config, accelerator)
    training.release()
    batches = functools.partial(load_batches, config.data, training.samples, training.plan, accelerator)
    hang_no_longer()
    with kernels_of(config):
        Trainer(config, accelerator, training.stage, batches, sharded).run()
    leave_together(accelerator)
