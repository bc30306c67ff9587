"""Training the embedded base's UNet with its text encoder, and beside them the Meta ControlNet that later stages start from.

A ControlNet is usually a copy of a finished text-to-image UNet. Here there is none to start from: both learn from random
weights, together, which costs a third more per step than the UNet alone and needs no second training of the same size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from meta_animator.data.batch import Batch
from meta_animator.data.samples import read_clips, to_images
from meta_animator.diffusion.randomness import noise_for, rng
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.models.assembly import Assembly
from meta_animator.models.control import ControlOutput
from meta_animator.puppets.base.growing import check_base_config, growing_base
from meta_animator.puppets.base.judge import sample_base
from meta_animator.settings import RunConfig
from meta_animator.stages.check_settings import without_missing_face
from meta_animator.stages.data import Training
from meta_animator.stages.denoising_run import denoising_run
from meta_animator.stages.meters import Measured, Meters
from meta_animator.stages.networks import load_networks
from meta_animator.training.stage import ParamGroup
from meta_animator.weights import copy_strict

TRAINED = ("unet", "text_encoder")  # of the base


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """The clips of a stage 0 -> a base that grows -> what it is trained on -> what learns."""
    check_base_config(config.stage, config.model, config.train)
    clips = read_clips(config.data.train, config.data.split)
    config = without_missing_face(config)
    networks = load_networks(config.model, config.loss, backbone=growing_base(config.model, clips))
    run = denoising_run(config, clips, networks, accelerator)
    return run.training(UNetParts(config, networks, run.examples(), run.measured([])))


class UNetParts:
    """The base and the shared ControlNet learn, LoRAs do not, and samples go without control with a probability of
    `train.control_drop`: so the base stays a text-to-image model."""

    def __init__(
        self, config: RunConfig, networks: Assembly, examples: Mapping[str, Batch], measured: Measured | None = None
    ):  # fmt: skip
        self.config, self.networks, self.examples = config, networks, examples
        self.meters = Meters(config, networks, self.context, self.noise, measured)

    def param_groups(self) -> list[ParamGroup]:
        backbone = self.networks.backbone
        base = {f"{part}.{n}": p for part in TRAINED for n, p in getattr(backbone, part).named_parameters()}
        shared = {n: p for n, p in self.networks.state().items() if n.startswith("control.")}
        return [ParamGroup(name="base", parameters={**base, **shared}, lr=self.config.train.learning_rate)]

    def stored(self) -> dict[str, Tensor]:
        return {name: p for group in self.param_groups() for name, p in group.parameters.items()}

    def load(self, state: Mapping[str, Tensor], what: str) -> None:
        copy_strict(self.stored(), state, what)

    def metadata(self) -> dict[str, Any]:
        return {"stage": self.config.stage, "architecture": self.config.model.architecture, "tasks": []}

    def noise(self, draws: Tensor, shape: tuple[int, ...]) -> Tensor:
        return noise_for(self.config.seed, draws, shape)

    def context(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """From which the text encoder learns."""
        return self.networks.backbone.text_states(prompts)

    def residuals(self, task: str, draws: Tensor, control_latents: Tensor, t: Tensor, context: Tensor) -> ControlOutput:
        self.networks.control.bank.use(None)
        drop, seed = self.config.train.control_drop, self.config.seed
        kept = torch.tensor([rng(seed, "control drop", int(draw)).random() >= drop for draw in draws])
        return self.networks.control(control_latents, t, context) * kept.to(control_latents)[:, None, None, None]

    def preview(self, folder: Path, step: int) -> None:
        """Per task: condition, from text and condition, from text alone, truth."""
        rows, backbone = [], self.networks.backbone
        for task, batch in self.examples.items():
            batch = batch.to(next(self.networks.parameters()).device)
            control = backbone.encode_condition(batch.control_pixels)
            samples = [sample_base(self.networks, task, batch.prompts, control, s, g) for s, g in ((1.0, 2.0), (0.0, 4.0))]
            shown = (batch.control_pixels, *map(backbone.decode, samples), batch.pixels)
            rows += [list(to_images(pixels[:, 0])) for pixels in shown]
        titles = ["condition", "posed", "text", "truth"] * len(self.examples)
        write_image(folder / f"step-{step:06d}.png", grid(rows, row_titles=titles))
