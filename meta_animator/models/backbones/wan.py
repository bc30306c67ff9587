"""The Wan 2.1 family: a causal video VAE, a UMT5 text encoder, a transformer over all of a clip, and VACE's control branch."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from einops import rearrange
from torch import Tensor, nn

from meta_animator.diffusion.process import Flow
from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint
from meta_animator.json_files import read_json
from meta_animator.models.backbones import wan_vae
from meta_animator.models.backbones.frames import TEMPORAL, latent_frames
from meta_animator.models.backbones.parts import download, load_part
from meta_animator.models.backbones.wan_loras import fold_loras
from meta_animator.models.backbones.wan_text import MOST_TOKENS, WanText
from meta_animator.models.identifiers import built_in_identifiers, rare_words
from meta_animator.models.lora import LoRABank, shared_state
from meta_animator.models.lora_tree import LoRATree
from meta_animator.models.padding import PaddingOnce
from meta_animator.models.person import without_person
from meta_animator.models.precision import HALF, autocast, halve, own_precision
from meta_animator.models.vace import PRECISE, Branch, VaceControl, VaceOutput, fresh_branch, run_block, vace_layers
from meta_animator.settings import ModelConfig

CHANNELS = 16  # of a latent, in the published models
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}  # by the names of model.text_precision


class Wan(nn.Module):
    """A frozen base model with its control branch: the published VACE's, or a fresh one where the base has none.

    Raises UserError where a part is missing or the base is of another kind than this method takes.
    """

    base_loras: Mapping[str, float] = MappingProxyType({})  # {name and fingerprint: weight} of what was folded into the base
    checkpointing = False
    frames_apart = False
    network_name = "transformer"
    has_time = True

    def __init__(self, config: ModelConfig, transformer: nn.Module, vae: AutoencoderKLWan, text: WanText | None, process: Flow):
        super().__init__()
        self.config, self.vae, self.text, self.process = config, vae, text, process
        layers = getattr(transformer.config, "vace_layers", None) or vace_layers(transformer.config.num_layers)
        self.layers = sorted(layers)
        self.branch = [_take_branch(transformer)]  # in a list: no module of this one until a control network is made of it
        self.transformer = transformer
        self.frames_per_latent = 2 ** sum(vae.config.temperal_downsample)
        self.vae_scale_factor = 2 ** len(vae.config.temperal_downsample)
        self.size_multiple = self.vae_scale_factor * transformer.config.patch_size[1]
        self.latent_channels = vae.config.z_dim
        self.control_channels = control_channels(vae)
        self.text_shape = (text.length if text else MOST_TOKENS, transformer.config.text_dim)
        self.requires_grad_(False)
        self.eval()
        self.motion_bank: LoRABank | None = None
        self.padding = PaddingOnce()
        for block in transformer.blocks:
            block.attn2.set_processor(self.padding)
        self._grey: dict[tuple[int, ...], Tensor] = {}
        self._fingerprint = self._encoder_fingerprint = ""  # once they were needed, or the weights were rounded or released
        self._released: list[nn.Module] = []

    @classmethod
    def load(cls, config: ModelConfig) -> "Wan":
        """The model that `config.base` names: a diffusers folder, or a name on the hub."""
        from diffusers.utils import logging as diffusers
        from transformers.utils import logging as transformers

        for library in (diffusers, transformers):
            library.disable_progress_bar()  # the run's own bars are enough
        folder = Path(config.base) if Path(config.base).exists() else download(config.base)
        vae_folder = Path(config.vae) if config.vae else folder / "vae"
        check_folder(folder, vae_folder)
        text = WanText(folder, Path(config.text_cache) if config.text_cache else None, PRECISIONS[config.text_precision])
        _check_architecture(folder, config.architecture)
        transformer = load_part(_transformer_class(folder), folder / "transformer")
        vae = load_part(AutoencoderKLWan, vae_folder)
        base = cls(config, transformer, vae, text, read_process(folder, config.flow_shift))
        if config.base_loras:
            base.fingerprint()  # names the base without them
            base.base_loras = fold_loras(
                [base.transformer, *filter(None, base.branch)], config.base_loras, config.base, config.control_from
            )  # fmt: skip
        return base

    @staticmethod
    def size_multiple_of(folder: Path) -> int | None:
        """`size_multiple` of the base whose config files are in a folder; None where they are not."""
        files = [folder / part / "config.json" for part in ("vae", "transformer")]
        if not all(file.is_file() for file in files):
            return None
        vae, transformer = map(read_json, files)
        return 2 ** len(vae.get("temperal_downsample", TEMPORAL)) * transformer.get("patch_size", (1, 2, 2))[1]

    @staticmethod
    def brings_control(folder: Path) -> bool | None:
        """Whether the base whose config files are in a folder comes with a control network that was trained with it, VACE's
        branch; None where they are not."""
        file = folder / "transformer" / "config.json"
        return "vace_layers" in read_json(file) if file.is_file() else None

    @staticmethod
    def process_of(config: ModelConfig) -> Flow | None:
        """The noise process of the base whose config files are here; None where they are not."""
        folder = Path(config.architecture or config.base)
        here = (folder / "scheduler" / "scheduler_config.json").is_file()
        return read_process(folder, config.flow_shift) if here else None

    @classmethod
    def without_weights(cls, config: ModelConfig) -> "Wan":
        """The networks of `config.architecture`, or of the base itself, on the meta device: shapes, and no text encoder.

        Raises UserError where a config file is missing."""
        folder = Path(config.architecture or config.base)
        check_folder(folder, folder / "vae")
        kind = _transformer_class(folder)
        with torch.device("meta"):
            transformer = kind.from_config(kind.load_config(folder / "transformer"))
            vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(folder / "vae"))
        return cls(config, transformer, vae, None, read_process(folder, config.flow_shift))

    # pixels and latents

    def latent_frames(self, num_frames: int) -> int:
        return latent_frames(num_frames, self.frames_per_latent)

    def next_clip(self, num_frames: int) -> int:
        return -(-(num_frames - 1) // self.frames_per_latent) * self.frames_per_latent + 1

    def pixel_frames(self, part: slice) -> slice:
        each = self.frames_per_latent
        return slice(max(0, each * (part.start - 1) + 1), each * (part.stop - 1) + 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        self.latent_frames(pixels.shape[1])
        with self._with_encoder():
            posteriors = self._posteriors(pixels)
        drawn = torch.cat([posterior.mode() for posterior in posteriors])
        if noise is not None:
            std = torch.cat([posterior.std for posterior in posteriors])
            drawn = drawn + std * rearrange(noise, "b f c h w -> b c f h w").to(drawn)
        mean, std = self._scales(drawn)
        return rearrange((drawn - mean) / std, "b c f h w -> b f c h w").to(pixels.device)

    def _posteriors(self, pixels: Tensor) -> list[DiagonalGaussianDistribution]:
        """Of each clip, encoded where and as exactly as the encoder is."""
        with autocast(self.vae.encoder.conv_in.weight.device, enabled=False):  # latents are data: not rounded to half precision
            clips = rearrange(pixels, "b f c h w -> b c f h w")
            return [DiagonalGaussianDistribution(wan_vae.encode(self.vae, clip)) for clip in clips.split(1)]

    def encode_condition(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.config.condition_range == "unit":
            pixels = pixels / 2 + 0.5
        return self.encode(pixels, noise if self.config.condition_posterior == "sample" else None)

    def control_input(self, condition_latents: Tensor, references: Tensor | None = None) -> Tensor:
        """(b r+f' 2c+m h w): latents of what is to stay of a frame, here nothing (grey); of what the condition shows; the mask
        of what is to be made (1: all of it, m = places of a latent); of a photo: itself, nothing, and 0. The last photo comes
        first, as in diffusers' pipeline."""
        batch, frames, channels, height, width = condition_latents.shape
        mask = condition_latents.new_ones(batch, frames, self.vae_scale_factor**2, height, width)
        grey = self._grey_latents(frames, height, width, condition_latents.device).to(mask.dtype).expand(batch, -1, -1, -1, -1)
        clip = torch.cat([grey, condition_latents, mask], dim=2)
        if references is None:
            return clip
        photos = references.flip(1).to(condition_latents)
        empty = photos.new_zeros(batch, photos.shape[1], channels + mask.shape[2], height, width)
        return torch.cat([torch.cat([photos, empty], dim=2), clip], dim=1)

    def _grey_latents(self, frames: int, height: int, width: int, device: torch.device) -> Tensor:
        """(1 f' c h w) of a clip of mid-grey"""
        if (frames, height, width) not in self._grey:
            sides = (self.vae_scale_factor * height, self.vae_scale_factor * width)
            grey = torch.zeros(1, (frames - 1) * self.frames_per_latent + 1, 3, *sides)
            with self._encoder_on(device):
                self._grey[frames, height, width] = self.encode(grey).to(device)
        return self._grey[frames, height, width]

    def decode(self, latents: Tensor, part: slice | None = None) -> Tensor:
        scaled = self._unscaled(latents)
        with own_precision(scaled.dtype, latents.device):
            pixels = wan_vae.decode(self.vae, scaled, part, self.checkpointing and scaled.requires_grad)
        return _pixels(pixels)

    def show_in_turn(self, latents: Tensor, frames_at_once: int) -> Iterator[Tensor]:
        parts = wan_vae.decode_in_turn(self.vae, self._unscaled(latents))
        while True:
            with torch.no_grad(), own_precision(self.vae.decoder.conv_in.weight.dtype, latents.device):
                part = next(parts, None)
            if part is None:
                return
            yield _pixels(part)

    def _unscaled(self, latents: Tensor) -> Tensor:
        """As the VAE's decoder takes them: (b c f' h w)"""
        mean, std = self._scales(latents)
        return (rearrange(latents, "b f c h w -> b c f h w") * std + mean).to(self.vae.decoder.conv_in.weight.dtype)

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (1 c 1 1 1) of every channel of the VAE's own latents."""
        config = self.vae.config
        return tuple(
            torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )  # fmt: skip

    # text

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        return self.text(prompts, next(self.transformer.parameters()).device)

    def fits(self, prompt: str) -> bool:
        return self.text.fits(prompt)

    def rare_words(self) -> list[str]:
        return built_in_identifiers(self.text.tokenizer) or rare_words(self.text.tokenizer)

    # networks

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: VaceOutput | None = None) -> Tensor:
        """The velocity of clips (b r+f' c h w). As diffusers' WanVACETransformer3DModel computes it, with the sum of several
        conditions' residuals."""
        net = self.transformer
        if self.motion_bank is not None:  # what shards weights makes others of them
            self.motion_bank.use(self.motion_bank.active)
        dtype = net.patch_embedding.weight.dtype
        x = rearrange(x_t, "b f c h w -> b c f h w").to(dtype)
        rotary = net.rope(x)
        if x.device.type == "cpu":  # a GPU does not mind the padding, and its fused kernels mind the bias
            context = self.padding.shorten(context)
        else:
            self.padding.bias = None
        with own_precision(dtype, x.device):
            tokens = net.patch_embedding(x).flatten(2).transpose(1, 2)
            time, modulation, text, _ = net.condition_embedder(t, context.to(dtype), None)
            modulation = modulation.unflatten(1, (6, -1))
        hints = control_output.hints(tokens, text, modulation, rotary) if control_output else []
        added = dict(zip(self.layers, hints, strict=True)) if hints else {}
        with own_precision(dtype, x.device):
            for layer, block in enumerate(net.blocks):
                tokens = run_block(block, tokens, text, modulation, rotary, checkpointed=self.checkpointing)
                tokens = tokens + added[layer] if layer in added else tokens
            shift, scale = (net.scale_shift_table + time.unsqueeze(1)).chunk(2, dim=1)
            tokens = net.proj_out((net.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens))
        p_t, p_h, p_w = net.config.patch_size
        frames, height, width = (side // patch for side, patch in zip(x.shape[2:], (p_t, p_h, p_w), strict=True))
        prediction = rearrange(
            tokens, "b (f h w) (pf ph pw c) -> b (f pf) c (h ph) (w pw)", f=frames, h=height, w=width, pf=p_t, ph=p_h, pw=p_w
        )  # fmt: skip
        return prediction.float() if dtype in HALF else prediction

    def make_control(self, tasks: list[str], rank: int) -> VaceControl:
        if not self.branch:
            raise ValueError("the base's control branch was given away: one control network can be made of a base")
        branch = self.branch.pop() or fresh_branch(self.transformer, self.layers, self.control_channels)
        for block in branch.vace_blocks:
            block.attn2.set_processor(self.padding)
        return VaceControl(branch, tasks, rank)

    def with_motion(self, max_seq_length: int) -> LoRATree | None:
        """A LoRA on the self-attention of every block: the base has time in it, and needs no more to learn a motion."""
        if not self.config.motion_lora_rank:
            return None
        tree = LoRATree(self.transformer, self.config.motion_lora_rank, lambda name: ".attn1." in name)
        self.motion_bank = tree.bank
        return tree

    def hold_frozen_in(self, dtype: torch.dtype) -> None:
        if dtype != torch.float16:  # whose rounding no name knows of
            self.fingerprint()
        halve(self.transformer, dtype, PRECISE)
        if dtype == torch.bfloat16:
            halve(self.vae.decoder, dtype)
            halve(self.vae.post_quant_conv, dtype)

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointing = True

    @property
    def network(self) -> nn.Module:
        return self.transformer

    @property
    def encoders(self) -> list[nn.Module]:
        return self._released or [self.vae.encoder, self.vae.quant_conv]

    def release(self, text: bool, encoder: bool) -> None:
        """The VAE's encoder stays on the CPU, and is no module any more: grey clips of another length may still have to be
        encoded."""
        if text and self.text:
            self.text.release()
        if encoder and self.vae.encoder is not None:
            self.fingerprint()
            self._encoder_fingerprint = self.encoder_fingerprint()
            parts, without_weights = self.encoders, self.vae.quant_conv.weight.is_meta
            self._released = parts if without_weights else [part.cpu() for part in parts]
            self.vae.encoder = self.vae.quant_conv = None

    @contextlib.contextmanager
    def _with_encoder(self) -> Iterator[None]:
        """Inside, the VAE has its encoder, released or not."""
        here = self.vae.encoder is not None
        if not here:
            self.vae.encoder, self.vae.quant_conv = self._released
        try:
            yield
        finally:
            if not here:
                self.vae.encoder = self.vae.quant_conv = None

    @contextlib.contextmanager
    def _encoder_on(self, device: torch.device) -> Iterator[None]:
        """Inside, an encoder that was released is there for a moment: a whole clip on a CPU takes minutes."""
        parts = [part for part in self._released if next(part.parameters()).device.type != "meta"]
        for part in parts:
            part.to(device)
        try:
            yield
        finally:
            for part in parts:
                part.cpu()

    def fingerprint(self) -> str:
        if not self._fingerprint:
            self._fingerprint = fingerprint(self.named_weights())
        return self._fingerprint

    def named_weights(self) -> dict[str, Tensor]:
        if self.base_loras:  # they are in the weights by now
            return type(self).load(dataclasses.replace(self.config, base_loras={})).named_weights()
        parts = {"transformer": self.transformer, "vae.encoder": self.vae.encoder}
        return {f"{name}.{n}": w for name, part in parts.items() for n, w in without_person(shared_state(part)).items()}

    def encoder_fingerprint(self) -> str:
        if self._encoder_fingerprint:
            return self._encoder_fingerprint
        used = {n: w for n, w in self.vae.state_dict().items() if n.startswith(("encoder.", "quant_conv."))}
        return f"{fingerprint(used)}*{self.vae.config.latents_mean}{self.vae.config.latents_std}"


def _pixels(pixels: Tensor) -> Tensor:
    pixels = rearrange(pixels, "b c f h w -> b f c h w")
    return pixels.float() if pixels.dtype in HALF else pixels


def check_folder(folder: Path, vae_folder: Path) -> None:
    """Raises UserError for a folder that is no Wan model, or one that this method does not take: from its config files."""
    what = f"base model {folder}"
    if not folder.is_dir():
        raise UserError(f"{what}: is a file; expected a Wan model in diffusers format (a folder, or a name on the hub)")
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    second = index.get("transformer_2", [None])
    if (second and second[0]) or (folder / "transformer_2").is_dir() or index.get("boundary_ratio") is not None:
        raise UserError(f"{what}: has two experts (transformer, transformer_2; Wan 2.2); expected one: Wan 2.1, with VACE or T2V")
    shape, vae = read_json(folder / "transformer" / "config.json"), read_json(vae_folder / "config.json")
    if vae.get("patch_size") or vae.get("is_residual") or sum(vae.get("temperal_downsample", TEMPORAL)) != sum(TEMPORAL):
        raise UserError(f"{what}: its VAE is not Wan 2.1's (Wan 2.2?); expected four frames to a latent, and no patches")
    reads, has = shape.get("in_channels", CHANNELS), vae.get("z_dim", CHANNELS)
    if shape.get("image_dim") or shape.get("added_kv_proj_dim") or reads > has:
        raise UserError(
            f"{what}: its transformer reads {reads} channels or a picture (image-to-video?), its VAE has {has}; expected a "
            "text-to-video or a VACE model"
        )
    if reads < has:
        raise UserError(f"{what}: its transformer reads {reads} channels, its VAE has {has}")
    wanted = 2 * has + 4 ** len(vae.get("temperal_downsample", TEMPORAL))
    if (found := shape.get("vace_in_channels", wanted)) != wanted:
        raise UserError(f"{what}: its control branch reads {found} channels; expected {wanted}")


def _check_architecture(folder: Path, architecture: str) -> None:
    """Raises UserError where the config files that a run was planned by are another model's."""
    if not architecture:
        return
    planned, found = (read_json(place / "transformer" / "config.json") for place in (Path(architecture), folder))
    for key in ("num_layers", "num_attention_heads", "ffn_dim", "vace_layers"):
        if planned.get(key) != found.get(key):
            raise UserError(
                f"base model {folder}: its transformer has {key} {found.get(key)}, model.architecture={architecture} has "
                f"{planned.get(key)}; name the architecture of this base, or leave model.architecture empty"
            )


def control_channels(vae: AutoencoderKLWan) -> int:
    """Of a control input: two latents, and a mask's pixels under a latent."""
    return 2 * vae.config.z_dim + 4 ** len(vae.config.temperal_downsample)


def read_process(folder: Path, shift: float = 0.0) -> Flow:
    """The flow of a diffusers folder, or with another shift of the sampling steps than its own."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    steps = config.get("num_train_timesteps", 1000)
    own = config.get("flow_shift", config.get("shift", 1.0))
    flow = config.get("use_flow_sigmas") or config.get("_class_name") == "FlowMatchEulerDiscreteScheduler"
    if not flow or not isinstance(steps, int) or not isinstance(own, int | float) or own <= 0:
        raise UserError(f"{file}: is no flow with num_train_timesteps and a shift above 0; expected Wan's scheduler")
    return Flow(num_train_timesteps=steps, shift=shift or float(own), first_sigma=1 / steps)


def _transformer_class(folder: Path) -> Any:
    config = read_json(folder / "transformer" / "config.json")
    return WanVACETransformer3DModel if "vace_layers" in config else WanTransformer3DModel


def _take_branch(transformer: nn.Module) -> Branch | None:
    """The control branch of a VACE transformer, which is then without."""
    if not hasattr(transformer, "vace_blocks"):
        return None
    branch = Branch(transformer.vace_patch_embedding, transformer.vace_blocks)
    del transformer.vace_patch_embedding, transformer.vace_blocks
    return branch
