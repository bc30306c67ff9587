"""Training the embedded base's UNet with its text encoder, and beside them the Meta ControlNet that later stages start from.

A ControlNet is usually a copy of a finished text-to-image UNet. Here there is none to start from: both learn from random
weights, together, which costs a third more per step than the UNet alone and needs no second training of the same size.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meta_animator.data.batch import Batch
from meta_animator.data.samples import to_images
from meta_animator.diffusion.randomness import rng
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.models.control import ControlOutput
from meta_animator.puppets.base.judge import sample_base
from meta_animator.stages.control import ControlStage
from meta_animator.training.stage import ParamGroup
from meta_animator.weights import copy_strict

TRAINED = ("unet", "text_encoder")  # of the base


class UNetStage(ControlStage):
    """Like stage 0, but the base learns too, LoRAs do not, and samples go without control with a probability of
    `train.control_drop`: so the base stays a text-to-image model."""

    def param_groups(self) -> list[ParamGroup]:
        shared = {n: p for n, p in self.models.state().items() if n.startswith("control.")}
        return [ParamGroup(name="base", parameters={**self._base_state(), **shared}, lr=self.config.train.learning_rate)]

    def _base_state(self) -> dict[str, Tensor]:
        backbone = self.models.backbone
        return {f"{part}.{n}": p for part in TRAINED for n, p in getattr(backbone, part).named_parameters()}

    def trainable_state(self) -> dict[str, Tensor]:
        return {name: p for group in self.param_groups() for name, p in group.parameters.items()}

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None:
        copy_strict(self.trainable_state(), state, what)

    def metadata(self) -> dict[str, Any]:
        return {"stage": self.config.stage, "architecture": self.config.model.architecture, "tasks": []}

    def context(self, prompts: list[str]) -> Tensor:
        """Text embeddings (b n d) that the text encoder learns from."""
        return self.models.backbone.text_states(prompts)

    def steer(self, batch: Batch, control_latents: Tensor, t: Tensor, context: Tensor) -> ControlOutput:
        self.models.control.bank.use(None)
        drop, seed = self.config.train.control_drop, self.config.seed
        kept = torch.tensor([rng(seed, "control drop", int(draw)).random() >= drop for draw in batch.draws])
        return self.models.control(control_latents, t, context) * kept.to(control_latents)[:, None, None, None]

    def preview(self, folder: Path, step: int) -> None:
        """Per task: condition, from text and condition, from text alone, truth."""
        rows, backbone = [], self.models.backbone
        for task, batch in self.examples.items():
            batch = batch.to(next(self.parameters()).device)
            control = backbone.encode_condition(batch.control_pixels)
            samples = [sample_base(self.models, task, batch.prompts, control, s, g) for s, g in ((1.0, 2.0), (0.0, 4.0))]
            shown = (batch.control_pixels, *map(backbone.decode, samples), batch.pixels)
            rows += [list(to_images(pixels)) for pixels in shown]
        titles = ["condition", "posed", "text", "truth"] * len(self.examples)
        write_image(folder / f"step-{step:06d}.png", grid(rows, row_titles=titles))
