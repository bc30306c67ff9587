"""Training the VAE of the small embedded Wan, on clips, photos and condition images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLWan
from einops import rearrange
from torch import Tensor, nn

from meta_animator.data.batch import Batch, collate
from meta_animator.data.samples import SampleSet, read_clips, to_images
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.diffusion.randomness import noise_for, rng
from meta_animator.errors import UserError
from meta_animator.losses.latent import face_region_weights
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.backbones.wan_vae import decode
from meta_animator.models.face import face_sizes
from meta_animator.puppets.base.growing import check_base_config
from meta_animator.puppets.base.vae_and_face import BaseStage, edge_loss
from meta_animator.puppets.base.wan_autoencoder import encode, start_as_average, with_images_as_images
from meta_animator.settings import RunConfig
from meta_animator.stages.data import Training
from meta_animator.training.stage import Mean

PERSON = "normal"  # the Meta-Task whose images are black beside the person: it comes with the frames, and says where they are
EARLY, LATE = 0.5, 0.65  # shares of the steps before which parts of clips are smaller, after which half show whole clips


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """base_wan_vae with clips of many people and their condition images."""
    model, data, train = config.model, config.data, config.train
    check_base_config(config.stage, model, train)
    check_frames(data.num_frames)
    samples = SampleSet(
        read_clips(data.train, data.split), data, seed=config.seed, identifiers={}, num_frames=data.num_frames
    )  # fmt: skip
    plan = TaskPlan(
        samples=samples.by_task([*dict.fromkeys([PERSON, *model.tasks])]), batch_size=train.batch_size, seed=config.seed,
        micro_batches=train.gradient_accumulation_steps, world_size=accelerator.num_processes, weights=dict(data.task_weights),
    )  # fmt: skip
    shown = [PERSON, PERSON, *model.tasks[:3]]
    chosen = [Draw(10**9 + k, task, k * len(samples) // len(shown)) for k, task in enumerate(shown)]
    examples = [collate([samples[draw]]) for draw in chosen]
    return Training(stage=WanVAEStage(config, examples), samples=samples, plan=plan)


def check_frames(num_frames: int) -> None:
    """Raises UserError for clips that this VAE cannot encode."""
    if num_frames % 4 != 1:
        near = num_frames // 4 * 4 + 1
        raise UserError(f"data.num_frames: {num_frames}; Wan's VAE takes 4 k + 1 frames, such as {near} or {near + 4}")


class WanVAEStage(BaseStage):
    """A causal video autoencoder, by the errors of `VAEStage` and one on what changes from frame to frame. Errors on the person
    count more than those beside them, and those in the face most.

    A step shows single frames, parts of five frames or whole clips (`shape_of`): a small part costs a tenth of a whole clip.
    A batch of the task `PERSON` shows its frames; one of another task its condition images, one of them plain grey, which stands
    for the frames that a control branch is told nothing of.
    """

    kl_weight, edge_weight, change_weight, first_log_variance = 1e-3, 0.25, 0.25, -6.0
    person_weight, face_weight = 3.0, 6.0

    def __init__(self, config: RunConfig, examples: Sequence[Batch]):
        if config.model.base_from:
            vae = load_part(AutoencoderKLWan, Path(config.model.base_from) / "vae")
        else:
            vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(Path(config.model.architecture) / "vae"))
            start_as_average(vae)
            nn.init.constant_(vae.quant_conv.bias[vae.config.z_dim :], self.first_log_variance)
        if config.train.trainable == "decoder":
            for part in (vae.encoder, vae.quant_conv):
                part.requires_grad_(False)
        super().__init__(config, {"vae": with_images_as_images(vae)}, examples)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | Mean]]:
        vae, (pixels, weights) = self.networks["vae"], self.shown(batch)
        shape = shape_of(self.config.seed, step, step / self.config.train.max_steps)
        both = cut_clips(torch.cat([pixels, weights], dim=2), batch.draws, shape, self.config.seed)
        pixels, weights = both[:, :3], both[:, 3:]
        mean, log_variance = encode(vae, pixels)
        noise = noise_for(self.config.seed, torch.arange(len(mean)) + batch.draws[0] * 100, mean.shape[1:]).to(mean)
        decoded = decode(vae, mean + (0.5 * log_variance).exp() * noise).float()
        error = decoded - pixels
        absolute, squared = (error.abs() * weights).mean(), (error.square() * weights).mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        edges = edge_loss(*(rearrange(x, "b c f h w -> (b f) c h w") for x in (decoded, pixels)))
        change = error.diff(dim=2).abs().mean() if pixels.shape[2] > 1 else error.new_zeros(())
        loss = absolute + squared + self.edge_weight * edges + self.change_weight * change + self.kl_weight * kl
        kind = shape if batch.task == PERSON else "condition"
        psnr = 10 * torch.log10(4 / error.detach().square().mean())
        return loss, {"l1": absolute.detach(), "kl": kl.detach(), f"psnr_{kind}": Mean(psnr, 1.0)}

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What a batch shows (b f 3 H W), and how much an error counts where (b f 1 H W), 1 in their mean."""
        images = batch.control_pixels
        if batch.task != PERSON:
            images = torch.cat([images[:1] * 0, images[1:]])
            return images, torch.ones_like(images[:, :, :1])
        weights = 1 + self.person_weight * (images > -1).any(2, keepdim=True)
        points, size = batch.landmarks.to(images.device), images.shape[-2:]
        sides = face_sizes(points.flatten(0, -3)).view(points.shape[:-2])
        face = face_region_weights(points.mean(-2), sides, batch.face_visible.to(images.device), size, size, 1 + self.face_weight)
        weights = weights + (face - 1)
        return batch.pixels, weights / weights.mean()

    def preview(self, folder: Path, step: int) -> None:
        """Per example: frames and the same decoded, then a photo, then condition images."""
        rows = []
        for batch in self.examples:
            batch = batch.to(self.networks["vae"].device)
            pixels = batch.pixels if batch.task == PERSON else batch.control_pixels
            vae = self.networks["vae"]
            decoded = vae.decode(encode(vae, pixels.transpose(1, 2))[0]).sample.transpose(1, 2)
            rows += [list(to_images(x[0])) for x in (pixels, decoded)]
        write_image(folder / f"step-{step:06d}.png", grid(rows))


def shape_of(seed: int, step: int, progress: float) -> str:
    """What a step shows: photo, small, part or clip; `progress` in [0, 1] is how much of the training is over."""
    clips = 0.1 if progress < LATE else 0.5
    shape = str(rng(seed, "shape", step).choice(["photo", "part", "clip"], p=[0.2, 0.8 - clips, clips]))
    return "small" if shape == "part" and progress < EARLY else shape


def cut_clips(clips: Tensor, draws: Tensor, shape: str, seed: int) -> Tensor:
    """Of clips (b f c h w), as (b' c f' h' w'): every second one whole; of each three single frames (photo); or of each two
    parts of five frames, with half of the sides (small) or three quarters (part)."""
    if shape == "clip":
        return clips[: (len(clips) + 1) // 2].transpose(1, 2)
    parts = []
    for clip, draw in zip(clips, draws, strict=True):
        random = rng(seed, "cut", int(draw))
        if shape == "photo":
            parts += [clip[k : k + 1] for k in random.choice(len(clip), min(3, len(clip)), replace=False)]
            continue
        count, eighths = min(5, len(clip)), 4 if shape == "small" else 6
        height, width = (side // 8 * eighths for side in clip.shape[-2:])
        room = len(clip) - count, clip.shape[-2] - height, clip.shape[-1] - width
        for _ in range(2):
            first, y, x = (int(random.integers(0, n + 1)) for n in room)
            parts.append(clip[first : first + count, :, y : y + height, x : x + width])
    return torch.stack(parts).transpose(1, 2)
