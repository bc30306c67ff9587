"""Who is called by which rare words in prompts. Nobody's word is a part of another's name while there are words left."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from meta_animator.errors import UserError

RESERVE = 16  # words that only the person of a stage 2 is given, of a quarter of the words at most
LETTERS = 4


def built_in_identifiers(tokenizer: Any) -> list[str]:
    """The identifiers <id000>, <id001>, ... that a tokenizer was made with, in order; others have none."""
    return sorted(token for token in tokenizer.get_added_vocab() if token.startswith("<id"))


def name_people(known: Mapping[str, str], words: Sequence[str], identities: Iterable[str], person: str = "") -> dict[str, str]:
    """{identity: identifier}: those that are known, and one of its own for everybody else.

    words    those of `rare_words`
    person   whom a stage 2 learns
    """
    given = dict(known)
    new = [name for name in dict.fromkeys(identities) if name not in given and name != person]
    given.update(zip(new, new_identifiers(words, given.values(), len(new)), strict=True))
    if shared := sum(" " in given[name] for name in new):
        print(f"note: {shared} people share the words of their identifiers: the tokenizer has {len(words)} rare words")
    if person and person not in given:
        given[person] = reserved_identifier(words, given.values())
    return given


def keep_own(own: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Identifiers that a run has given already and, where these do not take their words, those of the checkpoint that it started
    from."""
    words = set(own.values())
    return {name: word for name, word in others.items() if word not in words} | dict(own)


def rare_words(tokenizer: Any) -> list[str]:
    """The words of four small letters in the rarer half of a vocabulary (the higher numbers) that are one token each, rarest
    first; of a CLIP tokenizer ("word</w>") or one of SentencePiece's kind ("▁word")."""
    vocabulary = tokenizer.get_vocab()
    rare = [token for token, index in vocabulary.items() if index >= len(vocabulary) // 2]
    ranked = map(_word, sorted(rare, key=vocabulary.get, reverse=True))
    words = [word for word in ranked if len(word) == LETTERS and word.isascii() and word.isalpha() and word.islower()]
    spelled = tokenizer(words, add_special_tokens=False).input_ids if words else []
    return [word for word, tokens in zip(words, spelled, strict=True) if len(tokens) == 1]


def _word(token: str) -> str:
    """The whole word that a token is, or ''."""
    if token.endswith("</w>"):
        return token.removesuffix("</w>")
    return token[1:] if token.startswith("▁") else ""


def new_identifiers(words: Sequence[str], taken: Iterable[str], count: int) -> list[str]:
    """`count` identifiers beside those taken: words that are in none of these, all but the reserve, then pairs of words.

    Raises UserError where there are not enough pairs.
    """
    taken = set(taken)
    free = _free(words, taken)
    size = min(RESERVE, len(words) // 4)
    own = free[size : size + count]
    shared, kept = count - len(own), {*free[:size], *words[:size]}
    pairs = list(itertools.islice(_pairs([word for word in words if word not in kept], taken), shared))
    if len(pairs) < shared:
        raise UserError(f"{shared - len(pairs)} people are left without an identifier: the tokenizer has {len(words)} rare words")
    return own + pairs


def reserved_identifier(words: Sequence[str], taken: Iterable[str]) -> str:
    """The identifier of a stage 2's person: a word that is in none of those taken; only where there is none, a pair."""
    taken = set(taken)
    return next(iter(_free(words, taken)), "") or new_identifiers(words, taken, 1)[0]


def _free(words: Sequence[str], taken: set[str]) -> list[str]:
    used = {word for identifier in taken for word in identifier.split()}
    return [word for word in words if word not in used]


def _pairs(words: Sequence[str], taken: set[str]) -> Iterator[str]:
    """Pairs of words that are not taken, those of the first words first."""
    every = (f"{words[i]} {words[j]}" for j in range(len(words)) for i in range(j))
    return (pair for pair in every if pair not in taken)
