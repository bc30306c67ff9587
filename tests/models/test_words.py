"""Identifiers: words that stand for people."""

from types import SimpleNamespace

import pytest

from meta_animator.errors import UserError
from meta_animator.models.identifiers import name_people, new_identifiers, rare_words, reserved_identifier
from tests import tiny


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
    words = models.backbone.rare_words()
    before = name_people({}, words, ["first", "second", "first"])
    given = name_people(before, words, [*(f"p{k}" for k in range(people - 3)), "second", "tuned"], "tuned")
    assert len(given) == len(set(given.values())) == people
    assert {n: given[n] for n in before} == before
    own = given["tuned"]
    assert " " not in own and not any(own in word.split() for name, word in given.items() if name != "tuned")
    ids = {tuple(models.backbone.tokenizer(word).input_ids) for word in given.values()}
    assert len(ids) == people
    assert ("share the words of their identifiers" in capsys.readouterr().out) == (people > 10)
