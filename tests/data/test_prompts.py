"""Prompts: the identifier is always read, however long a description is."""

import json
import shutil

import pytest

from meta_animator.checkpoints.files import read_weights
from meta_animator.data.prompts import fill_prompt, fit_description
from meta_animator.sampling.animate import prompt_for
from meta_animator.settings import SampleConfig
from meta_animator.stages.train import train
from tests import tiny

WORDS = ("red", "blue", "long", "short", "green", "brown", "dark", "light")
CAPTION = ", ".join(f"{word} hair and {word} shoes" for word in WORDS)
TEMPLATE = "{description} {identifier}"


@pytest.fixture(scope="module")
def backbone(tiny_base, puppet_data, tmp_path_factory):
    return tiny.make_models(tiny.make_config(tmp_path_factory.mktemp("run"), tiny_base, puppet_data).model).backbone


def read(backbone, prompt: str) -> list[str]:
    """The tokens that the text encoder gets."""
    length = backbone.tokenizer.model_max_length
    return backbone.tokenizer.convert_ids_to_tokens(backbone.tokenizer(prompt, truncation=True, max_length=length).input_ids)


def test_a_description_is_cut_at_a_word_so_that_the_identifier_is_read(backbone):
    assert "<id003>" not in read(backbone, fill_prompt(TEMPLATE, "<id003>", CAPTION)), "the case at hand"
    cut = fit_description(TEMPLATE, "<id003>", CAPTION, backbone.fits)
    assert CAPTION.startswith(cut) and CAPTION[len(cut)] in " ,", "at a word"
    assert read(backbone, fill_prompt(TEMPLATE, "<id003>", cut))[-2] == "<id003>"
    longer = CAPTION[: CAPTION.index(" ", len(cut) + 2)]
    assert not backbone.fits(fill_prompt(TEMPLATE, "<id003>", longer)), "and at the last that has room"
    for short in ("red hair,  blue shoes", ""):
        assert fit_description(TEMPLATE, "<id003>", short, backbone.fits) == short, "what fits stays as it is"
    assert fit_description("Person {identifier}", "<id003>", CAPTION, backbone.fits) == CAPTION, "what is not used too"


def test_a_description_without_spaces_is_cut_between_letters():
    def fits(prompt: str) -> bool:
        return len(prompt) <= 20

    assert fit_description(TEMPLATE, "[V]", "長" * 50, fits) == "長" * 16
    assert fit_description("a" * 30 + TEMPLATE, "[V]", "some words", fits) == ""


def test_training_has_the_cut_description_and_says_so_once(make_config, puppet_data, prepared, capsys, tmp_path):
    data = shutil.copytree(puppet_data / "person", tmp_path / "person")
    entries = [json.loads(line) | {"prompt": CAPTION} for line in (data / "manifest.jsonl").read_text().splitlines()]
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, entries)))
    settings = {"data__train": f"[{data}]", "data__prompt": TEMPLATE, "train__max_steps": 1}
    config = make_config("reference", model__control_from=prepared, **settings)
    stage, samples, _ = tiny.make_stage(config)
    said = [line for line in capsys.readouterr().out.splitlines() if "description of 'held-out'" in line]
    assert len(said) == 1 and said[0].startswith("note: the description of 'held-out' is cut after ")
    word = stage.models.identifiers["held-out"]
    assert all(word in read(stage.models.backbone, prompt) for prompt in samples.prompts() if "blue hair" in prompt)
    train(config)
    metadata, _ = read_weights(config.output_dir)
    assert CAPTION.startswith(metadata["description"]) and metadata["description"] != CAPTION


def test_sampling_cuts_the_description_and_says_what_a_long_prompt_loses(backbone, capsys):
    def prompt(text: str, description: str = "") -> str:
        return prompt_for(SampleConfig(prompt=text), {"anna": "<id003>"}, TEMPLATE, "anna", description, backbone.fits)

    assert read(backbone, prompt("", CAPTION))[-2] == "<id003>"
    assert "note: the description of 'anna' is cut after" in capsys.readouterr().out
    assert prompt("{identifier} in the rain") == "<id003> in the rain" and not capsys.readouterr().out
    lost, kept = CAPTION + " {identifier}", "{identifier} " + CAPTION
    assert "<id003>" not in read(backbone, prompt(lost))
    said = "note: sample.prompt: is longer than the text encoder reads; its end is cut off"
    assert capsys.readouterr().out == f"{said}, and '<id003>', which calls anna, with it\n"
    assert "<id003>" in read(backbone, prompt(kept)) and capsys.readouterr().out == f"{said}\n"
