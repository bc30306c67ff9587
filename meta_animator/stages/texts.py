"""Text embeddings of prompts, each made once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from meta_animator.devices import send
from meta_animator.models.backbones import Backbone

MAX_CONTEXTS = 4096  # text embeddings that are kept
MAX_PROMPTS = 512  # of a run that embeds all of them before its first step


class Texts:
    """`texts(prompts)` -> (b n d) on `device`; embeddings are kept on the CPU."""

    def __init__(self, backbone: Backbone):
        self.backbone, self._kept = backbone, {}

    def __call__(self, prompts: Sequence[str], device: torch.device | str) -> Tensor:
        if len(self._kept) > MAX_CONTEXTS:
            self._kept.clear()
        for prompt in set(prompts) - set(self._kept):
            embedding = self.backbone.embed_text([prompt])[0].cpu()
            self._kept[prompt] = _without_padding(embedding), len(embedding)
        rows = [F.pad(told, (0, 0, 0, length - len(told))) for told, length in map(self._kept.get, prompts)]
        return send(torch.stack(rows), device)

    def embed_all(self, prompts: Sequence[str], on_disk: bool = False) -> bool:
        """Embed all prompts that a run has, into memory or, where they are too many and the base keeps them `on_disk`, there;
        False, and nothing done, where they can be kept nowhere."""
        if len(prompts) <= MAX_PROMPTS:
            self(prompts, "cpu")
            return True
        for prompt in prompts if on_disk else ():
            self.backbone.embed_text([prompt])
        return on_disk


def _without_padding(embedding: Tensor) -> Tensor:
    """(n d) without the rows of zeros at its end, which take most of the room where a base reads hundreds of tokens."""
    told = embedding.abs().amax(1).nonzero()
    return embedding[: int(told.max()) + 1 if len(told) else 1].clone()
