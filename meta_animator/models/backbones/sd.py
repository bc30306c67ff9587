"""The SD1.5 family: KL-VAE, CLIP text encoder, UNet2DConditionModel."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, MotionAdapter, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from einops import rearrange
from torch import Tensor, nn

from meta_animator.diffusion.process import DDPM
from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint
from meta_animator.json_files import read_json
from meta_animator.models.backbones.decoder import decode_checkpointed
from meta_animator.models.backbones.parts import download, load_part, may_be_on_hub
from meta_animator.models.backbones.sd_loras import fold_loras
from meta_animator.models.backbones.single_file import load_single_file, load_vae
from meta_animator.models.backbones.tiny_vae import decode_tiny, load_tiny_vae, tiny_vae_without_weights
from meta_animator.models.control import ControlOutput, MetaControlNet
from meta_animator.models.identifiers import built_in_identifiers, rare_words
from meta_animator.models.motion import TemporalLayers, join_motion, new_motion_adapter
from meta_animator.models.person import without_person
from meta_animator.models.precision import HALF, autocast, halve, own_precision
from meta_animator.settings import ModelConfig

PIXELS_AT_ONCE = 2**19  # in the VAE
SD1_TOKENIZER = "openai/clip-vit-large-patch14"  # Stable Diffusion 1.x's, on the hub


class StableDiffusion(nn.Module):
    """A frozen base model. Raises UserError where the folder lacks a part."""

    checkpointing = False
    frames_apart = True
    network_name = "unet"
    base_loras: Mapping[str, float] = MappingProxyType({})  # {name and fingerprint: weight} of what was folded into the base

    def __init__(self, config: ModelConfig, unet: UNet2DConditionModel, vae, text_encoder, tokenizer, scheduler: Mapping):
        super().__init__()
        if tokenizer is not None:
            check_parts(config, unet, vae, text_encoder, tokenizer)
        self.config, self.tokenizer = config, tokenizer
        self.scheduler, self.process = dict(scheduler), make_process(scheduler)
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.temporal: TemporalLayers | None = None
        self.tiny_vae: AutoencoderTiny | None = None
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.size_multiple = self.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1)
        self.latent_channels = self.control_channels = vae.config.latent_channels
        self.text_shape = (text_encoder.config.max_position_embeddings, unet.config.cross_attention_dim)
        self.requires_grad_(False)
        self.eval()
        self._fingerprint = self._encoder_fingerprint = ""  # once they were needed, or the weights are gone

    @classmethod
    def load(cls, config: ModelConfig) -> "StableDiffusion":
        """The model that `config.base` names: a diffusers folder, a file in the original layout, or a name on the hub."""
        from transformers.utils import logging

        logging.disable_progress_bar()  # the run's own bars are enough
        path = Path(config.base)
        if path.is_file():
            base = cls._from_file(config, path)
        else:
            base = cls._from_folder(config, path if path.is_dir() else download(config.base))
        if config.base_loras:
            base.fingerprint()  # names the base without them
            base.base_loras = fold_loras(base.unet, base.text_encoder, config.base_loras, config.base)
        if config.tiny_vae:
            base.tiny_vae = load_tiny_vae(config.tiny_vae, base.latent_channels, base.vae_scale_factor)
        return base

    @staticmethod
    def size_multiple_of(folder: Path) -> int | None:
        """`size_multiple` of the base whose config files are in a folder; None where they are not."""
        files = [folder / part / "config.json" for part in ("vae", "unet")]
        if not all(file.is_file() for file in files):
            return None
        return 2 ** sum(len(read_json(file).get("block_out_channels", [None])) - 1 for file in files)

    @staticmethod
    def brings_control(folder: Path) -> bool | None:
        """Whether the base in a folder comes with a control network that was trained with it: none does."""
        return False

    @staticmethod
    def process_of(config: ModelConfig) -> DDPM | None:
        """The noise process of the base whose config files are here; None where they are not."""
        folder = Path(config.architecture or config.base)
        return read_process(folder) if (folder / "scheduler" / "scheduler_config.json").is_file() else None

    @classmethod
    def without_weights(cls, config: ModelConfig) -> "StableDiffusion":
        """The networks of `config.architecture`, or of the base itself, on the meta device: shapes, and no tokenizer.

        Raises UserError where a config file is missing."""
        from transformers import CLIPTextConfig, CLIPTextModel

        folder = Path(config.architecture or config.base)
        for part in ("unet", "vae", "text_encoder"):
            read_json(folder / part / "config.json")
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
            vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
            text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
        base = cls(config, unet, vae, text_encoder, None, read_scheduler(folder, config.beta_schedule))
        if config.tiny_vae:
            base.tiny_vae = tiny_vae_without_weights(config.tiny_vae, base.latent_channels, base.vae_scale_factor)
        return base

    @classmethod
    def _from_folder(cls, config: ModelConfig, folder: Path) -> "StableDiffusion":
        from transformers import CLIPTextModel

        own_vae, own_tokenizer = not config.vae, not config.tokenizer
        for part in ("unet", *(["vae"] * own_vae), "text_encoder", *(["tokenizer"] * own_tokenizer), "scheduler"):
            if not (folder / part).is_dir():
                raise UserError(f"base model {folder}: no folder '{part}'; expected a model in diffusers format")
        parts = {}
        for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
            own = part != "vae" or own_vae
            parts[part] = load_part(kind, folder / part) if own else load_vae(config.vae, folder)
        tokenizer = load_tokenizer(config.tokenizer or str(folder / "tokenizer"))
        return cls(config, **parts, tokenizer=tokenizer, scheduler=read_scheduler(folder, config.beta_schedule))

    @classmethod
    def _from_file(cls, config: ModelConfig, path: Path) -> "StableDiffusion":
        if not config.architecture:
            raise UserError(
                f"base model {path}: a single file does not say what it is; set model.architecture=configs/sd15/architecture"
            )
        folder = Path(config.architecture)
        for part in ("unet", "vae", "text_encoder"):
            read_json(folder / part / "config.json")
        unet, vae, text_encoder = load_single_file(path, folder, config.vae)
        scheduler = read_scheduler(folder, config.beta_schedule)
        return cls(config, unet, vae, text_encoder, load_tokenizer(config.tokenizer or SD1_TOKENIZER), scheduler)

    # pixels and latents

    def encode_condition(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.config.condition_range == "unit":
            pixels = pixels / 2 + 0.5
        return self.encode(pixels, noise if self.config.condition_posterior == "sample" else None)

    @torch.no_grad()
    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        flat, frames = _fold(pixels)
        weight = self.vae.encoder.conv_in.weight
        parts = flat.split(images_at_once(*flat.shape[-2:]))
        with autocast(weight.device, enabled=False):  # latents are data: not rounded to half precision
            moments = [self.vae.encode(part.to(weight)).latent_dist.parameters for part in parts]
        posterior = DiagonalGaussianDistribution(torch.cat(moments))
        latents = posterior.mode() if noise is None else posterior.mean + posterior.std * _fold(noise)[0].to(weight.device)
        return _unfold(latents * self.vae.config.scaling_factor, frames).to(pixels.device)

    def control_input(self, condition_latents: Tensor, references: Tensor | None = None) -> Tensor:
        if references is not None:
            raise UserError("sample.references: this base has no place for reference photos beside the pose; set it to 0")
        return condition_latents

    def decode(self, latents: Tensor, part: slice | None = None) -> Tensor:
        flat, frames = _fold(latents if part is None else latents[:, part])
        dtype = self.vae.decoder.conv_in.weight.dtype
        flat = flat.to(dtype) / self.vae.config.scaling_factor
        with own_precision(dtype, flat.device):
            if torch.is_grad_enabled():
                checkpointed = self.checkpointing and flat.requires_grad
                pixels = decode_checkpointed(self.vae, flat) if checkpointed else self.vae.decode(flat).sample
            else:
                parts = flat.split(self._at_once(flat))
                pixels = torch.cat([self.vae.decode(part).sample for part in parts])
        return _unfold(pixels.float() if dtype in HALF else pixels, frames)

    def _at_once(self, latents: Tensor) -> int:
        """How many are decoded at once where nothing is learned from them."""
        return images_at_once(*(self.vae_scale_factor * side for side in latents.shape[-2:]))

    def show_in_turn(self, latents: Tensor, frames_at_once: int) -> Iterator[Tensor]:
        for part in latents.split(frames_at_once, dim=1):
            with torch.no_grad():
                yield self.decode(part) if self.tiny_vae is None else decode_tiny(self.tiny_vae, part, self._at_once(part))

    # text

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        return self.text_states(prompts)

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """The same (b n d) with a gradient, for training the text encoder."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )  # fmt: skip
        with autocast(self.text_encoder.device, enabled=False):
            return self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state

    def fits(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt, verbose=False).input_ids) <= self.tokenizer.model_max_length

    def rare_words(self) -> list[str]:
        """Reserved tokens of the tokenizer ("<id007>"), or its rare four-letter words."""
        return built_in_identifiers(self.tokenizer) or rare_words(self.tokenizer)

    # networks

    @property
    def has_time(self) -> bool:
        return self.temporal is not None

    def latent_frames(self, num_frames: int) -> int:
        return num_frames

    def next_clip(self, num_frames: int) -> int:
        return num_frames

    def pixel_frames(self, part: slice) -> slice:
        return part

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: ControlOutput | None = None) -> Tensor:
        return predict_clip(self.unet, self.temporal, x_t, t, context, control_output)

    def make_control(self, tasks: list[str], rank: int) -> MetaControlNet:
        return MetaControlNet.from_unet(self.unet, tasks, rank)

    def with_motion(self, max_seq_length: int) -> MotionAdapter:
        adapter = new_motion_adapter(self.unet, max_seq_length, self.config.motion_mid_block)
        self.temporal = join_motion(self.unet, adapter)
        return adapter

    def hold_frozen_in(self, dtype: torch.dtype) -> None:
        if dtype != torch.float16:  # whose rounding no name knows of
            self.fingerprint()
        halve(self.unet, dtype)
        if self.tiny_vae is not None:
            halve(self.tiny_vae, dtype)
        if dtype == torch.bfloat16:
            halve(self.vae.decoder, dtype)
            if self.vae.post_quant_conv is not None:
                halve(self.vae.post_quant_conv, dtype)

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointing = True
        (self.temporal or self.unet).enable_gradient_checkpointing()

    @property
    def network(self) -> UNet2DConditionModel:
        return self.unet

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.text_encoder, self.vae.encoder]

    def release(self, text: bool, encoder: bool) -> None:
        self.fingerprint()
        if text:
            self.text_encoder = None
        if encoder:
            self._encoder_fingerprint = self.encoder_fingerprint()
            self.vae.encoder = self.vae.quant_conv = None

    def fingerprint(self) -> str:
        if not self._fingerprint:
            self._fingerprint = fingerprint(self.named_weights())
        return self._fingerprint

    def named_weights(self) -> dict[str, Tensor]:
        if self.base_loras:  # they are in the weights by now
            return type(self).load(dataclasses.replace(self.config, base_loras={})).named_weights()
        parts = {"unet": self.unet, "vae.encoder": self.vae.encoder, "text_encoder": self.text_encoder}
        return {f"{name}.{n}": w for name, part in parts.items() for n, w in without_person(part.state_dict()).items()}

    def encoder_fingerprint(self) -> str:
        if self._encoder_fingerprint:
            return self._encoder_fingerprint
        used = {name: w for name, w in self.vae.state_dict().items() if name.startswith(("encoder.", "quant_conv."))}
        return f"{fingerprint(used)}*{self.vae.config.scaling_factor}"


def images_at_once(height: int, width: int) -> int:
    """How many images a VAE takes at once where nothing is learned from them: more need memory and are no faster."""
    return max(1, PIXELS_AT_ONCE // (height * width))


def predict_clip(
    unet: UNet2DConditionModel, temporal: TemporalLayers | None, x_t: Tensor, t: Tensor, context: Tensor,
    control_output: ControlOutput | None,
) -> Tensor:  # fmt: skip
    """The prediction for clips (b f c h w), or images (b c h w), of a UNet, with what `temporal` adds between a clip's frames;
    without it, and in a clip of one frame, each frame is an image by itself. Float32 where the UNet's weights are in half
    precision. t (b,), context (b n d)"""
    flat, frames = _fold(x_t)
    count = frames or 1
    if count > 1:
        t, context = t.repeat_interleave(count, 0), context.repeat_interleave(count, 0)
    network = unet if temporal is None or count == 1 else functools.partial(temporal.run, count)
    return _unfold(_predict(network, unet.dtype, flat, t, context, control_output), frames)


def _predict(
    network: Callable, dtype: torch.dtype, x_t: Tensor, t: Tensor, context: Tensor, control_output: ControlOutput | None
) -> Tensor:
    if dtype in HALF:
        x_t, context = x_t.to(dtype), context.to(dtype)
        control_output = None if control_output is None else control_output.to(dtype)
        with own_precision(dtype, x_t.device):
            return _call(network, x_t, t, context, control_output).float()
    return _call(network, x_t, t, context, control_output)


def _call(network: Callable, x_t: Tensor, t: Tensor, context: Tensor, control_output: ControlOutput | None) -> Tensor:
    down, mid = (None, None) if control_output is None else control_output
    return network(
        x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
    )[0]


def check_parts(config: ModelConfig, unet: UNet2DConditionModel, vae, text_encoder, tokenizer) -> None:
    """Raises UserError for parts that do not fit each other or this method, and says where a tokenizer seems to be another's."""
    base, text = f"base model {config.base}", text_encoder.config
    latent, width = vae.config.latent_channels, unet.config.cross_attention_dim
    if unet.config.in_channels != latent:
        raise UserError(f"{base}: its UNet reads {unet.config.in_channels} channels (inpainting?), its VAE has {latent}")
    if width != text.hidden_size:
        raise UserError(f"{base}: its UNet listens to {width} numbers per token, its text encoder gives {text.hidden_size}")
    if unet.config.addition_embed_type or unet.config.class_embed_type:
        raise UserError(f"{base}: its UNet wants more than text (SDXL?); expected the family of Stable Diffusion 1 and 2")
    tokens = len(tokenizer)
    if tokens > text.vocab_size or tokenizer.model_max_length > text.max_position_embeddings:
        raise UserError(
            f"{base}: its tokenizer makes {tokens} tokens, {tokenizer.model_max_length} in a prompt; its text encoder knows "
            f"{text.vocab_size}, {text.max_position_embeddings} in a prompt; set model.tokenizer"
        )
    if tokens < text.vocab_size:
        print(f"note: {config.base}: its tokenizer makes {tokens} tokens, its text encoder knows {text.vocab_size}: no pair?")


def load_tokenizer(source: str):
    """A CLIP tokenizer from a folder, or by its name on the hub. Raises UserError where it is in neither place, or knows no
    words (what transformers makes of a folder or a name without a vocabulary)."""
    from transformers import CLIPTokenizer

    if not Path(source).is_dir() and not may_be_on_hub(source):
        raise UserError(f"tokenizer '{source}': no such folder here; expected one, or a name on the hub; set model.tokenizer")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"tokenizer '{source}': neither a folder nor to be had from the hub ({reason}); set model.tokenizer"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"tokenizer '{source}': holds no vocabulary, or is not to be had from the hub; set model.tokenizer")
    return tokenizer


def read_process(folder: Path) -> DDPM:
    """The noise process of a diffusers folder."""
    return make_process(read_scheduler(folder))


def read_scheduler(folder: Path, beta_schedule: str = "") -> dict[str, Any]:
    """What a diffusers folder says of its noise process, under the names of diffusers' schedulers, or the same with another
    `beta_schedule`. Sampling is ours, whichever scheduler the folder names."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    if config.get("trained_betas") is not None:
        raise UserError(f"{file}: has a noise schedule of its own (trained_betas); expected one by name: linear, scaled_linear")
    known = {name: default if config.get(name) is None else config[name] for name, default in SCHEDULER.items()}
    known["beta_schedule"] = beta_schedule or known["beta_schedule"]
    try:
        make_process(known).sampling_timesteps(2)
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: {error}") from error
    return known


SCHEDULER = {  # with the values that SD1.5's scheduler has where its config is silent
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "set_alpha_to_one": False, "rescale_betas_zero_snr": False,
    "timestep_spacing": "leading", "steps_offset": 1,
}  # fmt: skip


def make_process(scheduler: Mapping[str, Any]) -> DDPM:
    settings = dict(scheduler)
    return DDPM.from_betas(settings.pop("beta_schedule"), **settings)


def _fold(x: Tensor) -> tuple[Tensor, int | None]:
    return (rearrange(x, "b f c h w -> (b f) c h w"), x.shape[1]) if x.ndim == 5 else (x, None)


def _unfold(x: Tensor, frames: int | None) -> Tensor:
    return x if frames is None else rearrange(x, "(b f) c h w -> b f c h w", f=frames)
