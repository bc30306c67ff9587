"""The small embedded Wan while it is trained: its VAE with the scale of its latents, its transformer and its text encoder.

Shapes: pixels `b f 3 H W` in [-1, 1]; latents `b f' c h w`, normalised per channel, f' = 1 + (f - 1) / 4.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from einops import rearrange
from torch import Tensor, nn
from transformers import AutoTokenizer, T5Tokenizer, UMT5EncoderModel

from meta_animator.diffusion.process import Flow
from meta_animator.fingerprints import fingerprint
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.padding import PaddingOnce
from meta_animator.puppets.base.wan_autoencoder import with_images_as_images
from meta_animator.puppets.base.wan_text import text_encoder_for, text_states, wan_tokenizer
from meta_animator.settings import ModelConfig

ENCODER = ("encoder.", "quant_conv.")  # of the VAE, what latents depend on


class GrowingWan(nn.Module):
    """A Wan with a control branch. It has what filling a cache of latents asks of a backbone."""

    frames_apart = False
    process = Flow()

    def __init__(
        self, vae: AutoencoderKLWan, transformer: WanVACETransformer3DModel, text_encoder: UMT5EncoderModel,
        tokenizer: T5Tokenizer,
    ):  # fmt: skip
        super().__init__()
        self.vae = with_images_as_images(vae).eval().requires_grad_(False)
        self.transformer, self.text_encoder, self.tokenizer = transformer, text_encoder, tokenizer
        self.encoder = fingerprint({name: p for name, p in vae.named_parameters() if name.startswith(ENCODER)})
        self.padding = PaddingOnce()
        for block in [*transformer.blocks, *transformer.vace_blocks]:
            block.attn2.set_processor(self.padding)

    @torch.no_grad()
    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        mode = self.vae.encode(rearrange(pixels.to(self.vae.device), "b f c h w -> b c f h w")).latent_dist.mode()
        return rearrange((mode - self._statistic("mean")) / self._statistic("std"), "b c f h w -> b f c h w")

    encode_condition = encode

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        latents = rearrange(latents, "b f c h w -> b c f h w") * self._statistic("std") + self._statistic("mean")
        return rearrange(self.vae.decode(latents).sample, "b c f h w -> b f c h w")

    def _statistic(self, name: str) -> Tensor:
        values = torch.tensor(getattr(self.vae.config, f"latents_{name}"), device=self.vae.device)
        return values.view(1, -1, 1, 1, 1)

    def encoder_fingerprint(self) -> str:
        return f"{self.encoder} {self.vae.config.latents_mean} {self.vae.config.latents_std}"

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        return text_states(self.tokenizer, self.text_encoder, prompts)

    def context_of(self, condition: Tensor, grey: Tensor, photo: Tensor | None = None) -> Tensor:
        """The branch's input (b f' 96 h w) for frames that are all to be made: latents of grey, of the condition, ones; of a
        reference `photo` (b 1 c h w) before them: itself, zeros, zeros."""
        factor = 2 ** len(self.vae.config.temperal_downsample)
        mask = condition.new_ones(1, 1, factor**2, 1, 1).expand(*condition.shape[:2], -1, *condition.shape[3:])
        clip = torch.cat([grey.expand_as(condition), condition, mask], dim=2)
        if photo is None:
            return clip
        return torch.cat([torch.cat([photo, 0 * photo, 0 * mask[:, :1]], dim=2), clip], dim=1)

    def predict(self, x_t: Tensor, t: Tensor, text: Tensor, context: Tensor, strength: float = 1.0) -> Tensor:
        """The velocity, shaped like x_t; text: of `text_states`; context: of `context_of`; strength 0: of the base alone."""
        text = self.padding.shorten(text)
        x_t, context = (rearrange(x, "b f c h w -> b c f h w") for x in (x_t, context))
        scale = x_t.new_full((len(self.transformer.config.vace_layers),), strength)
        velocity = self.transformer(
            hidden_states=x_t, timestep=t, encoder_hidden_states=text, control_hidden_states=context,
            control_hidden_states_scale=scale, return_dict=False,
        )[0]  # fmt: skip
        return rearrange(velocity, "b c f h w -> b f c h w")


@dataclasses.dataclass
class CacheSource:
    """What filling a cache of latents asks of a run's networks."""

    config: ModelConfig
    backbone: GrowingWan


def growing_wan(model: ModelConfig, descriptions: Sequence[str]) -> GrowingWan:
    """The trained VAE of `model.base` with a transformer and a text encoder that are fresh, or those of `model.base_from`."""
    folder, start = Path(model.architecture), Path(model.base_from)
    tokenizer = wan_tokenizer_of(model, descriptions)
    if model.base_from:
        transformer = load_part(WanVACETransformer3DModel, start / "transformer")
        text = load_part(UMT5EncoderModel, start / "text_encoder")
    else:
        transformer = WanVACETransformer3DModel.from_config(WanVACETransformer3DModel.load_config(folder / "transformer"))
        for block in transformer.vace_blocks:  # the branch adds nothing yet
            nn.init.zeros_(block.proj_out.weight)
            nn.init.zeros_(block.proj_out.bias)
        text = text_encoder_for(folder, tokenizer)
    return GrowingWan(load_part(AutoencoderKLWan, Path(model.base) / "vae"), transformer, text, tokenizer)


def wan_tokenizer_of(model: ModelConfig, descriptions: Sequence[str]) -> T5Tokenizer:
    """The tokenizer of the base that training goes on from, or, where that is empty, one for the words of the train set."""
    if model.base_from:
        return AutoTokenizer.from_pretrained(Path(model.base_from) / "tokenizer")
    return wan_tokenizer(descriptions)
