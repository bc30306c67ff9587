"""Names of weights in the original Stable Diffusion layout ("ldm": .ckpt files, ControlNet, CtrLoRA) for diffusers' names.

Each function takes names without the part's prefix and gives names without it.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# prefixes of the parts in a whole checkpoint
UNET, VAE, TEXT, CONTROL = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.", "control_model."

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "controlnet_mid_block": "middle_block_out.0",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
VAE_TOP = {"conv_norm_out": "norm_out"}


def unet_names(names: Iterable[str], layers_per_block: int) -> dict[str, str]:
    """{diffusers name: ldm name} for the weights or modules of a UNet2DConditionModel or a ControlNetModel.

    Attention inside the transformer blocks has the same names in both. Raises KeyError for a name of another network.
    """
    names = list(names)
    attended = {m[1] for name in names if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {name: _unet_name(name, layers_per_block, attended) for name in names}


def _unet_name(name: str, layers: int, attended: set[str]) -> str:
    for ours, theirs in TOP.items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    kind, number, *rest = name.split(".")
    if kind == "controlnet_down_blocks":
        return ".".join(["zero_convs", number, "0", *rest])
    if kind == "mid_block":
        child, index = number, int(rest[0])
        place = f"middle_block.{1 if child == 'attentions' else 2 * index}"
        return f"{place}.{_inside(child, rest[1:])}"
    if kind not in ("down_blocks", "up_blocks"):
        raise KeyError(name)
    child, index, *inner = rest
    block, down = int(number) * (layers + 1) + int(index), kind == "down_blocks"
    if child == "downsamplers":
        return ".".join([f"input_blocks.{(int(number) + 1) * (layers + 1)}.0.op", *inner[1:]])
    if child == "upsamplers":
        place = 2 if number in attended else 1
        return ".".join([f"output_blocks.{int(number) * (layers + 1) + layers}.{place}", *inner])
    place = f"input_blocks.{block + 1}" if down else f"output_blocks.{block}"
    return f"{place}.{1 if child == 'attentions' else 0}.{_inside(child, inner)}"


def _inside(child: str, pieces: list[str]) -> str:
    return ".".join(pieces if child == "attentions" else [RESNET[pieces[0]], *pieces[1:]])


def vae_names(names: Iterable[str]) -> dict[str, str]:
    """{diffusers name: ldm name} for the weights of an AutoencoderKL; there, the attention's projections are 1 x 1
    convolutions (see `to_shapes`)."""
    names = list(names)
    ups = 1 + max(int(m[1]) for name in names if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", name)))
    return {name: _vae_name(name, ups) for name in names}


def _vae_name(name: str, ups: int) -> str:
    half, *pieces = name.split(".")
    if half in ("quant_conv", "post_quant_conv"):
        return name
    kind = pieces[0]
    if kind == "mid_block":
        child, index = pieces[1], pieces[2]
        if child == "attentions":
            inner = ".".join(pieces[3:])
            ours = next(key for key in VAE_ATTENTION if inner.startswith(key + "."))
            return f"{half}.mid.attn_1.{VAE_ATTENTION[ours]}{inner[len(ours) :]}"
        return f"{half}.mid.block_{int(index) + 1}.{_vae_resnet(pieces[3:])}"
    if kind in ("down_blocks", "up_blocks"):
        number, child, index, *inner = pieces[1:]
        place = f"{half}.down.{number}" if kind == "down_blocks" else f"{half}.up.{ups - 1 - int(number)}"
        if child == "resnets":
            return f"{place}.block.{index}.{_vae_resnet(inner)}"
        return ".".join([place, {"downsamplers": "downsample", "upsamplers": "upsample"}[child], *inner])
    return ".".join([half, VAE_TOP.get(kind, kind), *pieces[1:]])


def _vae_resnet(pieces: list[str]) -> str:
    return ".".join([{"conv_shortcut": "nin_shortcut"}.get(pieces[0], pieces[0]), *pieces[1:]])


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """`state` with its keys replaced by `names`; a key that is not in `names` stays."""
    return {names.get(name, name): tensor for name, tensor in state.items()}


def reversed_names(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}


# the order in which ldm's modules come within one place, as far as they hold nn.Linear layers
ORDER = (
    "emb_layers.1", "proj_in", "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2",
    "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "proj_out",
)  # fmt: skip
PLACES = ("time_embed", "input_blocks", "middle_block")


def in_module_order(modules: Iterable[str]) -> list[str]:
    """ldm names of a ControlNet's nn.Linear layers in the order in which its modules were made: time embedding, blocks,
    mid block; in a transformer block the feed-forward comes before the second attention."""

    def key(name: str) -> tuple[int, ...]:
        place, *pieces = name.split(".")
        if place == "time_embed":
            return (0, int(pieces[0]))
        numbers = pieces[:2] if place == "input_blocks" else pieces[:1]
        inner = ".".join(pieces[len(numbers) :])
        block = re.match(r"transformer_blocks\.(\d+)\.(.*)", inner)
        depth, inner = (int(block[1]), block[2]) if block else (0 if inner != "proj_out" else 10**6, inner)
        if inner == "proj_in":
            depth = -1
        return (PLACES.index(place), *map(int, numbers), depth, ORDER.index(inner))

    return sorted(modules, key=key)


def to_shapes(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with each tensor that has the values but not the dimensions of its namesake in `like` reshaped to it: a
    projection written as a 1 x 1 convolution, or the other way round."""
    return {
        name: tensor.reshape(like[name].shape) if name in like and _same_matrix(tensor, like[name]) else tensor
        for name, tensor in state.items()
    }


def _same_matrix(a: Tensor, b: Tensor) -> bool:
    """Whether both are one matrix but for trailing dimensions of size 1."""
    return a.ndim != b.ndim and torch.Size(d for d in a.shape if d != 1) == torch.Size(d for d in b.shape if d != 1)
