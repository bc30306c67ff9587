"""A decoder for pictures that are only looked at: diffusers' AutoencoderTiny (TAESD, https://github.com/madebyollin/taesd)."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from einops import rearrange
from torch import Tensor

from meta_animator.errors import UserError
from meta_animator.models.backbones.parts import load_part, may_be_on_hub, quiet
from meta_animator.models.precision import own_precision

WHAT = "model.tiny_vae"
WONDERS = "diffusers.configuration_utils"  # at a setting that AutoencoderTiny itself writes


def load_tiny_vae(source: str, latent_channels: int, vae_scale_factor: int) -> AutoencoderTiny:
    """The decoder of the one in a folder, or of that name on the hub; its encoder is not kept.

    Raises UserError where there is none, or it is for other latents than the base's: `latent_channels` numbers for
    `vae_scale_factor` x `vae_scale_factor` pixels.
    """
    folder = Path(source)
    with quiet(WONDERS):
        tiny = load_part(AutoencoderTiny, folder if folder.is_dir() else _download(source), WHAT)
    check_fits(tiny, f"{WHAT} {source}", latent_channels, vae_scale_factor)
    tiny.encoder = None
    return tiny.requires_grad_(False)


def tiny_vae_without_weights(source: str, latent_channels: int, vae_scale_factor: int) -> AutoencoderTiny:
    """The same on the meta device; of one whose config file is not here, TAESD's shape with these latents."""
    with torch.device("meta"):
        if (Path(source) / "config.json").is_file():
            with quiet(WONDERS):
                tiny = AutoencoderTiny.from_config(AutoencoderTiny.load_config(source))
            check_fits(tiny, f"{WHAT} {source}", latent_channels, vae_scale_factor)
        else:
            doublings = vae_scale_factor.bit_length() - 1
            tiny = AutoencoderTiny(
                latent_channels=latent_channels, decoder_block_out_channels=(64,) * (doublings + 1),
                num_decoder_blocks=(3,) * doublings + (1,),
            )  # fmt: skip
    tiny.encoder = None
    return tiny.requires_grad_(False).eval()


def check_fits(tiny: AutoencoderTiny, what: str, latent_channels: int, vae_scale_factor: int) -> None:
    """Raises UserError for one that is for other latents."""
    channels, factor = tiny.config.latent_channels, scale_factor(tiny)
    if (channels, factor) != (latent_channels, vae_scale_factor):
        raise UserError(
            f"{what}: reads latents of {channels} channels for {factor} x {factor} pixels; the base's have "
            f"{latent_channels} for {vae_scale_factor} x {vae_scale_factor}"
        )


def scale_factor(tiny: AutoencoderTiny) -> int:
    """Pixels per latent, along height and width."""
    return tiny.config.upsampling_scaling_factor ** (len(tiny.config.decoder_block_out_channels) - 1)


def decode_tiny(tiny: AutoencoderTiny, latents: Tensor, at_once: int) -> Tensor:
    """Pixels (b f 3 H W), float32, not clipped, of latents (b f c h w) that are scaled as the UNet's are; so many of the b f
    images `at_once`."""
    flat = rearrange(latents, "b f c h w -> (b f) c h w").to(tiny.dtype) / tiny.config.scaling_factor
    with own_precision(tiny.dtype, flat.device):
        pixels = torch.cat([tiny.decode(part).sample for part in flat.split(at_once)])
    return rearrange(pixels, "(b f) c h w -> b f c h w", b=len(latents)).float()


def check_name(source: str) -> None:
    """Raises UserError for what is neither a folder nor could be a name on the hub."""
    if not Path(source).is_dir() and not may_be_on_hub(source):
        raise UserError(f"{WHAT} {source}: no such folder here; expected one, or a name on the hub (madebyollin/taesd)")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    check_name(name)
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{WHAT} {name}: no such folder here, and not to be had from the hub ({reason})") from error
