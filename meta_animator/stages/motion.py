"""Stage 1: the motion module learns from clips. The Meta ControlNet stays as it is, or its task's LoRA learns along.

The training step itself is denoising.py's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.data.batch import Batch
from meta_animator.data.samples import read_clips, training_rate
from meta_animator.diffusion.clip_noise import clip_noise
from meta_animator.diffusion.randomness import noise_for
from meta_animator.models.assembly import Assembly
from meta_animator.settings import RunConfig
from meta_animator.stages.check_settings import without_missing_face
from meta_animator.stages.control import lora_group, task_residuals
from meta_animator.stages.data import Training, counted
from meta_animator.stages.denoising_run import denoising_run
from meta_animator.stages.held_out import held_out_clips
from meta_animator.stages.meters import Measured, Meters
from meta_animator.stages.networks import load_networks, note_rate
from meta_animator.stages.previews import Previews
from meta_animator.stages.texts import Texts
from meta_animator.training.stage import ParamGroup


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """Clips -> networks, with a motion module where the base needs one -> what they are trained on -> what learns."""
    clips = read_clips(config.data.train, config.data.split)
    config = without_missing_face(config)
    networks = load_networks(config.model, config.loss, with_motion=True)
    run = denoising_run(config, clips, networks, accelerator, num_frames=config.data.num_frames)
    used = [clips[k] for k in sorted({sample.clip for sample in run.samples.samples})]
    fps = training_rate(used, config.data, accelerator.print)
    note_rate(config.model.motion_from, fps, accelerator.print)
    held = held_out_clips(config.data, config.data.num_frames, photos=False)
    parts = MotionParts(config, networks, run.examples(), fps, run.measured(held), counted(used))
    return run.training(parts, frees=(parts.texts, parts.previews, parts.meters))


class MotionParts:
    """The motion module learns, where there is one, and with `train.train_lora_in_motion` the tasks' LoRAs.

    fps    of the clips, which stage 3 has to show; 0: not known
    data   how much they are
    """

    def __init__(
        self, config: RunConfig, networks: Assembly, examples: Mapping[str, Batch], fps: float = 0.0,
        measured: Measured | None = None, data: Mapping[str, int] | None = None,
    ):  # fmt: skip
        self.config, self.networks, self.fps, self.data = config, networks, fps, dict(data or {})
        self.texts = Texts(networks.backbone)
        self.previews = Previews(networks, self.texts, examples, config.seed)
        self.meters = Meters(config, networks, self.texts, self.noise, measured)

    def param_groups(self) -> list[ParamGroup]:
        train, state = self.config.train, self.networks.state()
        motion = {n: p for n, p in state.items() if n.startswith("motion.")}
        groups = [ParamGroup(name="motion", parameters=motion, lr=train.learning_rate)] if motion else []
        if train.train_lora_in_motion:
            groups.append(lora_group(state, train.lora_tasks or self.config.model.tasks, train))
        return groups

    def stored(self) -> dict[str, Tensor]:
        """The motion module; with `train_lora_in_motion` also the Meta ControlNet, so that stage 2 can start from it."""
        keep_control = self.config.train.train_lora_in_motion
        return {n: p for n, p in self.networks.state().items() if keep_control or n.startswith("motion.")}

    def load(self, state: Mapping[str, Tensor], what: str) -> None:
        self.networks.load(state, what)

    def metadata(self) -> dict[str, Any]:
        run = {"stage": self.config.stage, "prompt": self.config.data.prompt}
        own = {"shared_noise": self.config.train.shared_noise, **({"fps": self.fps} if self.fps else {})}
        own |= {"data": self.data} if self.data else {}
        own |= {"lora_tasks": sorted(self.config.train.lora_tasks)} if self.config.train.lora_tasks else {}
        return {**run, **metadata_of(self.networks), **own}

    def noise(self, draws: Tensor, shape: tuple[int, ...]) -> Tensor:
        """With the share `train.shared_noise` of its variance common to a clip's frames, as sampling from one inverted photo
        has it; unit variance in every frame."""
        own = noise_for(self.config.seed, draws, shape)
        shared = noise_for(self.config.seed, draws, shape[1:], stream="shared noise")
        return clip_noise(shared, own, self.config.train.shared_noise)

    def context(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        return self.texts(prompts, device)

    def residuals(self, task: str, draws: Tensor, control_latents: Tensor, t: Tensor, context: Tensor) -> Any:
        return task_residuals(self.networks.control, task, control_latents, t, context)

    def preview(self, folder: Path, step: int) -> None:
        """One short video per task: condition | generated | truth."""
        self.previews.write_videos(folder, f"step-{step:06d}", fps=self.fps or 8)
