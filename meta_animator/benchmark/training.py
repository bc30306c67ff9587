"""A training step as a run takes it, by the engine: on the config's own data, or on random weights and batches.

Shapes as in data/batch.py.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from meta_animator.data.batch import Batch
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import backbone_without_weights
from meta_animator.settings import PuppetsConfig, RunConfig
from meta_animator.stages.check_settings import trained_tasks, wants_face, without_missing_face
from meta_animator.stages.checks import check_run
from meta_animator.stages.control import ControlParts
from meta_animator.stages.data import Training, load_batches
from meta_animator.stages.denoising import DenoisingStage
from meta_animator.stages.memory import give_weights
from meta_animator.stages.motion import MotionParts
from meta_animator.stages.networks import make_loss
from meta_animator.stages.train import STAGES
from meta_animator.training.engine import Trainer

FACE = ((0.4, 0.4), (0.6, 0.4), (0.5, 0.5), (0.42, 0.6), (0.58, 0.6))  # eyes, nose, mouth corners, in a random picture


class OwnTraining:
    """`step()` is one optimizer step of the engine with its micro-batches.

    shape    of a micro-batch's latents, b f' c h w
    losses   of the micro-batches so far
    waited   seconds that each step has waited for data
    """

    def __init__(self, trainer: Trainer, stream: Iterator[Batch]):
        self.trainer, self.stream = trainer, stream
        self.shape: tuple[int, ...] = ()
        self.losses: list[Tensor] = []
        self.waited: list[float] = []
        trainer.stage.register_forward_hook(lambda module, arguments, output: self.losses.append(output[0].detach()))

    def __next__(self) -> Batch:
        begin = time.perf_counter()
        batch = next(self.stream)
        self.waited[-1] += time.perf_counter() - begin
        backbone = self.trainer.stage.models.backbone
        b, f, _, *sides = (batch.pixels if batch.latents is None else batch.latents).shape
        if batch.latents is None:
            f, sides = backbone.latent_frames(f), [side // backbone.vae_scale_factor for side in sides]
        self.shape = (b, f, backbone.latent_channels, *sides)
        return batch

    def step(self) -> None:
        self.waited.append(0.0)
        self.trainer.step_once(self)

    @property
    def image_terms(self) -> bool:
        """Whether the last step had them."""
        return self.trainer.stage.loss.image_active(self.trainer.step - 1)


def of_a_run(config: RunConfig, folder: Path, make_data: Callable[[PuppetsConfig], None] | None = None) -> RunConfig:
    """The config of a run that leaves nothing behind but cached latents, where the config says where these live, and puppets;
    `folder` is taken for its output. Raises UserError for what is in its way."""
    for note in check_run(config):
        print(f"note: {note}")
    if make_data is not None:
        make_data(config.data.puppets)
    own = Path(config.output_dir) / "cache"
    cache_dir = config.data.cache_dir or str(own if own.is_dir() else folder / "cache")
    data, train = dataclasses.replace(config.data, cache_dir=cache_dir), dataclasses.replace(config.train, preview_every=0)
    return dataclasses.replace(config, output_dir=str(folder), data=data, train=train)


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """What a run of `config` trains, on its data."""
    torch.manual_seed(config.seed)
    return STAGES[config.stage](config, accelerator)


def build_synthetic(config: RunConfig, accelerator: Accelerator) -> tuple[nn.Module, Callable[[], None]]:
    """The stage on random weights, with image terms from its first step on where the config has any, and what frees, as in a
    run, what is needed no more. Needs the base's config files only."""
    check_run(config, dry=True)
    config = without_missing_face(config)
    moving = config.stage == "motion"
    models = Assembly(
        config.model, backbone_without_weights(config.model), with_motion=moving, face=wants_face(config.loss),
        with_person=config.stage == "reference",
    )  # fmt: skip
    loss = make_loss(config.loss, models, 0, config.train.max_steps, lambda said: None)
    parts = (MotionParts if moving else ControlParts)(config, models, {})
    parts.texts = SyntheticTexts(models.backbone.text_shape)
    stage = DenoisingStage(config, models, loss, parts)
    embedder = set() if models.face is None else set(models.face.modules())
    give_weights([module for module in stage.modules() if module not in embedder], accelerator.device)
    free = functools.partial(models.backbone.release, text=True, encoder=config.data.cache_latents)
    if config.train.compile:
        models.compile_blocks()
    return stage.to(accelerator.device), free


class SyntheticTexts:
    """The same embedding (n d) for any prompt."""

    def __init__(self, shape: tuple[int, int]):
        self.embedding = torch.randn(shape)

    def __call__(self, prompts: list[str], device: torch.device) -> Tensor:
        return self.embedding.expand(len(prompts), *self.embedding.shape).to(device)


def synthetic_batches(config: RunConfig, stage: nn.Module) -> Iterator[Batch]:
    """Micro-batches of the config's shapes without end, its tasks by turns; with pixels only where a run reads them."""
    backbone, data, count = stage.models.backbone, config.data, config.train.batch_size
    frames = data.num_frames if config.stage == "motion" else data.clip_frames
    pixels = torch.rand(count, frames, 3, data.height, data.width) * 2 - 1
    sides = (data.height // backbone.vae_scale_factor, data.width // backbone.vae_scale_factor)
    latents = torch.randn(count, backbone.latent_frames(frames), backbone.latent_channels, *sides)
    shown = pixels if stage.loss.image_active(config.train.max_steps) or not data.cache_latents else None
    cached = {"latents": latents, "control_latents": latents} if data.cache_latents else {"control_pixels": pixels}
    points = (torch.tensor(FACE) * torch.tensor([data.width, data.height])).expand(count, frames, 5, 2)
    tasks, number = trained_tasks(config.stage, config.model, config.train), 0
    while True:
        step = number // config.train.gradient_accumulation_steps
        yield Batch(
            task=tasks[step % len(tasks)], draws=torch.arange(number * count, (number + 1) * count), pixels=shown,
            prompts=["a person"] * count, identities=["somebody"] * count, landmarks=points,
            face_visible=torch.ones(count, frames, dtype=torch.bool), **cached,
        )  # fmt: skip
        number += 1


@contextlib.contextmanager
def own_training(config: RunConfig, stage: nn.Module, batches: Any, accelerator: Accelerator) -> Iterator[OwnTraining]:
    """Steps of `stage` on micro-batches from `batches`, a generator, in a run of its own in `config.output_dir`."""
    trainer = Trainer(config, accelerator, stage, batches)
    try:
        with contextlib.closing(batches):
            yield OwnTraining(trainer, batches)
    finally:
        trainer.lock.close()


def data_of(config: RunConfig, training: Training, accelerator: Accelerator, steps: int) -> Iterator[Batch]:
    return load_batches(config.data, training.samples, training.plan, accelerator, 0, steps)
