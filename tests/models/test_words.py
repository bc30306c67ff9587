"""Identifiers and the embedded base's tokenizer."""

import re
from types import SimpleNamespace

import pytest
from transformers import CLIPTokenizer

from meta_animator.errors import UserError
from meta_animator.models.identifiers import new_identifiers, rare_words, reserved_identifier
from meta_animator.models.tokenizer import SPECIAL, base_tokenizer, make_tokenizer
from meta_animator.puppets.dataset import describe
from tests import tiny

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


class Vocabulary:
    """As much of a tokenizer as `rare_words` asks for: texts that are no token are spelled."""

    def __init__(self, tokens):
        self.vocabulary = {token: k for k, token in enumerate(tokens)}

    def get_vocab(self):
        return self.vocabulary

    def __call__(self, texts, add_special_tokens):
        assert not add_special_tokens
        known = {token.removesuffix("</w>").removeprefix("▁") for token in self.vocabulary if token != "zzzd</w>"}
        return SimpleNamespace(input_ids=[[0] if text in known else [1, 2] for text in texts])


@pytest.mark.parametrize("form", ["{}</w>", "▁{}"])
def test_rare_words_are_of_one_token_in_the_rarer_half_rarest_first(form):
    common, rare = ["love", "this", "that", "with", "from"], ["olis", "longer", "UPPR", "dits", "çava", "h1tt", "kilt"]
    tokenizer = Vocabulary([form.format(word) for word in common] + ["part"] + [form.format(word) for word in rare])
    assert rare_words(tokenizer) == ["kilt", "dits", "olis"]
    assert rare_words(Vocabulary(["a</w>", "zzzc</w>", "zzzd</w>"])) == ["zzzc"], "a word that the tokenizer spells is none"


def test_nobodys_words_are_part_of_anothers_name_while_words_last():
    words = [f"w{k:03d}" for k in range(1100)]
    given = new_identifiers(words, [], 1000)
    assert len(set(given)) == 1000 and set(given) <= set(words[16:]), "one word each; the rarest are kept back"
    person = reserved_identifier(words, given)
    assert person in words[:16]
    later = new_identifiers(words, [*given, person], 200)
    assert len(set(later) - set(given)) == 200 and sum(" " in name for name in later) == 200 - (1100 - 16 - 1000) + 1
    used = {word for name in [*given, *later] for word in name.split()}
    assert not used & set(words[1:16]) and person not in used


def test_what_an_old_checkpoint_has_given_stays_and_is_not_given_again():
    words, old = [f"w{k:02d}" for k in range(20)], ["w00 w01", "w00 w02", "w03"]
    new = new_identifiers(words, old, 30)
    assert len({*old, *new}) == 33 and not {word for name in new[:11] for word in name.split()} & {"w00", "w01", "w02", "w03"}
    assert reserved_identifier(words, [*old, *new]) == "w04"
    with pytest.raises(UserError, match="people are left without an identifier: the tokenizer has 20 rare words"):
        new_identifiers(words, old, 400)
    every = [*words, *new_identifiers(words, words, 9)]
    assert " " in reserved_identifier(words, every) and reserved_identifier(words, every) not in every


@pytest.mark.parametrize("people", [3, 12, 40])
def test_every_person_has_an_identifier_of_their_own_and_keeps_it(make_config, people, capsys):
    """Twelve are reserved in the tiny tokenizer, three of them for those of stage 2; beyond nine people, pairs serve."""
    models = tiny.make_models(make_config().model)
    models.name_people(["first", "second", "first"])
    before = dict(models.identifiers)
    models.name_people([*(f"p{k}" for k in range(people - 3)), "second", "tuned"], "tuned")
    assert len(models.identifiers) == len(set(models.identifiers.values())) == people
    assert {n: models.identifiers[n] for n in before} == before
    own = models.identifiers["tuned"]
    assert " " not in own and not any(own in word.split() for name, word in models.identifiers.items() if name != "tuned")
    ids = {tuple(models.backbone.tokenizer(word).input_ids) for word in models.identifiers.values()}
    assert len(ids) == people
    assert ("share the words of their identifiers" in capsys.readouterr().out) == (people > 10)
