"""The embedded base's tokenizer."""

import re

import pytest
from transformers import CLIPTokenizer

from meta_animator.errors import UserError
from meta_animator.puppets.base.tokenizer import SPECIAL, base_tokenizer, make_tokenizer
from meta_animator.puppets.dataset import describe

PEOPLE = [describe(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def tokenizer():
    return base_tokenizer(PEOPLE)


def test_every_word_of_the_descriptions_is_one_token(tokenizer):
    for text in [*PEOPLE, "person looks like"]:
        words = re.findall("[a-z]+|[^a-z ]", text.lower())
        tokens = tokenizer(text).input_ids
        assert tokenizer.convert_ids_to_tokens(tokens)[1:-1] == [f"{word}</w>" for word in words]
        assert len(tokens) == len(words) + len(SPECIAL) <= tokenizer.model_max_length


def test_unknown_words_are_spelled_not_lost(tokenizer):
    tokens = tokenizer("Xylophone!").input_ids
    assert tokenizer.decode(tokens[1:-1]).replace(" ", "") == "xylophone!"
    assert tokenizer.unk_token_id not in tokens[1:-1] and len(tokens) > 4


def test_the_tokenizer_survives_its_files(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert len(again) == len(tokenizer) and again.model_max_length == tokenizer.model_max_length
    for text in [*PEOPLE, "Person looks like <id007>", "Xylophone!", ""]:
        padded = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
        assert again(text, **padded).input_ids == tokenizer(text, **padded).input_ids


def test_an_identifier_is_one_token_of_its_own(tokenizer):
    ids = [tokenizer(f"looks like <id{k:03d}>").input_ids[3] for k in range(256)]
    assert len(set(ids)) == 256 and len(tokenizer("looks like <id255>").input_ids) == 5


def test_an_empty_corpus_is_refused():
    with pytest.raises(UserError, match="corpus is empty"):
        make_tokenizer(["12 ,"], 1, 8)
