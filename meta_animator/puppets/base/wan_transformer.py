"""Training the transformer of the small embedded Wan with its text encoder, and beside them its control branch.

A published control branch learned on a finished text-to-video model. Here there is none to start from, so both learn together,
as the UNet of the embedded Stable Diffusion and its Meta ControlNet do (unet.py).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from meta_animator.data.batch import Batch, collate
from meta_animator.data.latents import FRAME, LatentCache, Unit
from meta_animator.data.manifest import Clip
from meta_animator.data.samples import SampleSet, read_clips, to_images
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.diffusion.process import Noised
from meta_animator.diffusion.randomness import noise_for, rng, torch_generator
from meta_animator.diffusion.timesteps import flow_timesteps, training_timesteps
from meta_animator.losses.latent import latent_loss
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.puppets.base.growing import check_base_config
from meta_animator.puppets.base.wan_networks import CacheSource, GrowingWan, growing_wan
from meta_animator.puppets.base.wan_vae import check_frames
from meta_animator.settings import RunConfig
from meta_animator.stages.cache import make_cache
from meta_animator.stages.data import Training
from meta_animator.stages.regions import region_weights
from meta_animator.training.stage import Mean, ParamGroup
from meta_animator.weights import copy_strict

TRAINED = ("transformer", "text_encoder")
PHOTOS, REFERENCES = 0.2, 0.3  # shares of the steps that show one frame, and of those with control that come with a photo
EVERY = 5  # frames of a film from one photo to the next where single frames are learned from; its last one is the reference


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """Clips -> a Wan that grows -> cached latents -> what learns."""
    model, data, train = config.model, config.data, config.train
    check_base_config(config.stage, model, train)
    check_frames(data.num_frames)
    clips = read_clips(data.train, data.split)
    networks = growing_wan(model, [clip.prompt for clip in clips])
    every = EVERY if data.num_frames == 1 else 1
    samples = SampleSet(clips, data, seed=config.seed, identifiers={}, num_frames=data.num_frames, every=every)
    plan = TaskPlan(
        samples=shares(samples.by_task(model.tasks), data.task_weights), batch_size=train.batch_size, seed=config.seed,
        micro_batches=train.gradient_accumulation_steps, world_size=accelerator.num_processes, weights=dict(data.task_weights),
    )  # fmt: skip
    samples = samples.reading(encoded(config, networks, samples, plan, accelerator), None)
    tasks = [task for task in plan.samples for _ in range(2)][:4]
    chosen = [Draw(10**9 + k, task, plan.samples[task][k % len(plan.samples[task])]) for k, task in enumerate(tasks)]
    examples = [collate([samples[draw]]) for draw in chosen]
    return Training(stage=WanStage(config, networks, examples), samples=samples, plan=plan)


def shares(table: dict[str, list[int]], weights: dict[str, int]) -> dict[str, list[int]]:
    """The samples of each task: all for the task that is drawn most often, of those of the others as many of them as the share
    of draws that they have beside it. What is seldom drawn need not be encoded for everybody."""
    most = max(weights.get(task, 1) for task in table)
    return {task: indices[:: max(1, most // weights.get(task, 1))] for task, indices in table.items()}


def encoded(
    config: RunConfig, networks: GrowingWan, samples: SampleSet, plan: TaskPlan, accelerator: Accelerator
) -> "CachesByTask":
    """The latents of all that the plan may draw, and of each clip's last frame as a photo."""
    networks.vae.to(accelerator.device)
    folder = Path(config.output_dir) / "cache"

    def cache(kept: list[tuple[Clip, list[Unit]]], tasks: list[str]) -> LatentCache:
        source = CacheSource(config.model, networks)
        return make_cache(config.data, source, kept, tasks, accelerator, folder=folder, seed=config.seed, clips=True)

    by_task = {task: cache(samples.kept_units(indices, together=True), [task]) for task, indices in plan.samples.items()}
    clips = {(str(clip.folder), clip.id): clip for one in by_task.values() for clip, _ in one.kept}
    return CachesByTask(by_task, cache([(clip, [(clip.num_frames - 1,)]) for clip in clips.values()], []))


class CachesByTask:
    """Caches of latents, each of one task and of the frames of the clips that have it, and one of a photo of each clip. Frames
    are read with that photo before them."""

    def __init__(self, caches: dict[str, LatentCache], photos: LatentCache):
        self.caches, self.photos = caches, photos
        self.owner = {}
        for task, cache in caches.items():
            self.owner |= {(str(clip.folder), clip.id, unit): task for clip, units in cache.kept for unit in units}

    def read(self, clip: Clip, name: str, frames: Sequence[int], crop: int = 0, drop: int = 0) -> Tensor:
        """As `LatentCache.read`, but for the photo."""
        if name != FRAME:
            return self.caches[name].read(clip, name, frames, crop, drop)
        own = self.caches[self.owner[str(clip.folder), clip.id, tuple(frames)]].read(clip, FRAME, frames, crop)
        return torch.cat([self.photos.read(clip, FRAME, [clip.num_frames - 1], crop), own])


class WanStage(nn.Module):
    """Flow matching on the latents of clips and, one step in five, of their first frames, which are photos to this VAE. A share
    `train.control_drop` of the steps goes without the branch: so the base stays a text-to-video model. In others a photo of the
    person stands before the clip, as a reference; it is made again, as VACE makes its references.

    `batch.latents` begin with that photo."""

    def __init__(self, config: RunConfig, networks: GrowingWan, examples: Sequence[Batch]):
        super().__init__()
        self.config, self.networks, self.examples = config, networks, examples
        size = examples[0].control_latents.shape[-2:]
        grey = torch.zeros(1, config.data.num_frames, 3, *(8 * side for side in size))
        self.register_buffer("grey", networks.encode(grey), persistent=False)

    def begin_step(self, batches: Sequence[Batch], step: int, mean) -> None:
        """Nothing to do: the error is a mean over a micro-batch."""

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Mean]]:
        networks, seed = self.networks, self.config.seed
        photo, latents, control = batch.latents[:, :1], batch.latents[:, 1:], batch.control_latents
        if rng(seed, "photo", step).random() < PHOTOS:
            latents, control = latents[:, :1], control[:, :1]
        controlled = rng(seed, "control drop", step).random() >= self.config.train.control_drop
        referred = controlled and rng(seed, "reference", step).random() < REFERENCES
        context = networks.context_of(control, self.grey[:, : control.shape[1]], photo if referred else None)
        weights = self.place_weights(batch, latents)
        if referred:
            latents = torch.cat([photo, latents], dim=1)
            weights = None if weights is None else torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)
        t = self.timesteps(batch.draws).to(latents.device)
        noised = Noised.of(networks.process, latents, noise_for(seed, batch.draws, latents.shape[1:]).to(latents), t)
        velocity = networks.predict(noised.x_t, t, networks.text_states(batch.prompts), context, float(controlled))
        loss = latent_loss(velocity, noised.target, weights).mean()
        kind = batch.task if controlled else "text"
        return loss, {f"loss_{kind}": Mean(loss.detach(), 1.0)}

    def timesteps(self, draws: Tensor) -> Tensor:
        """One for each draw, float32 (b,): uniform before the shift."""
        generators = [torch_generator(self.config.seed, "timestep", int(draw)) for draw in draws]
        bounds = self.networks.process.timestep_bounds
        return training_timesteps(generators, bounds, shift=self.config.train.timestep_shift).float()

    def place_weights(self, batch: Batch, latents: Tensor) -> Tensor | None:
        """Where the error counts more, because the person or a face is seen in one of a latent's frames; None: nowhere."""
        shown = [slice(max(0, 4 * k - 3), 4 * k + 1) for k in range(latents.shape[1])]
        return region_weights(batch, latents, 8, shown, self.config.loss)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(name="base", parameters=self.trainable_state(), lr=self.config.train.learning_rate)]

    def trainable_state(self) -> dict[str, Tensor]:
        return {f"{part}.{n}": p for part in TRAINED for n, p in getattr(self.networks, part).named_parameters()}

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None:
        copy_strict(self.trainable_state(), state, what)

    def metadata(self) -> dict[str, Any]:
        return {"stage": self.config.stage, "architecture": self.config.model.architecture}

    def preview(self, folder: Path, step: int) -> None:
        """Per example: condition, from text and condition, from text alone, truth."""
        rows, networks = [], self.networks
        for batch in self.examples:
            batch = batch.to(self.grey.device)
            context = networks.context_of(batch.control_latents, self.grey)
            shift = self.config.train.timestep_shift
            made = [sample(networks, batch.prompts, context, strength, shift) for strength in (1.0, 0.0)]
            shown = (batch.control_latents, *made, batch.latents[:, 1:])
            rows += [list(to_images(networks.decode(latents)[0, ::3])) for latents in shown]
        titles = ["condition", "posed", "text", "truth"] * len(self.examples)
        write_image(folder / f"step-{step:06d}.png", grid(rows, row_titles=titles))


@torch.no_grad()
def sample(
    networks: GrowingWan, prompts: Sequence[str], context: Tensor, strength: float = 1.0, shift: float = 3.0, steps: int = 20
) -> Tensor:
    """Latents (b f' c h w) from noise, by Euler's method on shifted timesteps; context: of `context_of`."""
    shape = (*context.shape[:2], networks.vae.config.z_dim, *context.shape[3:])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(context)
    text, last = networks.text_states(prompts), networks.process.num_train_timesteps
    for t, following in pairwise([*flow_timesteps(steps, last, shift).tolist(), 0.0]):
        velocity = networks.predict(x, torch.full((len(x),), t, device=x.device), text, context, strength)
        x = x + (following - t) / last * velocity
    return x
