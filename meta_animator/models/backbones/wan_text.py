"""Wan's text encoder (UMT5, 5.7 billion weights in the published models): every prompt is embedded once, to a file.

It is loaded where a prompt is not in the cache, and not before.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meta_animator.errors import UserError
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.precision import autocast
from meta_animator.weights import load_tensors, save_tensors

MOST_TOKENS = 512  # that Wan reads of a prompt
SPARE = 2 * 2**30  # bytes of a GPU to be left free beside the encoder; it stays on the CPU otherwise
BLOCKS, BLOCK = 16, 2**16  # of a file that name it, and the bytes of one
NAME = "embedding"


class WanText:
    """`text(prompts)` -> (b n d) in float32: states of a prompt's tokens, zero behind its end.

    folder     with text_encoder/ and tokenizer/
    cache      folder for embeddings, one file each; None: they are not kept
    precision  that the encoder holds its weights and computes in
    Raises UserError where a part is missing.
    """

    def __init__(self, folder: Path, cache: Path | None, precision: torch.dtype):
        self.folder, self.cache, self.precision = folder, cache, precision
        self.tokenizer = load_tokenizer(folder / "tokenizer")
        self.length = min(MOST_TOKENS, self.tokenizer.model_max_length)
        self.encoder: Any = None
        self._key = _identity(folder, precision)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        return torch.stack([self._padded(self._states(prompt, device)) for prompt in prompts]).to(device)

    def release(self) -> None:
        self.encoder = None

    def fits(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt, verbose=False).input_ids) <= self.length

    def _padded(self, states: Tensor) -> Tensor:
        padded = states.new_zeros(self.length, states.shape[1])
        padded[: len(states)] = states
        return padded

    def _states(self, prompt: str, device: torch.device) -> Tensor:
        """(tokens, d), float32 on the CPU"""
        file = self.cache and self.cache / f"{hashlib.sha256(f'{self._key} {prompt}'.encode()).hexdigest()[:32]}.safetensors"
        if file and file.is_file():
            return load_tensors(file)[NAME].float()
        states = self._embed(prompt, device)
        if file:
            save_tensors({NAME: states}, file)
        return states.float()

    def _embed(self, prompt: str, device: torch.device) -> Tensor:
        from transformers import UMT5EncoderModel

        if self.encoder is None:
            encoder = load_part(UMT5EncoderModel, self.folder / "text_encoder", dtype=self.precision)
            self.encoder = encoder.requires_grad_(False).eval().to(_room_for(encoder, device))
        prompt = " ".join(prompt.split())  # as diffusers' pipeline reads it, which also mends broken letters where ftfy is there
        tokens = self.tokenizer(prompt, truncation=True, max_length=self.length, return_tensors="pt").to(self.encoder.device)
        with autocast(self.encoder.device, enabled=False):
            return self.encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state[0].cpu()


def load_tokenizer(folder: Path) -> Any:
    """Raises UserError where there is none, or one without words."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise UserError(f"base model {folder.parent}: no folder 'tokenizer'; expected a model in diffusers format")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(f"tokenizer {folder}: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"tokenizer {folder}: holds no vocabulary")
    return tokenizer


def _identity(folder: Path, precision: torch.dtype) -> str:
    """Names what embeddings depend on: by the sizes of files and some blocks of each, since the published encoder has 11 GB."""
    digest = hashlib.sha256(str(precision).encode())
    for file in sorted(file for part in ("text_encoder", "tokenizer") for file in (folder / part).rglob("*") if file.is_file()):
        size = file.stat().st_size
        digest.update(f" {file.relative_to(folder)} {size} ".encode())
        with file.open("rb") as content:
            for k in range(BLOCKS):
                content.seek(max(0, size - BLOCK) * k // (BLOCKS - 1))
                digest.update(content.read(BLOCK))
    return digest.hexdigest()


def _room_for(network: torch.nn.Module, device: torch.device) -> torch.device:
    """The device, or the CPU where that is a GPU without room for the network."""
    if device.type != "cuda":
        return device
    needed = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    return device if torch.cuda.mem_get_info(device)[0] > needed + SPARE else torch.device("cpu")
