"""Attention to a text whose padding, hundreds of equal tokens, is handed over as one token that counts as often."""

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

STEP = 16  # texts are shortened to multiples of it, and one token: each length is a graph of its own to torch.compile


class PaddingOnce(WanAttnProcessor):
    """Of Wan's cross-attention: the same result as with all of the padding, up to rounding, for a fraction of the work. One is
    shared by all layers of a model.

    bias   (1 1 1 n), the logarithm of how many tokens each of the n stands for; None: one each
    """

    bias: Tensor | None = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None) -> Tensor:
        bias = None if self.bias is None else self.bias.to(hidden_states)
        return super().__call__(attn, hidden_states, encoder_hidden_states, bias, rotary_emb)

    def shorten(self, context: Tensor) -> Tensor:
        """Text embeddings (b n d) with their padding, which is zero, as one token but for what fills up a multiple of `STEP`;
        sets `bias` for it."""
        tokens = context.detach().abs().amax((0, 2)).nonzero()
        kept = -(-(int(tokens.max()) + 1) // STEP) * STEP if len(tokens) else 0
        self.bias, rest = None, context.shape[1] - kept
        if rest < 2:
            return context
        counts = torch.ones(kept + 1, dtype=torch.float64, device=context.device)
        counts[-1] = rest
        self.bias = counts.log()[None, None, None]
        return context[:, : kept + 1]
