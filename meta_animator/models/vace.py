"""The Meta ControlNet of the Wan family: VACE's control branch (Jiang et al. 2025) with a LoRA bank.

Shapes: control input (b f k h w), f latent frames of which the first may be reference photos, k channels; tokens (b n d).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meta_animator.models.lora import LoRABank, shared_state
from meta_animator.models.precision import own_precision

# of Wan's networks, what stays in float32 beside halves, as diffusers has it
PRECISE = ("rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")


class Branch(nn.Module):
    """The modules that VACE adds to a Wan transformer, under diffusers' names."""

    def __init__(self, vace_patch_embedding: nn.Conv3d, vace_blocks: nn.ModuleList):
        super().__init__()
        self.vace_patch_embedding, self.vace_blocks = vace_patch_embedding, vace_blocks


@dataclasses.dataclass(frozen=True)
class VaceOutput:
    """What the branch is to add under each of several conditions: (control input, active LoRAs, strength).

    The branch reads the noisy tokens too, other than a ControlNet without them, and so runs within `Wan.predict`.
    """

    control: "VaceControl"
    terms: tuple[tuple[Tensor, dict[str, float], float], ...]

    def __mul__(self, scale: float) -> "VaceOutput":
        return VaceOutput(self.control, tuple((shown, loras, strength * scale) for shown, loras, strength in self.terms))

    def __add__(self, other: "VaceOutput") -> "VaceOutput":
        return VaceOutput(self.control, self.terms + other.terms)

    def hints(self, tokens: Tensor, context: Tensor, time: Tensor, rotary: Any) -> list[Tensor]:
        """What to add to the base's tokens after each layer that the branch belongs to, summed over the conditions."""
        total: list[Tensor] = []
        for shown, loras, strength in self.terms:
            self.control.bank.use(loras)
            hints = [hint * strength for hint in self.control.hints(shown, tokens, context, time, rotary)]
            total = [a + b for a, b in zip(total, hints, strict=True)] if total else hints
        return total


class VaceControl(nn.Module):
    """VACE's branch, shared, and one LoRA per task on every linear layer of it.

    net   named as in diffusers' WanVACETransformer3DModel: vace_patch_embedding, vace_blocks
    """

    checkpointing = False
    precise = PRECISE
    sees_noise = True  # the branch goes on from the base's tokens

    def __init__(self, net: Branch, tasks: Sequence[str], rank: int):
        super().__init__()
        self.net = net
        self.net.requires_grad_(True)
        self.bank = LoRABank(self.net, rank, tasks)

    def forward(self, control_input: Tensor, t: Tensor, context: Tensor) -> VaceOutput:
        """What the branch is to add under the active LoRA; see `VaceOutput`."""
        return VaceOutput(self, ((control_input, dict(self.bank.active), 1.0),))

    def hints(self, control_input: Tensor, tokens: Tensor, context: Tensor, time: Tensor, rotary: Any) -> list[Tensor]:
        """One (b n d) for each of the branch's blocks, in the tokens' precision.

        tokens   of the noisy latents; context of the text; time (b 6 d) modulation; rotary as the base's blocks take it
        """
        dtype, loras = self.net.vace_patch_embedding.weight.dtype, dict(self.bank.active)
        with own_precision(dtype, tokens.device):
            shown = rearrange(control_input, "b f k h w -> b k f h w")
            shown = self.net.vace_patch_embedding(shown.to(dtype)).flatten(2).transpose(1, 2)
            noisy, text = tokens.to(dtype), context.to(dtype)
            found = []
            for block in self.net.vace_blocks:
                run = functools.partial(self._run, block, loras)  # computed again on the way back, under the same LoRAs
                hint, shown = run_block(run, noisy, text, shown, time, rotary, checkpointed=self.checkpointing)
                found.append(hint.to(tokens.dtype))
        return found

    def _run(self, block: nn.Module, loras: dict[str, float], *arguments: Any) -> Any:
        if self.bank.active != loras:
            self.bank.use(loras)
        return block(*arguments)

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointing = True

    def base_state(self) -> dict[str, Tensor]:
        """The shared weights under the names of diffusers' WanVACETransformer3DModel."""
        return shared_state(self.net)


def run_block(block: Callable, *arguments: Any, checkpointed: bool = False) -> Any:
    """A transformer block; `checkpointed`, its activations are computed again on the way back."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
    return block(*arguments)


def vace_layers(num_layers: int) -> list[int]:
    """After which layers of a Wan base a fresh branch adds: as VACE 1.3B (30 layers) and 14B (40) have it."""
    return list(range(0, num_layers - (0 if num_layers <= 30 else 4), 2 if num_layers <= 30 else 5))


def fresh_branch(transformer: nn.Module, layers: Sequence[int], channels: int) -> Branch:
    """A branch for a base without one, which leaves the base's output unchanged: copies of its blocks, and zero where the branch
    reads the noisy tokens' neighbour (proj_in) and where it adds (proj_out). The condition's own latents are embedded as the base
    embeds noisy ones, the other channels not at all.

    channels   of a control input: twice those of a latent, and the mask's
    """
    shape = transformer.config
    dim = shape.num_attention_heads * shape.attention_head_dim
    own = transformer.patch_embedding
    with torch.device(own.weight.device):
        embedding = nn.Conv3d(channels, dim, kernel_size=tuple(shape.patch_size), stride=tuple(shape.patch_size))
        blocks = nn.ModuleList(
            WanVACETransformerBlock(
                dim, shape.ffn_dim, shape.num_attention_heads, shape.qk_norm, shape.cross_attn_norm, shape.eps, None,
                apply_input_projection=number == 0, apply_output_projection=True,
            )
            for number in range(len(layers))
        )  # fmt: skip
    with torch.no_grad():
        if not own.weight.is_meta:
            condition = slice(shape.in_channels, 2 * shape.in_channels)
            embedding.weight.zero_()
            embedding.weight[:, condition] = own.weight
            embedding.bias.copy_(own.bias)
        for block, layer in zip(blocks, layers, strict=True):
            block.load_state_dict(transformer.blocks[layer].state_dict(), strict=False)
            for projection in filter(None, (block.proj_in, block.proj_out)):
                nn.init.zeros_(projection.weight)
                nn.init.zeros_(projection.bias)
    return Branch(embedding, blocks)
