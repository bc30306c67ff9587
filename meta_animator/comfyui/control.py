"""The Meta ControlNet as ComfyUI's own CONTROL_NET: its network, its loading of parts, its Apply nodes.

It is a comfy.controlnet.ControlNet and no other class, so that ComfyUI's Apply ControlNet (with a VAE) and Advanced-ControlNet
take it as they take every other. Only the network inside reads a latent where another reads a picture. What
`apply` makes of it also knows context windows: those of AnimateDiff-Evolved and ComfyUI's own.

Shapes: pictures (n h w 3) in [0, 1], ComfyUI's IMAGE; latents (n 4 h/8 w/8); frames are the batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.cldm.cldm
import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.ops
import torch
from comfy.controlnet import ControlNet
from torch import Tensor

from meta_animator.comfyui.folders import Control
from meta_animator.errors import UserError
from meta_animator.models.backbones.ldm import unet_names
from meta_animator.weights import check_names

GROUPS = 32  # of every normalisation in ComfyUI's networks
HEADS = {768: {"num_heads": 8}, 1024: {"num_heads": -1, "num_head_channels": 64}}  # Stable Diffusion 1.x and 2.x, by text width


class NoHint(torch.nn.Module):
    """In the place of the block that reads a picture: adds nothing."""

    def forward(self, hint: Tensor, emb: Tensor, context: Tensor) -> float:
        return 0.0


class MetaNetwork(comfy.cldm.cldm.ControlNet):
    """ComfyUI's ControlNet network without hint block: the condition's latent enters where the noisy one does in others."""

    def __init__(self, **config: Any):
        super().__init__(**config)
        self.input_hint_block = NoHint()

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None, **more: Any) -> dict:
        return super().forward(hint.to(x.dtype), hint, timesteps, context, y, **more)


class WindowedControl(ControlNet):
    """A control whose hint is the latents of a whole clip, of which each call takes those of its frames."""

    sub_idxs: Sequence[int] | None = None  # AnimateDiff-Evolved asks for this name; what counts is what a call says

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict, batched_number: int, transformer_options: dict) -> Any:
        frames = x_noisy.shape[0] // batched_number
        hint = shown(self.cond_hint_original, window_of(transformer_options), frames)
        if hint.shape[-2:] != x_noisy.shape[-2:]:
            (h, w), (rows, columns) = (tuple(8 * side for side in one.shape[-2:]) for one in (hint, x_noisy))
            raise UserError(f"Meta ControlNet: pictures of {w} x {h} pixels, a clip of {columns} x {rows}; draw at its size")
        dtype = self.manual_cast_dtype or self.control_model.dtype
        self.cond_hint = hint.to(device=x_noisy.device, dtype=dtype).repeat(batched_number, 1, 1, 1)
        return super().get_control(x_noisy, t, cond, batched_number, transformer_options)

    def copy(self) -> "WindowedControl":
        return windowed(self)


def make_control(control: Control, what: str) -> ControlNet:
    """ComfyUI's control of a control network. Raises UserError where its base is none that ComfyUI has."""
    heads = check_base(control, what)
    names = unet_names(control.weights, 2 if control.config is None else control.config["layers_per_block"])
    state = {names[n]: weight for n, weight in control.weights.items()}
    config = comfy.model_detection.detect_unet_config(state, "") | heads | {"hint_channels": 3}
    config.pop("out_channels")
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(model_params=-1, supported_dtypes=[torch.float16, torch.bfloat16, torch.float32])
    cast = comfy.model_management.unet_manual_cast(dtype, device)
    network = MetaNetwork(
        **config, dtype=dtype, device=comfy.model_management.unet_offload_device(),
        operations=comfy.ops.pick_operations(dtype, cast),
    )  # fmt: skip
    check_names(network.state_dict(), state, what)
    network.load_state_dict(state)
    made = ControlNet(
        network.eval(), compression_ratio=1, latent_format=comfy.latent_formats.SD15(), load_device=device,
        manual_cast_dtype=cast, preprocess_image=halved if control.condition_range == "unit" else as_it_is,
    )  # fmt: skip
    made.upscale_algorithm = "bilinear"
    return made


def check_base(control: Control, what: str) -> dict[str, Any]:
    """What ComfyUI's network takes beside what the weights tell: how many heads its attention has. Raises UserError where the
    control network's base is none that ComfyUI has. A folder without config is taken to be as large as its bases are."""
    config, weights = control.config, control.weights
    if "conv_in.weight" not in weights or not (texts := [w for n, w in weights.items() if n.endswith("attn2.to_k.weight")]):
        raise UserError(f"{what}: its weights are not those of a Meta ControlNet; is it damaged?")
    (channels, reads), width = weights["conv_in.weight"].shape[:2], texts[0].shape[1]
    known = channels == 320 and width in HEADS if config is None else config["norm_num_groups"] == GROUPS
    if reads != 4 or not known:
        raise UserError(
            f"{what}: belongs to a base that ComfyUI does not have (latents of {reads} channels, {channels} wide, texts of width "
            f"{width}); expected one of Stable Diffusion 1.x or 2.x"
        )
    heads = HEADS[width] if config is None else _heads(config)
    return heads | ({"attn_precision": torch.float32} if width == 1024 else {})


def _heads(config: Mapping[str, Any]) -> dict[str, int]:
    """diffusers counts heads, for all blocks or for each."""
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    if isinstance(heads, int):
        return {"num_heads": heads}
    return {"num_heads": -1, "num_head_channels": config["block_out_channels"][0] // heads[0]}


def as_it_is(pictures: Tensor) -> Tensor:
    return pictures


def halved(pictures: Tensor) -> Tensor:
    """[0, 1] in the upper half: ComfyUI takes its VAE's pictures to [-1, 1], these were trained on [0, 1]."""
    return (pictures + 1) / 2


def apply(
    positive: list, negative: list, control: ControlNet, image: Tensor, vae: Any, strength: float, start: float, end: float
) -> tuple[list, list]:
    """Both CONDITIONINGs with `control` behind what they have already, from `start` to `end` of the steps, both in [0, 1].

    image   one picture for all frames, or one for each, at the clip's size
    Raises UserError for another control than `make_control` gives, and a range without steps.
    """
    if not isinstance(getattr(control, "control_model", None), MetaNetwork):
        raise UserError("control_net is none of this project's; for others there is ComfyUI's Apply ControlNet")
    if not 0 <= start < end <= 1:
        raise UserError(f"start_percent {start:g} to end_percent {end:g}: expected 0 <= start < end <= 1")
    if strength == 0:
        return positive, negative
    height, width = image.shape[1:3]
    if height % 8 or width % 8:
        raise UserError(f"image: {width} x {height} pixels; expected a width and a height that 8 divides")
    latents = control.latent_format.process_in(vae.encode(control.preprocess_image(image[..., :3])))
    made = windowed(control)
    made.latent_format, made.preprocess_image = None, as_it_is
    made.set_cond_hint(latents, strength, (start, end))
    behind: dict[Any, ControlNet] = {}
    return _added(positive, made, behind), _added(negative, made, behind)


def _added(conditioning: list, control: ControlNet, behind: dict) -> list:
    """behind   {the control that is there already: ours in front of it}, so that both texts share one"""
    added = []
    for embedding, options in conditioning:
        before = options.get("control")
        if before not in behind:
            behind[before] = control.copy()
            behind[before].set_previous_controlnet(before)
        added.append([embedding, {**options, "control": behind[before], "control_apply_to_uncond": False}])
    return added


def windowed(control: ControlNet) -> WindowedControl:
    made = WindowedControl(None, load_device=control.load_device, manual_cast_dtype=control.manual_cast_dtype)
    made.control_model, made.control_model_wrapped = control.control_model, control.control_model_wrapped
    control.copy_to(made)
    return made


def window_of(transformer_options: Mapping[str, Any]) -> Sequence[int] | None:
    """The frames of the clip that a call is about, as AnimateDiff-Evolved or ComfyUI's context windows say; None: all."""
    told = (transformer_options.get("ad_params") or {}).get("sub_idxs")
    if told is None and (window := transformer_options.get("context_window")) is not None and window.dim == 0:
        told = window.index_list
    return told


def shown(latents: Tensor, window: Sequence[int] | None, frames: int) -> Tensor:
    """Of the latents of one picture for all frames, or of one for each, those of a window: (frames c h w). Raises UserError where
    there are fewer."""
    if len(latents) == 1:
        return latents.expand(frames, -1, -1, -1)
    last = frames - 1 if window is None else max(window)
    if last >= len(latents):
        raise UserError(f"Meta ControlNet: {len(latents)} pictures for a clip of more than {last} frames; give one, or as many")
    return latents[:frames] if window is None else latents[list(window)]
