"""Motion weights from a run of ours, a folder in diffusers' MotionAdapter format, or a file of AnimateDiff's.

AnimateDiff's layout (v1 and v3; v2 has a mid block as well) read from github.com/guoyww/AnimateDiff, Apache-2.0.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from diffusers import MotionAdapter
from torch import Tensor

from meta_animator.checkpoints import loading
from meta_animator.checkpoints.files import read_weights
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones.ldm import renamed, reversed_names
from meta_animator.models.backbones.parts import check_files
from meta_animator.models.motion import check_length
from meta_animator.torch_files import read_state
from meta_animator.weights import copy_strict

ANIMATEDIFF_BETAS = "linear"  # what AnimateDiff's published weights were trained with
INSIDE = {
    "attn1": "attention_blocks.0", "attn2": "attention_blocks.1", "norm1": "norms.0", "norm2": "norms.1", "norm3": "ff_norm",
}  # fmt: skip


def load_motion(models: Assembly, path: str) -> None:
    """Fill the motion module by name. Raises UserError where a weight is missing, unknown or of another shape."""
    what, own = f"motion module {path}", dict(models.motion.named_parameters())
    if Path(path).is_file():
        state = from_animatediff(read_state(path), models.config.motion_max_seq_length, what)
    elif (Path(path) / "config.json").is_file():
        state = _from_folder(models, path, what)
    else:
        loading.load_motion(models, *read_weights(path), path)
        return
    _check_mid_block(own, state, what)
    copy_strict(own, state, what)
    if models.config.beta_schedule != ANIMATEDIFF_BETAS:
        print(
            f"note: {path} has no word of its noise schedule; AnimateDiff's published weights were trained with "
            f"model.beta_schedule={ANIMATEDIFF_BETAS}, this run has '{models.config.beta_schedule}' ('' is the base's own)"
        )


def _from_folder(models: Assembly, path: str, what: str) -> dict[str, Tensor]:
    """The weights of a folder in diffusers' format, checked as those of a file are."""
    own, variant = models.motion.config, check_files(Path(path), "motion module")
    try:
        adapter, found = MotionAdapter.from_pretrained(path, output_loading_info=True, variant=variant)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{what}: {str(error).splitlines()[0]}") from error
    for problem in ("missing", "unexpected"):
        if names := sorted(found[f"{problem}_keys"]):
            raise UserError(f"{what}: {len(names)} weights are {problem}, the first is {names[0]}")
    for key in ("motion_num_attention_heads", "motion_norm_num_groups"):
        if adapter.config[key] != own[key]:
            raise UserError(f"{what}: its config.json has {key} {adapter.config[key]}, ours {own[key]}; it is another network")
    check_positions({n: b for n, b in adapter.named_buffers() if n.endswith(".pe")}, models.config.motion_max_seq_length, what)
    return dict(adapter.named_parameters())


def animatediff_names(names: Iterable[str]) -> dict[str, str]:
    """{diffusers name: AnimateDiff's} of a MotionAdapter's weights."""
    return {name: _animatediff_name(name) for name in names}


def _animatediff_name(name: str) -> str:
    place, inner = re.fullmatch(r"((?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.motion_modules\.\d+)\.(.+)", name).groups()
    if block := re.fullmatch(r"(transformer_blocks\.\d+)\.(\w+)\.(.+)", inner):
        inner = f"{block[1]}.{INSIDE.get(block[2], block[2])}.{block[3]}"
    return f"{place}.temporal_transformer.{inner}"


def from_animatediff(state: Mapping[str, Tensor], max_seq_length: int, what: str) -> dict[str, Tensor]:
    """Weights under diffusers' names from a file of AnimateDiff's, or of a MotionAdapter's weights as AnimateDiff-Lightning has
    them; position tables are compared with the formula.

    Raises UserError for weights that are not a motion module's, or for positions that it was not trained with.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if any("_blocks_motion_module." in name for name in state):
        raise UserError(
            f"{what}: is in the released Meta-Animator's layout, whose modules stand behind the upsampling layers instead "
            "of before them; give the AnimateDiff file that it was started from"
        )
    ours = not any(".temporal_transformer." in name for name in state)
    table = ".pos_embed.pe" if ours else ".pos_encoder.pe"
    tables = {name: tensor for name, tensor in state.items() if name.endswith(table)}
    weights = {name: tensor for name, tensor in state.items() if name not in tables}
    if strange := sorted(name for name in weights if ".motion_modules." not in name):
        raise UserError(f"{what}: {len(strange)} weights are not of a motion module, the first is {strange[0]}")
    places = {name.removesuffix(".to_q.weight") for name in weights if name.endswith(".to_q.weight")}
    if ours:  # one table for both attentions of a block
        places = {name.rpartition(".")[0] for name in places}
    if without := sorted(places - {name.removesuffix(table) for name in tables}):
        raise UserError(
            f"{what}: has no table of positions ({without[0]}{table}), so it was trained without; ours always adds them"
        )
    check_positions(tables, max_seq_length, what)
    if ours:
        return weights
    back = {_from_inside(name): name for name in weights}
    return renamed(weights, reversed_names(back))


def check_positions(tables: Mapping[str, Tensor], max_seq_length: int, what: str) -> None:
    """Raises UserError unless the tables (1, length, width) are the usual sines and cosines and long enough."""
    for name, table in tables.items():
        if table.ndim != 3 or table.shape[0] != 1:
            raise UserError(f"{what}: {name} has shape {tuple(table.shape)}; expected (1, positions, channels)")
        check_length(table.shape[1], max_seq_length, what)
        if not torch.allclose(table.float(), positions(table.shape[1], table.shape[2]), atol=2e-3):
            raise UserError(f"{what}: {name} is not the usual table of sines; this module has positions of its own")


def _from_inside(name: str) -> str:
    """diffusers' name for AnimateDiff's."""
    name = name.replace(".temporal_transformer.", ".")
    for ours, theirs in INSIDE.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


def to_animatediff(adapter: MotionAdapter) -> dict[str, Tensor]:
    """A motion module under AnimateDiff's names, with its position tables."""
    weights = dict(adapter.named_parameters())
    state = renamed(weights, animatediff_names(weights))
    for name in list(state):
        if name.endswith(".to_q.weight"):
            place, width = name.removesuffix(".to_q.weight"), state[name].shape[1]
            state[f"{place}.pos_encoder.pe"] = positions(adapter.config.motion_max_seq_length, width)
    return state


def positions(length: int, width: int) -> Tensor:
    """Sines and cosines of geometrically spaced frequencies, float32 (1, length, width) (Vaswani et al. 2017, 3.5)."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None]


def _check_mid_block(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    has, wants = ("mid_block." in "\n".join(names) for names in (state, own))
    if has != wants:
        kind = "has a motion module in the mid block (AnimateDiff v2)" if has else "has none in the mid block (v1, v3)"
        raise UserError(f"{what}: {kind}; set model.motion_mid_block={str(has).lower()}")
