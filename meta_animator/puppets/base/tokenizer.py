"""A small CLIP tokenizer of our own for the embedded base model."""

import re
from collections import Counter
from collections.abc import Iterable

from transformers import CLIPTokenizer

from meta_animator.errors import UserError

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def make_tokenizer(corpus: Iterable[str], identifiers: int, max_length: int) -> CLIPTokenizer:
    """A tokenizer that knows every word of `corpus` as one token, spells other words, and reserves <id000>, <id001>, ...

    It is an ordinary CLIP tokenizer (byte-pair merges, lower case), so that the base loads like any other.
    """
    words = Counter(word for text in corpus for word in re.findall("[a-z]+", text.lower()))  # as CLIP splits "two-tone"
    if not words:
        raise UserError("the tokenizer's corpus is empty")
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = list(SPECIAL) + letters + [f"{letter}</w>" for letter in letters]
    known, merges = set(vocabulary), []
    for word, _ in words.most_common():
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:  # merge from the right, so that words share their endings
            left, right = pieces[-2], pieces[-1]
            if (left, right) not in merges:
                merges.append((left, right))
            if left + right not in known:
                known.add(left + right)
                vocabulary.append(left + right)
            pieces[-2:] = [left + right]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)}, merges=merges, model_max_length=max_length
    )
    tokenizer.add_tokens([f"<id{k:03d}>" for k in range(identifiers)])
    return tokenizer


def base_tokenizer(descriptions: Iterable[str]) -> CLIPTokenizer:
    """The embedded base model's tokenizer, for the descriptions of its train set: 256 identifiers, 48 tokens a prompt."""
    return make_tokenizer([*descriptions, "person looks like"], identifiers=256, max_length=48)
