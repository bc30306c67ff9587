"""A whole Stable Diffusion 1.x model in one file in the original layout: `v1-5-pruned`, RealisticVision and their kind."""

import re
from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.backbones.ldm import TEXT, UNET, VAE, to_shapes, unet_names, vae_names
from meta_animator.models.backbones.parts import load_part
from meta_animator.torch_files import read_state
from meta_animator.weights import check_names, copy_strict

SCHEDULE = {  # tables that the original code keeps beside the weights
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "logvar", "scale_factor",
}  # fmt: skip
POSITIONS = "embeddings.position_ids"  # as those tables, in nearly every file
UNUSED = re.compile(  # averages, the VAE's critic, a control model, what CLIP compares with, a merging tool's leavings
    r"model_ema\..+|first_stage_model\.(loss|model_ema)\..+|control_model\..+|denoiser\..+"
    r"|cond_stage_model\.(transformer\.)?(text_model\.)?(logit_scale|(text|visual)_projection(\.weight)?)"
)


def load_single_file(path: Path, architecture: Path, vae: str = "") -> tuple[UNet2DConditionModel, AutoencoderKL, nn.Module]:
    """(UNet, VAE, CLIP text encoder), in float32. What such files hold besides is left aside with a note, such as the averaged
    weights of a training checkpoint (`model_ema.`).

    architecture   folder with the parts' config files
    vae            instead of the file's own: a diffusers folder, or a file with a VAE
    Raises UserError where a weight is missing or unknown.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    state, what = _without_unused(read_state(path), path), f"base model {path}"
    if any(name.startswith("cond_stage_model.model.") for name in state):
        raise UserError(f"{what}: its text encoder is OpenCLIP's (Stable Diffusion 2); give the model as a diffusers folder")
    parts = {prefix: _below(state, prefix) for prefix in (UNET, VAE, TEXT)}
    used = {prefix + name for prefix, part in parts.items() for name in part}
    if strange := [name for name in state if name not in used]:
        raise UserError(f"{what}: {len(strange)} weights are unknown, the first is {sorted(strange)[0]}")
    if not parts[UNET]:
        raise UserError(f"{what}: no weight is named {UNET}...; expected a Stable Diffusion 1.x file in the original layout")
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(architecture / "unet"))
    _fill(unet, parts[UNET], unet_names(unet.state_dict(), unet.config.layers_per_block), f"{what}, {UNET}")
    text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(architecture / "text_encoder"))
    own = dict(text_encoder.named_parameters())
    theirs = {_clip_name(name): tensor for name, tensor in parts[TEXT].items()}
    _fill_own({_clip_name(name): p for name, p in own.items()}, theirs, f"{what}, {TEXT}")
    return unet, _vae(parts[VAE], architecture, vae, what), text_encoder


def _without_unused(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights of a file without those that are known to be of no use here; a note names the less usual ones."""
    unused = sorted(name for name in state if UNUSED.fullmatch(name))
    if unused:
        more = f" and {len(unused) - 2} more" if len(unused) > 2 else ""
        print(f"note: {path}: left aside, of no use here: {', '.join(unused[:2])}{more}")
    dropped = {*unused, *SCHEDULE}
    return {n: w for n, w in state.items() if n not in dropped and not n.endswith(POSITIONS)}


def load_vae(source: str, architecture: Path) -> AutoencoderKL:
    """A VAE of its own: a diffusers folder, or a file in the original or in diffusers' layout."""
    path = Path(source)
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        return load_part(AutoencoderKL, folder, "model.vae")
    state = read_state(path)
    return _vae(_below(state, VAE) or state, architecture, "", f"model.vae {path}")


def _vae(state: Mapping[str, Tensor], architecture: Path, other: str, what: str) -> AutoencoderKL:
    if other:
        return load_vae(other, architecture)
    state = {n: t for n, t in state.items() if not n.startswith(("loss.", "model_ema."))}
    if not state:
        raise UserError(f"{what}: holds no VAE; name one: model.vae=FILE or FOLDER")
    read_json(architecture / "vae" / "config.json")  # says in one line where it is missing
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(architecture / "vae"))
    own = vae.state_dict()
    _fill(vae, state, {n: n for n in own} if own.keys() == state.keys() else vae_names(own), what)
    return vae


def _fill(network: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str], what: str) -> None:
    _fill_own({names[name]: tensor for name, tensor in network.state_dict(keep_vars=True).items()}, state, what)


def _fill_own(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    check_names(own, state, what)
    copy_strict(own, to_shapes(state, own), what)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _clip_name(name: str) -> str:
    """Files and versions of transformers differ in whether names start with `text_model.`."""
    return name.removeprefix("text_model.")
