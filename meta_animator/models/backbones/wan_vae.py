"""Wan's VAE by latent frame: causal in time, four frames to a latent but for the first, which is one frame's.

Shapes here as diffusers has them: pixels (b 3 f H W), latents (b c f' h w).
"""

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import CACHE_T, WanUpBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# called with (x, what all layers remember of earlier frames, [its own place there]), as diffusers' layers are
Layer = Callable[[Tensor, list[Any], list[int]], Tensor]


def encode(vae: AutoencoderKLWan, pixels: Tensor) -> Tensor:
    """The parameters (b 2c f' h w) of `vae.encode(pixels).latent_dist`, of pixels (b 3 f H W) that may lie on another device: the
    frames of one latent come to the encoder at a time."""
    remembered: list[Any] = [None] * vae._cached_conv_counts["encoder"]
    firsts = [0, *range(1, pixels.shape[2], vae.config.scale_factor_temporal)]
    parts = []
    for first, behind in pairwise([*firsts, pixels.shape[2]]):
        some = pixels[:, :, first:behind].to(vae.encoder.conv_in.weight)
        parts.append(vae.encoder(some, feat_cache=remembered, feat_idx=[0]))
    return vae.quant_conv(torch.cat(parts, dim=2))


def decode(vae: AutoencoderKLWan, latents: Tensor, part: slice | None = None, checkpointed: bool = False) -> Tensor:
    """What `vae.decode(latents).sample` is before it is clipped, of the latent frames `part` of a clip alone.

    The frames before `part` are decoded too, for what the causal layers remember of them, but not kept, and get no gradient.
    checkpointed: activations of one layer and latent frame at a time where a gradient goes back.
    """
    return torch.cat(list(decode_in_turn(vae, latents, part, checkpointed)), dim=2)


def decode_in_turn(
    vae: AutoencoderKLWan, latents: Tensor, part: slice | None = None, checkpointed: bool = False
) -> Iterator[Tensor]:  # fmt: skip
    """The same, latent frame by latent frame."""
    first, last, _ = (part or slice(None)).indices(latents.shape[2])
    remembered: list[Any] = [None] * vae._cached_conv_counts["decoder"]
    for frame in range(last):
        with torch.set_grad_enabled(torch.is_grad_enabled() and frame >= first):
            latent, more = latents[:, :, frame : frame + 1], frame + 1 < last
            pixels, remembered = _decode_frame(vae, latent, remembered, first=frame == 0, more=more, checkpointed=checkpointed)
        if frame >= first:
            yield pixels


def _decode_frame(
    vae: AutoencoderKLWan, latent: Tensor, remembered: list[Any], *, first: bool, more: bool, checkpointed: bool
) -> tuple[Tensor, list[Any]]:
    """(pixels of one latent frame, what the layers remember after it, where there are `more` to come)"""
    x, memory, place = vae.post_quant_conv(latent), list(remembered), 0
    for layer in _layers(vae.decoder, first):
        run = functools.partial(_run, layer, place, tuple(memory))
        if checkpointed and torch.is_grad_enabled():
            x, *kept = checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x, *kept = run(x)
        if more:
            memory[place : place + len(kept)] = kept
        place += len(kept)
    return x, memory


def _run(layer: Layer, place: int, remembered: tuple[Any, ...], x: Tensor) -> tuple[Any, ...]:
    """(what the layer makes of x, what it remembers at its places from `place` on)"""
    memory, end = list(remembered), [place]
    y = layer(x, memory, end)
    return y, *memory[place : end[0]]


def _layers(decoder: nn.Module, first: bool) -> Iterator[Layer]:
    """The decoder's layers from latents to pixels. first: of the clip's first latent frame"""
    yield functools.partial(_causal, decoder.conv_in)
    middle = decoder.mid_block
    yield functools.partial(_resnet, middle.resnets[0])
    for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
        if attention is not None:
            yield lambda x, memory, place, attention=attention: attention(x)
        yield functools.partial(_resnet, resnet)
    for block in decoder.up_blocks:
        if type(block) is WanUpBlock:
            yield from (functools.partial(_resnet, resnet) for resnet in block.resnets)
            yield from block.upsamplers or ()
        else:
            yield functools.partial(block, first_chunk=first)
    yield lambda x, memory, place: _causal(decoder.conv_out, decoder.nonlinearity(decoder.norm_out(x)), memory, place)


def _resnet(block: nn.Module, x: Tensor, memory: list[Any], place: list[int]) -> Tensor:
    """A residual block, whose halves' activations are in memory one after another where a gradient goes back through them."""
    y = x
    for norm, conv in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        half = functools.partial(_half, block, norm, conv, memory[place[0]])
        keeps = torch.is_grad_enabled() and y.requires_grad
        y, memory[place[0]] = checkpoint(half, y, use_reentrant=False, preserve_rng_state=False) if keeps else half(y)
        place[0] += 1
    return y + block.conv_shortcut(x)


def _half(block: nn.Module, norm: nn.Module, conv: nn.Module, before: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    memory = [before]
    return _causal(conv, block.nonlinearity(norm(x)), memory, [0]), memory[0]


def _causal(conv: nn.Module, x: Tensor, memory: list[Any], place: list[int]) -> Tensor:
    """A causal convolution that remembers its input's last frames."""
    before, shown = memory[place[0]], x[:, :, -CACHE_T:]
    if before is not None and shown.shape[2] < CACHE_T:
        shown = torch.cat([before[:, :, -1:], shown], dim=2)
    memory[place[0]] = shown
    place[0] += 1
    return conv(x, before)
