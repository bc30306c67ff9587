"""A training run from its config to its last checkpoint; each stage's own story is in control.py, motion.py, reference.py."""

import functools
from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator

from meta_animator.errors import UserError
from meta_animator.models.kernels import kernels_of
from meta_animator.settings import PuppetsConfig, RunConfig
from meta_animator.stages import control, motion, reference
from meta_animator.stages.checks import check_run
from meta_animator.stages.data import Training, load_batches
from meta_animator.training.engine import Trainer
from meta_animator.training.processes import hang_no_longer, leave_together, main_first, make_accelerator
from meta_animator.training.sharding import take_sharding_request

Builder = Callable[[RunConfig, Accelerator], Training]
STAGES: dict[str, Builder] = {"control": control.build, "motion": motion.build, "reference": reference.build}


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
