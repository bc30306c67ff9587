"""The SD1.5 family: KL-VAE, CLIP text encoder, UNet2DConditionModel; from a folder in diffusers format."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor, nn

from meta_animator.diffusion.process import DDPM
from meta_animator.errors import UserError
from meta_animator.models.control import ControlOutput, MetaControlNet
from meta_animator.models.motion import join_motion, new_motion_adapter
from meta_animator.settings import ModelConfig
from meta_animator.weights import fingerprint, read_json


class StableDiffusion(nn.Module):
    """A frozen base model. Raises UserError where the folder lacks a part."""

    def __init__(self, config: ModelConfig, unet: UNet2DConditionModel, vae, text_encoder, tokenizer, process: DDPM):
        super().__init__()
        self.config, self.process, self.tokenizer = config, process, tokenizer
        self.unet, self.vae, self.text_encoder, self.motion_unet = unet, vae, text_encoder, None
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.divisor = self.factor * 2 ** (len(unet.config.block_out_channels) - 1)
        self.requires_grad_(False)
        self.eval()
        parts = {"unet": unet, "vae.encoder": vae.encoder, "text_encoder": text_encoder}
        self._fingerprint = fingerprint({f"{n}.{k}": w for n, part in parts.items() for k, w in part.state_dict().items()})

    @classmethod
    def from_folder(cls, config: ModelConfig) -> "StableDiffusion":
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # the run's own bars are enough
        folder = Path(config.base)
        for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            if not (folder / part).is_dir():
                raise UserError(f"base model {folder}: no folder '{part}'; expected a model in diffusers format")
        parts = {}
        for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
            try:
                parts[part] = kind.from_pretrained(folder / part, torch_dtype=torch.float32)
            except (OSError, ValueError, RuntimeError, SafetensorError) as error:
                raise UserError(f"base model {folder / part}: {str(error).splitlines()[0]}") from error
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"base model {folder / 'tokenizer'}: {str(error).splitlines()[0]}") from error
        return cls(config, **parts, tokenizer=tokenizer, process=read_process(folder, config.beta_schedule))

    # pixels and latents

    def encode_condition(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.config.condition_range == "unit":
            pixels = pixels / 2 + 0.5
        return self.encode(pixels, noise if self.config.condition_posterior == "sample" else None)

    @torch.no_grad()
    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        flat, frames = _fold(pixels)
        with torch.autocast(flat.device.type, enabled=False):  # latents are data: not rounded to half precision
            posterior = self.vae.encode(flat.to(self.vae.dtype)).latent_dist
        latents = posterior.mode() if noise is None else posterior.mean + posterior.std * _fold(noise)[0].to(flat.device)
        return _unfold(latents * self.vae.config.scaling_factor, frames)

    def decode(self, latents: Tensor) -> Tensor:
        flat, frames = _fold(latents)
        return _unfold(self.vae.decode(flat.to(self.vae.dtype) / self.vae.config.scaling_factor).sample, frames)

    # text

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )  # fmt: skip
        with torch.autocast(self.text_encoder.device.type, enabled=False):
            return self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state

    def identifiers(self, count: int) -> list[str]:
        """Reserved tokens of the tokenizer ("<id007>"), pairs of them, or pairs of rare four-letter tokens."""
        reserved = sorted(t for t in self.tokenizer.get_added_vocab() if t.startswith("<id"))
        if len(reserved) >= count:
            return reserved[:count]
        return pairs(reserved or rare_words(self.tokenizer.get_vocab()), count)

    # networks

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: ControlOutput | None = None) -> Tensor:
        down, mid = (None, None) if control_output is None else control_output
        if x_t.ndim == 4:
            return self.unet(
                x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid,
                return_dict=False,
            )[0]  # fmt: skip
        if self.motion_unet is None:
            raise UserError("this run samples or trains a video but has no motion module")
        sample = self.motion_unet(
            rearrange(x_t, "b f c h w -> b c f h w"), t, context.repeat_interleave(x_t.shape[1], 0),
            down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False,
        )[0]  # fmt: skip
        return rearrange(sample, "b c f h w -> b f c h w")

    def make_control(self, tasks: list[str], rank: int) -> MetaControlNet:
        return MetaControlNet(self.unet, tasks, rank)

    def with_motion(self, max_seq_length: int) -> MotionAdapter:
        adapter = new_motion_adapter(self.unet, max_seq_length)
        self.motion_unet = join_motion(self.unet, adapter)
        return adapter

    def enable_gradient_checkpointing(self) -> None:
        for network in (self.unet, self.motion_unet):
            if network is not None:
                network.enable_gradient_checkpointing()

    def fingerprint(self) -> str:
        return self._fingerprint

    def vae_fingerprint(self) -> str:
        return fingerprint(self.vae.state_dict())


def read_process(folder: Path, beta_schedule: str = "") -> DDPM:
    """The noise process of a diffusers folder, or the same with another `beta_schedule`."""
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    return DDPM.from_betas(
        schedule=beta_schedule or config["beta_schedule"],
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        num_train_timesteps=config["num_train_timesteps"],
        prediction_type=config.get("prediction_type", "epsilon"),
        set_alpha_to_one=config.get("set_alpha_to_one", False),
    )


def rare_words(vocabulary: dict[str, int]) -> list[str]:
    """The whole-word, four-letter tokens of a BPE vocabulary, rarest (highest index) first."""
    ranked = sorted(vocabulary, key=vocabulary.get, reverse=True)
    return [w[:-4] for w in ranked if w.endswith("</w>") and len(w) == 8 and w[:-4].isascii() and w[:-4].isalpha()]


def pairs(words: Sequence[str], count: int) -> list[str]:
    """`count` different pairs of words, those of the first words first. Raises UserError where there are too few."""
    found = list(itertools.islice((f"{words[i]} {words[j]}" for j in range(len(words)) for i in range(j)), count))
    if len(found) < count:
        raise UserError(f"{count} people need more identifiers than this tokenizer's {len(words)} rare words can make")
    return found


def _fold(x: Tensor) -> tuple[Tensor, int | None]:
    return (rearrange(x, "b f c h w -> (b f) c h w"), x.shape[1]) if x.ndim == 5 else (x, None)


def _unfold(x: Tensor, frames: int | None) -> Tensor:
    return x if frames is None else rearrange(x, "(b f) c h w -> b f c h w", f=frames)
