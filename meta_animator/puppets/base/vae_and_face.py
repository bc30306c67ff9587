"""Training the small embedded base model: its VAE, a smaller one for the same latents, its face embedder; its UNet is in unet.py.

Stages of the one engine; `export.py` writes what they learned as a diffusers folder.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from meta_animator.data.batch import Batch
from meta_animator.data.samples import to_images
from meta_animator.diffusion.randomness import noise_for, rng
from meta_animator.fingerprints import fingerprint
from meta_animator.json_files import read_json
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.backbones.tiny_vae import check_fits
from meta_animator.models.face import FaceEmbedder, align_faces
from meta_animator.models.precision import autocast
from meta_animator.settings import RunConfig
from meta_animator.training.stage import ParamGroup
from meta_animator.weights import copy_strict


class BaseStage(nn.Module):
    """What they share: trained networks by name, one learning rate, a checkpoint with all of their weights."""

    def __init__(self, config: RunConfig, networks: dict[str, nn.Module], examples: Batch):
        super().__init__()
        self.config, self.examples = config, examples
        self.networks = nn.ModuleDict(networks)

    def begin_step(self, batches: Sequence[Batch], step: int, mean: Callable[[Tensor], Tensor]) -> None:
        """Nothing to do: every term is a mean over a micro-batch (of the faces seen in it)."""

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(name="base", parameters=self.trained(), lr=self.config.train.learning_rate)]

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trainable_state(self) -> dict[str, Tensor]:
        return dict(self.named_parameters())

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None:
        copy_strict(dict(self.named_parameters()), state, what)

    def metadata(self) -> dict[str, Any]:
        return {"stage": self.config.stage, "architecture": self.config.model.architecture}


def as_images(batch: Batch) -> Batch:
    """A batch of clips of one frame as images: pixels `b 3 h w`, landmarks (b, 5, 2), face_visible (b,)."""
    single = {name: getattr(batch, name)[:, 0] for name in ("pixels", "landmarks", "face_visible")}
    return dataclasses.replace(batch, **single)


class VAEStage(BaseStage):
    """A KL autoencoder. Without a perceptual network to download, the error is L1 and MSE on pixels, for colour, and L1
    on their differences at three scales, for edges; a small KL term keeps the latents from growing.

    It starts as an image pyramid (`start_as_pyramid`) with a narrow posterior (standard deviation 0.05): from the usual
    start, colour was not learned within 500 steps. It learns on quarter-size cut-outs, at a quarter of the
    cost of whole frames.
    """

    kl_weight, first_log_variance = 1e-6, -6.0

    def __init__(self, config: RunConfig, examples: Batch):
        if config.model.base_from:
            vae = load_part(AutoencoderKL, Path(config.model.base_from) / "vae")
        else:
            folder = Path(config.model.architecture) / "vae"
            vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder))
            start_as_pyramid(vae)
            nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], self.first_log_variance)
        if config.train.trainable == "decoder":
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)
        super().__init__(config, {"vae": vae}, examples)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        vae = self.networks["vae"]
        pixels = cut_out(as_images(batch), self.config.seed)
        posterior = vae.encode(pixels).latent_dist
        noise = noise_for(self.config.seed, batch.draws, posterior.mean.shape[1:]).to(pixels)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        error, logs = picture_error(decoded, pixels)
        kl = posterior.kl().mean()
        return error + self.kl_weight * kl, logs | {"kl": kl.detach()}

    def preview(self, folder: Path, step: int) -> None:
        vae, pixels = self.networks["vae"], self.examples.pixels.to(self.networks["vae"].device)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        write_image(folder / f"step-{step:06d}.png", grid([list(to_images(pixels)), list(to_images(decoded))]))


class TinyVAEStage(BaseStage):
    """A small autoencoder (diffusers' AutoencoderTiny) for the latents of `model.base_from`'s VAE, which stays as it is: its
    decoder learns to show what the VAE's latents mean, its encoder to make such latents, scaled as the UNet's are.

    The error of pictures is the VAE's; that of latents is MSE.
    """

    def __init__(self, config: RunConfig, examples: Batch):
        vae = load_part(AutoencoderKL, Path(config.model.base_from) / "vae").requires_grad_(False)
        folder = Path(config.model.architecture) / "tiny_vae"
        read_json(folder / "config.json")  # says in one line where it is missing
        tiny = AutoencoderTiny.from_config(AutoencoderTiny.load_config(folder))
        check_fits(tiny, str(folder), vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1))
        super().__init__(config, {"tiny_vae": tiny}, examples)
        self.vae = vae

    def trainable_state(self) -> dict[str, Tensor]:
        return dict(self.trained())

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None:
        copy_strict(self.trained(), state, what)

    def metadata(self) -> dict[str, Any]:
        return {**super().metadata(), "vae": fingerprint(self.vae.state_dict())}

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        tiny, pixels = self.networks["tiny_vae"], cut_out(as_images(batch), self.config.seed)
        latents = self._latents(pixels)
        error, logs = picture_error(tiny.decode(latents).sample, pixels)
        latent = F.mse_loss(tiny.encode(pixels).latents, latents)
        return error + latent, logs | {"latent": latent.detach()}

    @torch.no_grad()
    def _latents(self, pixels: Tensor) -> Tensor:
        with autocast(pixels.device, enabled=False):
            return self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor

    def preview(self, folder: Path, step: int) -> None:
        """A row of pictures, through the VAE, and through its encoder and the small decoder."""
        pixels = self.examples.pixels.to(self.vae.device)
        latents = self._latents(pixels)
        exact = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        shown = (pixels, exact, self.networks["tiny_vae"].decode(latents).sample)
        write_image(folder / f"step-{step:06d}.png", grid([list(to_images(one)) for one in shown]))


def picture_error(decoded: Tensor, pixels: Tensor, edge_weight: float = 0.25) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 and MSE, for colour, and `edge_loss`; and numbers for the log."""
    absolute, squared = F.l1_loss(decoded, pixels), F.mse_loss(decoded, pixels)
    error = absolute + squared + edge_weight * edge_loss(decoded, pixels)
    return error, {"l1": absolute.detach(), "psnr": 10 * torch.log10(4 / squared.detach())}


@torch.no_grad()
def start_as_pyramid(vae: AutoencoderKL, channels: int = 8) -> None:
    """Let the first channels pass straight through: averaged on the way down, repeated on the way up, residual branches
    at zero. The rest starts at random, with unit gain."""
    for name, conv in vae.named_modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        nn.init.zeros_(conv.bias)
        if name.endswith("conv2"):
            nn.init.zeros_(conv.weight)
        elif not name.endswith("conv1"):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
            passed = min(channels, *conv.weight.shape[:2])
            conv.weight[:passed] *= 0.3
            for c in range(passed):
                if "downsamplers" in name:
                    conv.weight[c, c] += 1 / 9
                else:
                    conv.weight[c, c, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] += 1


def cut_out(batch: Batch, seed: int) -> Tensor:
    """A random part of each picture, half its height and width: (b 3 h/2 w/2). Every second one with a visible face has
    the face in its middle, as far as the picture goes on around it."""
    size = torch.tensor([side // 2 for side in batch.pixels.shape[-2:]])
    parts = []
    for k, pixels in enumerate(batch.pixels):
        draw = rng(seed, "cut-out", int(batch.draws[k]))
        corner = torch.from_numpy(draw.integers(0, size.numpy() + 1))
        if draw.random() < 0.5 and bool(batch.face_visible[k]):
            middle = batch.landmarks[k].mean(0).flip(0).cpu()
            corner = (middle - size / 2).round().long().clamp(torch.zeros_like(size), size)
        (y, x), (height, width) = corner.tolist(), size.tolist()
        parts.append(pixels[:, y : y + height, x : x + width])
    return torch.stack(parts)


def edge_loss(x: Tensor, y: Tensor) -> Tensor:
    """L1 between horizontal and vertical differences, at full, half and quarter size."""
    total = x.new_zeros(())
    for _ in range(3):
        total = total + F.l1_loss(x.diff(dim=-1), y.diff(dim=-1)) + F.l1_loss(x.diff(dim=-2), y.diff(dim=-2))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return total


class FaceStage(BaseStage):
    """The face embedder, trained to tell the train set's people apart by an additive angular margin
    (ArcFace, Deng et al. 2019, eq. 3), on crops that are disturbed as other pictures of a face would be."""

    margin, scale = 0.3, 16.0

    def __init__(self, config: RunConfig, examples: Batch, identities: list[str], embedder: FaceEmbedder):
        super().__init__(config, {"face": embedder}, examples)
        self.index = {name: k for k, name in enumerate(identities)}
        size = embedder.config.embedding_dim
        self.centres = nn.Parameter(torch.randn(len(identities), size) / size**0.5)  # a step of Adam turns longer ones less

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        batch = as_images(batch)
        seen = batch.face_visible
        labels = torch.tensor([self.index[name] for name in batch.identities], device=batch.pixels.device)[seen]
        if not len(labels):
            return self.centres.sum() * 0, {"faces": 0.0}
        face, draws = self.networks["face"], batch.draws[seen.cpu()]
        points = jittered(batch.landmarks[seen], draws, self.config.seed)
        crops = align_faces(batch.pixels[seen], points, face.config.input_size, face.config.oversample)
        embedding = face(disturbed(crops, draws, self.config.seed))
        cosine = (embedding @ F.normalize(self.centres, dim=1).T).clamp(-1 + 1e-6, 1 - 1e-6)
        chosen = F.one_hot(labels, len(self.index)).bool()
        logits = self.scale * torch.where(chosen, (cosine.arccos() + self.margin).cos(), cosine)
        accuracy = (cosine.argmax(1) == labels).float().mean()
        return F.cross_entropy(logits, labels), {"accuracy": accuracy, "faces": float(len(labels))}

    def preview(self, folder: Path, step: int) -> None:
        """The aligned faces that the network sees."""
        seen = self.examples.face_visible
        crops = align_faces(self.examples.pixels[seen], self.examples.landmarks[seen], self.networks["face"].config.input_size)
        write_image(folder / f"step-{step:06d}.png", grid([list(to_images(crops))]))


def jittered(landmarks: Tensor, draws: Tensor, seed: int) -> Tensor:
    """Landmarks (n, 5, 2), each off by about 2 % of its face's size, as a detector's are."""
    size = (landmarks - landmarks.mean(1, keepdim=True)).norm(dim=2).mean(1)[:, None, None]
    return landmarks + 0.05 * size * noise_for(seed, draws, (5, 2), stream="landmarks").to(landmarks)


def disturbed(crops: Tensor, draws: Tensor, seed: int) -> Tensor:
    """Crops (n 3 s s) in another light, with grain, and a third of them at half their resolution."""
    light = noise_for(seed, draws, (3,), stream="light").to(crops)
    gain, offset, tint = 1 + 0.12 * light[:, 0], 0.08 * light[:, 1], 0.04 * noise_for(seed, draws, (3,), stream="tint").to(crops)
    coarse = F.interpolate(F.avg_pool2d(crops, 2), scale_factor=2, mode="bilinear")
    crops = torch.where((light[:, 2] > 0.43)[:, None, None, None], coarse, crops)
    crops = crops * gain[:, None, None, None] + (offset[:, None] + tint)[:, :, None, None]
    return crops + 0.04 * noise_for(seed, draws, tuple(crops.shape[1:]), stream="grain").to(crops)
