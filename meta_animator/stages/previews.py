"""What a run's previews show: a few fixed samples per task, generated with the weights as they are."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from meta_animator.data.batch import Batch, collate
from meta_animator.data.samples import SampleSet, of_one_size, to_images
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.diffusion.randomness import noise_for
from meta_animator.diffusion.samplers import ddim
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.media.video import write_video
from meta_animator.models.assembly import Assembly
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.stages.texts import Texts

PREVIEW_DRAWS = 10**9  # numbers of preview draws, beyond those of training
STEPS = 12  # of DDIM: enough to see what is learned, where previews cost as much as dozens of steps


def preview_examples(samples: SampleSet, plan: TaskPlan, count: int = 4) -> dict[str, Batch]:
    """A few fixed samples per task (at most four tasks), with condition pixels."""
    settings = dataclasses.replace(samples.config, prompt_drop=0.0, pose_drop=0.0)
    bare = SampleSet(
        samples.clips, settings, seed=samples.seed, identifiers=samples.identifiers, num_frames=samples.num_frames,
        photos=samples.photos, every=samples.every,
    )
    count = 1 if samples.num_frames else count
    examples = {}
    for task in list(plan.samples)[:4]:
        chosen = of_one_size(plan.samples[task], samples, count)
        examples[task] = collate([bare[Draw(PREVIEW_DRAWS + k, task, index)] for k, index in enumerate(chosen)])
    return examples


class Previews:
    """Samples of `examples`, {task: batch}, from fixed noise, without guidance."""

    def __init__(self, models: Assembly, texts: Texts, examples: Mapping[str, Batch], seed: int):
        self.models, self.texts, self.examples, self.seed = models, texts, examples, seed
        self.conditions: dict[str, Tensor] = {}  # their latents, once the encoder is gone

    @property
    def move(self) -> bool:
        """Whether they are clips, and not images."""
        return any(batch.pixels.shape[1] > 1 for batch in self.examples.values())

    def keep_conditions(self) -> None:
        """Encode the condition images for good."""
        self.conditions = {task: self._condition(task, batch).cpu() for task, batch in self.examples.items()}

    @property
    def _device(self) -> torch.device:
        return next(self.models.control.parameters()).device

    def _condition(self, task: str, batch: Batch) -> Tensor:
        """Latents of an example's condition images."""
        if task in self.conditions:
            return self.conditions[task]
        return self.models.backbone.encode_condition(batch.control_pixels.to(self._device))

    def generate(self, task: str, batch: Batch) -> Tensor:
        """Pixels (b f 3 H W) sampled under the batch's conditions and prompts."""
        context = self.texts(batch.prompts, self._device)
        return generate(self.models, task, context, self._condition(task, batch), self.seed)

    def write_images(self, file: Path) -> None:
        """A row per task, for each of its samples: condition | generated | truth."""
        rows = []
        for task, batch in self.examples.items():
            shown = (batch.control_pixels, self.generate(task, batch), batch.pixels)
            columns = [to_images(pixels[:, 0]) for pixels in shown]
            rows.append([image for trio in zip(*columns, strict=True) for image in trio])
        titles = ["condition", "generated", "truth"] * (len(rows[0]) // 3)
        write_image(file, grid(rows, column_titles=titles, row_titles=list(self.examples)))

    def write_videos(self, folder: Path, name: str, fps: float) -> None:
        """One short video per task: condition | generated | truth."""
        for task, batch in self.examples.items():
            columns = [to_images(x[0]) for x in (batch.control_pixels, self.generate(task, batch), batch.pixels)]
            write_video(folder / f"{name}-{task}.mp4", np.concatenate(columns, axis=2), fps=fps)


@torch.no_grad()
def generate(models: Assembly, task: str, context: Tensor, condition: Tensor, seed: int) -> Tensor:
    """Pixels (b f 3 H W) from fixed noise, without guidance; condition: latents (b f' c h w) of the condition images."""
    backbone, condition = models.backbone, condition.to(context)
    denoiser = Denoiser(
        backbone=backbone, control=models.control, tasks={task: 1.0}, context=context,
        control_latents={task: backbone.control_input(condition)},
    )  # fmt: skip
    x_T = noise_for(seed, torch.arange(len(context)), tuple(condition.shape[1:]), stream="preview").to(context)
    latents = ddim(denoiser, x_T, backbone.process, backbone.process.sampling_timesteps(STEPS))
    return torch.cat(list(backbone.show_in_turn(latents, latents.shape[1])), dim=1)
