"""What a step asks of a GPU, counted without one: on the meta device, at full size, where nothing is computed."""

import copy
import dataclasses
from typing import Any

import torch

from meta_animator.benchmark.counting import Counting, counting
from meta_animator.models.counting import LikeCuda
from meta_animator.settings import RunConfig
from meta_animator.stages.memory import TrainingStep, sampling_steps, sampling_without_weights, stage_without_weights


def count(config: RunConfig) -> dict[str, Any]:
    """{"results": {what: counts}} of the networks of a stage, with the kernels and casts of CUDA: forward and backward of a
    training's micro-batch, with one gated image where the loss has image terms, without optimizer; of stage 3 what it encodes,
    denoises and decodes at once. Raises UserError where the base's config files are missing."""
    config = copy.deepcopy(config)
    if config.stage == "sample":
        steps = sampling_steps(config, sampling_without_weights(config))
        counts = {}
        for name, run in steps.items():
            with torch.no_grad(), counting() as counted, LikeCuda():
                run()
            counts[name] = counted
        return {"results": {name: numbers(one, "step", 1) for name, one in counts.items()}, "against": {}}
    stage = stage_without_weights(config)
    with counting() as counted, LikeCuda() as cuda:
        TrainingStep(stage, config).run(cuda.backward, cuda.remembering_casts())
    return {"results": {"step": numbers(counted, "sample", config.train.batch_size)}, "against": {}}


def numbers(counts: Counting, unit: str, units: int) -> dict[str, Any]:
    """As a report has them; `units` are done together."""
    phases = {name: dataclasses.asdict(one) for name, one in counts.phases.items()}
    return {
        "counts": {"total": dataclasses.asdict(counts.total), **phases},
        "operators": dict(counts.operators.most_common()), f"flops_per_{unit}": counts.total.flops / units,
    }  # fmt: skip
