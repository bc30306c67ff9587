"""Stage 1: the motion module, on clips. The Meta ControlNet stays as it is, or its task's LoRA learns along."""

from pathlib import Path
from typing import Any

from torch import Tensor

from meta_animator.data.batch import Batch
from meta_animator.data.samples import to_images
from meta_animator.diffusion.clip_noise import clip_noise
from meta_animator.diffusion.randomness import noise_for
from meta_animator.media.video import write_video
from meta_animator.stages.control import ControlStage
from meta_animator.training.stage import ParamGroup


class MotionStage(ControlStage):
    """Trains what lies between the frames; needs `models.motion`. fps: of its clips, which stage 3 has to show."""

    fps = 0.0

    def metadata(self) -> dict[str, Any]:
        own = {"shared_noise": self.config.train.shared_noise, **({"fps": self.fps} if self.fps else {})}
        return {**super().metadata(), **own}

    def param_groups(self) -> list[ParamGroup]:
        train, state = self.config.train, self.models.state()
        motion = {n: p for n, p in state.items() if n.startswith("motion.")}
        groups = [ParamGroup(name="motion", parameters=motion, lr=train.learning_rate)]
        if train.train_lora_in_motion:
            loras = {n: p for n, p in state.items() if n.startswith("lora.")}
            groups.append(ParamGroup(name="lora", parameters=loras, lr=train.lora_learning_rate or train.learning_rate))
        return groups

    def trainable_state(self) -> dict[str, Tensor]:
        """The motion module; with `train_lora_in_motion` also the Meta ControlNet, so that stage 2 can start from it."""
        state = self.models.state()
        keep_control = self.config.train.train_lora_in_motion
        return {n: p for n, p in state.items() if keep_control or n.startswith("motion.")}

    def _noise(self, batch: Batch, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Noise with the share `train.shared_noise` of its variance common to a clip's frames, as sampling from one
        inverted photo has it; unit variance in every frame."""
        t, own = super()._noise(batch, latents)
        shared = noise_for(self.config.seed, batch.draws, tuple(latents.shape[2:]), stream="shared noise").to(latents)
        return t, clip_noise(shared, own, self.config.train.shared_noise)

    def preview(self, folder: Path, step: int) -> None:
        """One short video per task: condition | generated | truth."""
        import numpy as np

        for task, batch in self.examples.items():
            batch = batch.to(next(self.parameters()).device)
            generated = self.generate(task, batch)
            columns = [to_images(x[0]) for x in (batch.control_pixels, generated, batch.pixels)]
            write_video(folder / f"step-{step:06d}-{task}.mp4", np.concatenate(columns, axis=2), fps=self.fps or 8)
