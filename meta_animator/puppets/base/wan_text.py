"""The text of the small embedded Wan: a tokenizer of the kind of UMT5's, and what its encoder makes of prompts."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.backbones.wan_text import MOST_TOKENS

WORD, LETTER = -6.0, -12.0  # log probabilities, so that a known word is never spelled
SPECIAL = ("<pad>", "</s>", "<unk>")  # in T5's order


def wan_tokenizer(descriptions: Iterable[str], identifiers: int = 256) -> T5Tokenizer:
    """A tokenizer that knows every word of the descriptions as one token, at the start of a word and after a hyphen, in small
    letters and with a capital; spells other words; and reserves <id000>, <id001>, ..."""
    texts = [*descriptions, "person looks like"]
    scores = {**dict.fromkeys(SPECIAL, 0.0), "▁": LETTER}
    for word in sorted({word for text in texts for word in re.findall("[a-z]+", text.lower())}):  # the same whoever comes first
        scores |= {f"▁{word}": WORD, f"▁{word.capitalize()}": WORD, word: WORD}
    for letter in map(chr, range(33, 127)):
        scores.setdefault(letter, LETTER)
    tokenizer = T5Tokenizer(vocab=list(scores.items()), extra_ids=0, model_max_length=MOST_TOKENS)
    tokenizer.add_tokens([f"<id{k:03d}>" for k in range(identifiers)])
    return tokenizer


def text_encoder_for(architecture: Path, tokenizer: T5Tokenizer) -> UMT5EncoderModel:
    """A fresh text encoder of the architecture's shape, with an embedding for each of the tokenizer's tokens."""
    config = UMT5Config(**read_json(architecture / "text_encoder" / "config.json"))
    config.vocab_size = len(tokenizer)
    return UMT5EncoderModel(config)


def text_states(tokenizer: T5Tokenizer, encoder: UMT5EncoderModel, prompts: Sequence[str]) -> Tensor:
    """States (b 512 d) of prompts, zero behind the end of each.

    Raises UserError for a prompt that does not fit.
    """
    tokens = tokenizer(list(prompts), padding=True, return_tensors="pt").to(encoder.device)
    length = tokens.attention_mask.shape[1]
    if length > MOST_TOKENS:
        raise UserError(f"a prompt has {length} tokens; expected at most {MOST_TOKENS}")
    states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state * tokens.attention_mask[..., None]
    return F.pad(states, (0, 0, 0, MOST_TOKENS - length))
