"""Stage 0: the Meta ControlNet and one LoRA per task. Stages 1 and 2 differ in what is trained and on what.

Shapes: images `b c h w`, clips `b f c h w`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.data.batch import Batch
from meta_animator.data.samples import to_images
from meta_animator.diffusion.randomness import noise_for, torch_generator
from meta_animator.diffusion.samplers import ddim
from meta_animator.diffusion.timesteps import training_timesteps
from meta_animator.losses.hybrid import WEIGHTS, HybridLoss
from meta_animator.losses.latent import face_region_weights
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.models.assembly import Assembly, part_of
from meta_animator.models.control import ControlOutput
from meta_animator.models.face import face_sizes
from meta_animator.models.precision import HALF, PRECISIONS
from meta_animator.sampling.guidance import Guide
from meta_animator.settings import RunConfig
from meta_animator.training.stage import Mean, ParamGroup

MAX_CONTEXTS = 4096  # text embeddings that are kept
MAX_PROMPTS = 512  # of a run that embeds all of them before its first step


class ControlStage(nn.Module):
    """(noise prediction of the base under control) against the Dual Space Hybrid Loss.

    models     the frozen base with the trained networks
    examples   {task: batch} that previews show
    """

    def __init__(self, config: RunConfig, models: Assembly, loss: HybridLoss, examples: dict[str, Batch]):
        super().__init__()
        self.config, self.models, self.loss, self.examples = config, models, loss, examples
        self.contexts: dict[str, Tensor] = {}  # on the CPU
        self.example_conditions: dict[str, Tensor] = {}
        self.divisors: Tensor | None = None
        models.requires_grad_(False)
        for group in self.param_groups():
            for parameter in group.parameters.values():
                parameter.requires_grad_(True)
        precision = PRECISIONS[config.train.mixed_precision]
        if precision in HALF:
            models.hold_frozen_in(precision)
        if config.train.gradient_checkpointing:
            models.enable_gradient_checkpointing()

    # what is trained and stored

    def param_groups(self) -> list[ParamGroup]:
        train, state = self.config.train, self.models.state()
        shared = {n: p for n, p in state.items() if n.startswith("control.")}
        trained = {f"lora.{task}" for task in train.lora_tasks or self.config.model.tasks}
        loras = {n: p for n, p in state.items() if part_of(n) in trained}
        groups = [ParamGroup(name="lora", parameters=loras, lr=train.lora_learning_rate or train.learning_rate)]
        if train.trainable == "all":
            groups.insert(0, ParamGroup(name="control", parameters=shared, lr=train.learning_rate))
        return groups

    def trainable_state(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.models.state().items() if not n.startswith("motion.")}

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None:
        self.models.load(state, what)

    def metadata(self) -> dict[str, Any]:
        some = {"lora_tasks": sorted(self.config.train.lora_tasks)} if self.config.train.lora_tasks else {}
        return {"stage": self.config.stage, "prompt": self.config.data.prompt, **some, **metadata_of(self.models)}

    # one training step

    def begin_step(self, batches: Sequence[Batch], step: int, mean: Callable[[Tensor], Tensor]) -> None:
        """Count what the image terms are means over: gated images and visible faces, of all micro-batches and processes."""
        self.divisors = None
        if self.loss.image_active(step):
            process, counts = self.models.backbone.process, []
            for batch in batches:
                usable = self.models.usable_faces(batch.landmarks, batch.face_visible)
                frames = batch.pixels.shape[1] if batch.pixels.ndim == 5 else 1
                counts.append(self.loss.counts(process, self._timesteps(batch), usable, frames))
            self.divisors = mean(torch.stack(counts).mean(0))

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Any]]:
        backbone = self.models.backbone
        latents = batch.latents if batch.latents is not None else backbone.encode(batch.pixels)
        control_latents = batch.control_latents
        if control_latents is None:
            posterior_noise = noise_for(self.config.seed, batch.draws, tuple(latents.shape[1:]), stream="condition posterior")
            control_latents = backbone.encode_condition(batch.control_pixels, posterior_noise)
        t, noise = self._noise(batch, latents)
        x_t = backbone.process.add_noise(latents, noise, t).to(latents.dtype)
        context = self.context(batch.prompts)
        prediction = backbone.predict(x_t, t, context, self.steer(batch, control_latents, t, context))
        loss, logs = self.loss(
            process=backbone.process, prediction=prediction, x_t=x_t, t=t,
            target=backbone.process.target(latents, noise, t), latents=latents, pixels=batch.pixels,
            landmarks=batch.landmarks, face_visible=self.models.usable_faces(batch.landmarks, batch.face_visible),
            step=step, decode=backbone.decode, embed_face=self.models.embed_face,
            place_weights=self._place_weights(batch, latents), divisors=self.divisors,
        )  # fmt: skip
        numbers = {name: float(value) for name, value in logs.items()}
        means = {name: Mean(numbers[name], numbers[of]) for name, of in WEIGHTS.items() if name in numbers}
        return loss, {"task": batch.task, **numbers, **means}

    def steer(self, batch: Batch, control_latents: Tensor, t: Tensor, context: Tensor) -> ControlOutput:
        """What the Meta ControlNet adds to the base, under the LoRA of the batch's task."""
        self.models.control.bank.use(batch.task)
        return self.models.control(control_latents, t, context)

    def _place_weights(self, batch: Batch, latents: Tensor) -> Tensor | None:
        """Where the latent error counts more than elsewhere; None: nowhere."""
        weight = self.config.loss.face_region_weight
        if weight == 1 or batch.landmarks is None:
            return None
        points = batch.landmarks.to(latents.device)
        sides = face_sizes(points.flatten(0, -3)).view(points.shape[:-2])
        visible, factor = batch.face_visible.to(latents.device), self.models.backbone.factor
        size = tuple(factor * side for side in latents.shape[-2:])
        return face_region_weights(points.mean(-2), sides, visible, latents.shape[-2:], size, weight)

    def _noise(self, batch: Batch, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Timestep and noise of each draw; functions of (seed, draw) alone."""
        noise = noise_for(self.config.seed, batch.draws, tuple(latents.shape[1:]))
        return self._timesteps(batch).to(latents.device), noise.to(latents)

    def _timesteps(self, batch: Batch) -> Tensor:
        generators = [torch_generator(self.config.seed, "timestep", int(d)) for d in batch.draws]
        bounds, train = self.models.backbone.process.timestep_bounds, self.config.train
        return training_timesteps(generators, bounds, train.timestep_bias_portion, train.timestep_bias_multiplier)

    def context(self, prompts: list[str]) -> Tensor:
        """Text embeddings (b n d); each distinct prompt is embedded once."""
        if len(self.contexts) > MAX_CONTEXTS:
            self.contexts.clear()
        for prompt in set(prompts) - set(self.contexts):
            self.contexts[prompt] = self.models.backbone.embed_text([prompt]).cpu()
        return torch.cat([self.contexts[prompt] for prompt in prompts]).to(next(self.parameters()).device, non_blocking=True)

    def release(self, prompts: Sequence[str], encoder: bool) -> None:
        """Free what training no longer needs: the text encoder, once all `prompts` that there are (if not too many) are embedded,
        and where latents are cached the VAE's encoder."""
        text = len(prompts) <= MAX_PROMPTS
        if text:
            self.context(list(prompts))
        if encoder:
            self.example_conditions = {task: self._condition(task, batch).cpu() for task, batch in self.examples.items()}
        self.models.backbone.release(text=text, encoder=encoder)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # previews

    def preview(self, folder: Path, step: int) -> None:
        """A row per task: condition | generated (20 DDIM steps, no guidance) | truth."""
        rows = []
        for task, batch in self.examples.items():
            batch = batch.to(next(self.parameters()).device)
            generated = to_images(self.generate(task, batch))
            condition, truth = to_images(batch.control_pixels), to_images(batch.pixels)
            rows.append([image for trio in zip(condition, generated, truth, strict=True) for image in trio])
        titles = ["condition", "generated", "truth"] * (len(rows[0]) // 3)
        sheet = grid(rows, column_titles=titles, row_titles=list(self.examples))
        write_image(folder / f"step-{step:06d}.png", sheet)

    def _condition(self, task: str, batch: Batch) -> Tensor:
        """Latents of an example's condition images."""
        if task in self.example_conditions:
            return self.example_conditions[task]
        return self.models.backbone.encode_condition(batch.control_pixels.to(next(self.parameters()).device))

    def generate(self, task: str, batch: Batch) -> Tensor:
        """Pixels sampled under the batch's conditions and prompts, from fixed noise."""
        backbone = self.models.backbone
        guide = Guide(backbone=backbone, control=self.models.control, tasks={task: 1.0})
        context = self.context(batch.prompts)
        control_latents = {task: self._condition(task, batch).to(context)}
        shape = tuple(control_latents[task].shape[1:])
        x = noise_for(self.config.seed, torch.arange(len(batch.prompts)), shape, stream="preview").to(context)
        latents = ddim(
            lambda x_t, t: guide.predict(x_t, t, context, context, control_latents), x, backbone.process,
            backbone.process.sampling_timesteps(20),
        )  # fmt: skip
        with torch.no_grad():
            return backbone.decode(latents)
