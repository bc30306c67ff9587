"""Wan's VAE by clip: causal in time, four frames to a latent but for the first frame, which has one of its own.

Shapes here as diffusers has them: pixels (b 3 f H W), latents (b c f' h w).
"""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def decode(vae: AutoencoderKLWan, latents: Tensor, part: slice | None = None, checkpointed: bool = False) -> Tensor:
    """What `vae.decode(latents).sample` is before it is clipped, of the latent frames `part` of a clip alone.

    The frames before `part` are decoded too, for what the causal layers remember of them, but not kept, and get no gradient.
    checkpointed: activations of one latent frame at a time where a gradient goes back.
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
            arguments = (vae, latents[:, :, frame : frame + 1], frame == 0, *remembered)
            if checkpointed and torch.is_grad_enabled():
                shown, *remembered = checkpoint(_decode_frame, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                shown, *remembered = _decode_frame(*arguments)
        if frame >= first:
            yield shown


def _decode_frame(vae: AutoencoderKLWan, latent: Tensor, first: bool, *remembered: Any) -> tuple[Any, ...]:
    """(pixels of one latent frame, what the layers remember after it); `remembered` itself stays as it is."""
    memory = list(remembered)
    pixels = vae.decoder(vae.post_quant_conv(latent), feat_cache=memory, feat_idx=[0], first_chunk=first)
    return pixels, *memory
