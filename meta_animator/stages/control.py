"""Stage 0: the Meta ControlNet and one LoRA per Meta-Task learn from frames of many people.

The training step itself is denoising.py's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.data.batch import Batch
from meta_animator.data.samples import read_clips, several
from meta_animator.diffusion.randomness import noise_for
from meta_animator.models.assembly import Assembly, part_of
from meta_animator.settings import RunConfig, TrainConfig
from meta_animator.stages.check_settings import without_missing_face
from meta_animator.stages.data import Training, counted
from meta_animator.stages.denoising_run import denoising_run
from meta_animator.stages.held_out import held_out_clips
from meta_animator.stages.meters import Measured, Meters
from meta_animator.stages.networks import load_networks
from meta_animator.stages.previews import Previews
from meta_animator.stages.texts import Texts
from meta_animator.training.stage import ParamGroup


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """Clips -> networks -> what they are trained on -> what learns. Raises UserError for what the user can mend."""
    clips = read_clips(config.data.train, config.data.split)
    config = without_missing_face(config)
    networks = load_networks(config.model, config.loss)
    num_frames = several(config.data.clip_frames)
    run = denoising_run(config, clips, networks, accelerator, num_frames=num_frames, photos=True)
    held = held_out_clips(config.data, num_frames, photos=True)
    parts = ControlParts(config, networks, run.examples(), {"data": counted(clips)}, run.measured(held))
    return run.training(parts, frees=(parts.texts, parts.previews, parts.meters))


PREVIEW_FPS = 8  # of clips


class ControlParts:
    """The shared ControlNet (unless `train.trainable` is lora) and the LoRAs learn, a person's on the base among them.

    about   what a checkpoint says of itself besides
    """

    def __init__(
        self, config: RunConfig, networks: Assembly, examples: Mapping[str, Batch], about: Mapping[str, Any] | None = None,
        measured: Measured | None = None,
    ):  # fmt: skip
        self.config, self.networks, self.about = config, networks, dict(about or {})
        self.texts = Texts(networks.backbone)
        self.previews = Previews(networks, self.texts, examples, config.seed)
        self.meters = Meters(config, networks, self.texts, self.noise, measured)

    def param_groups(self) -> list[ParamGroup]:
        train, state = self.config.train, self.networks.state()
        shared = {n: p for n, p in state.items() if n.startswith("control.")}
        groups = [lora_group(state, train.lora_tasks or self.config.model.tasks, train)]
        if train.trainable == "all":
            groups.insert(0, ParamGroup(name="control", parameters=shared, lr=train.learning_rate))
        if person := {n: p for n, p in state.items() if part_of(n) == "person"}:
            lr = train.person_learning_rate or train.lora_learning_rate or train.learning_rate
            groups.append(ParamGroup(name="person", parameters=person, lr=lr))
        return groups

    def stored(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.networks.state().items() if not n.startswith("motion.")}

    def load(self, state: Mapping[str, Tensor], what: str) -> None:
        self.networks.load(state, what)

    def metadata(self) -> dict[str, Any]:
        some = {"lora_tasks": sorted(self.config.train.lora_tasks)} if self.config.train.lora_tasks else {}
        run = {"stage": self.config.stage, "prompt": self.config.data.prompt}
        return {**run, **some, **metadata_of(self.networks), **self.about}

    def noise(self, draws: Tensor, shape: tuple[int, ...]) -> Tensor:
        return noise_for(self.config.seed, draws, shape)

    def context(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        return self.texts(prompts, device)

    def residuals(self, task: str, draws: Tensor, control_latents: Tensor, t: Tensor, context: Tensor) -> Any:
        return task_residuals(self.networks.control, task, control_latents, t, context)

    def preview(self, folder: Path, step: int) -> None:
        """A row for each of up to four tasks: condition | generated | truth, of some samples; of clips a short video each."""
        if self.previews.move:
            self.previews.write_videos(folder, f"step-{step:06d}", fps=PREVIEW_FPS)
        else:
            self.previews.write_images(folder / f"step-{step:06d}.png")


def lora_group(state: Mapping[str, nn.Parameter], tasks: Sequence[str], train: TrainConfig) -> ParamGroup:
    """The LoRAs of these tasks, with a learning rate of their own if there is one."""
    trained = {f"lora.{task}" for task in tasks}
    loras = {n: p for n, p in state.items() if part_of(n) in trained}
    return ParamGroup(name="lora", parameters=loras, lr=train.lora_learning_rate or train.learning_rate)


def task_residuals(control: nn.Module, task: str, control_latents: Tensor, t: Tensor, context: Tensor) -> Any:
    """What the Meta ControlNet adds to the base under the LoRA of a task."""
    control.bank.use(task)
    return control(control_latents, t, context)
