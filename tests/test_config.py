"""YAML and overrides to a RunConfig, and the one line that each mistake earns."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from meta_animator.config import idle_settings, load_config, save_config, to_yaml
from meta_animator.entry import config_from_arguments
from meta_animator.errors import UserError
from meta_animator.fields import all_fields, keys_of
from meta_animator.settings import STAGES, RunConfig
from meta_animator.values import list_argument

ROOT = Path(__file__).parents[1]
DESCRIBE = "scripts/dev/describe_config.py"
RUNS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "accelerate"]


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("stage: control\ntrain:\n  max_steps: 7\nsample:\n  tasks: {canny: 0.5}\n")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_then_file_then_overrides(config_file):
    config = load_config(config_file, ["train.max_steps=8", "model.tasks=[dwpose,canny]", "train.max_steps=9"])
    assert (config.train.max_steps, config.model.tasks) == (9, ["dwpose", "canny"])
    assert config.train.batch_size == RunConfig().train.batch_size
    assert load_config(config_file).train.max_steps == 7


def test_a_dictionary_is_replaced_not_merged(config_file):
    assert load_config(config_file).sample.tasks == {"canny": 0.5}
    assert load_config(config_file, ["sample.tasks={depth: 2}"]).sample.tasks == {"depth": 2.0}


def test_a_dictionary_may_be_filled_through_dots(config_file):
    assert load_config(config_file, ["sample.tasks.depth=2"]).sample.tasks["depth"] == 2.0


def test_nothing_after_the_equals_sign_is_an_empty_text(config_file):
    assert load_config(config_file, ["model.base="]).model.base == ""


def test_loading_changes_no_defaults(config_file):
    load_config(config_file, ["sample.tasks={depth: 2}"])
    assert RunConfig().sample.tasks == {"dwpose": 1.0}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.max_step=1", ["unknown key 'train.max_step'", "did you mean 'train.max_steps'"]),
        ("trian.max_steps=1", ["unknown key 'trian'", "did you mean 'train'"]),
        ("max_steps=1", ["unknown key 'max_steps'", "train.max_steps"]),
        ("train.zzzzzz=1", ["unknown key 'train.zzzzzz'", "max_steps"]),
        ("train.max_steps=many", ["train.max_steps", "many"]),
        ("train.max_steps=0", ["train.max_steps", "0", "below", "1"]),
        ("train.mixed_precision=fp8", ["train.mixed_precision", "'fp8'", "'no', 'fp16', 'bf16'"]),
        ("train=5", ["train", "section"]),
        ("train.max_steps", ["'train.max_steps'", "key=value"]),
    ],
)
def test_a_wrong_override_is_named(config_file, override, parts):
    text = message(config_file, override)
    assert override in text
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("trian:\n  max_steps: 1\n", ["unknown key 'trian'", "'train'"]),
        ("train: 5\n", ["train", "section"]),
        ("train: [1\n", ["not valid YAML"]),
        ("- 1\n- 2\n", ["expected sections"]),
        ("just words\n", ["unknown key 'just words'"]),
        ("train:\n  learning_rate: fast\n", ["train.learning_rate", "fast"]),
        ("train:\n  learning_rate: ${nothing}\n", ["nothing"]),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, parts):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    said = message(path)
    assert str(path) in said
    assert [part for part in parts if part not in said] == []


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert f"{tmp_path}/none.yaml: no such file" in message(tmp_path / "none.yaml")
    assert str(tmp_path) in message(tmp_path)


def test_empty_sections_mean_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("train:\n")
    assert load_config(path) == RunConfig()


def test_what_is_saved_loads_to_an_equal_config(config_file, tmp_path):
    config = load_config(config_file, ["train.learning_rate=3e-6", "data.train=[a, 'b c']", "sample.loras={x/y: 0.3}"])
    save_config(config, tmp_path / "saved.yaml")
    again = load_config(tmp_path / "saved.yaml")
    assert again == config and to_yaml(again) == to_yaml(config)


def test_loading_needs_no_torch(config_file):
    code = f"import sys, meta_animator.config as c; c.load_config({str(config_file)!r}); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_included_files_come_first_and_sections_join(tmp_path, config_file):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "base.yaml").write_text("train: {max_steps: 1, batch_size: 3}\nsample: {tasks: {seg: 1}}\n")
    (folder / "mine.yaml").write_text("include: [base.yaml, ../run.yaml]\ntrain: {learning_rate: 0.5}\n")
    config = load_config(folder / "mine.yaml", ["train.batch_size=4"])
    assert (config.train.max_steps, config.train.batch_size, config.train.learning_rate) == (7, 4, 0.5)
    assert config.sample.tasks == {"canny": 0.5}
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_a_wrong_key_in_an_included_file_names_that_file(tmp_path):
    (tmp_path / "base.yaml").write_text("trian: {max_steps: 1}\n")
    (tmp_path / "mine.yaml").write_text("include: base.yaml\n")
    assert str(tmp_path / "base.yaml") in message(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("include", "part"), [("none.yaml", "none.yaml: no such file"), ("mine.yaml", "round to itself"), ("{a: 1}", "a file name")]
)
def test_what_cannot_be_included_is_one_line(tmp_path, include, part):
    (tmp_path / "mine.yaml").write_text(f"include: {include}\n")
    text = message(tmp_path / "mine.yaml")
    assert part in text and "include" in text


def test_every_field_is_described_in_the_table():
    fields = all_fields()
    assert len(fields) > 90 and all(all((field.key, field.kind, field.default, field.meaning)) for field in fields)
    assert all(field.stages and {*field.stages} <= {*STAGES} for field in fields)
    made = subprocess.run([sys.executable, DESCRIBE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout == (ROOT / "configs" / "FIELDS.md").read_text(), f"run {DESCRIBE} > configs/FIELDS.md"


def shown_by_help(monkeypatch, capsys, *arguments, stages=("control", "motion", "reference")):
    """{key: the rest of its line} of the fields that --help describes"""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments), "--help"])
    with pytest.raises(SystemExit, match="0"):
        config_from_arguments("", *stages)
    return dict(re.findall(r"^  ([a-z0-9_.]+): (\w.* = .*)$", capsys.readouterr().out, re.MULTILINE))


def test_help_shows_what_a_stage_uses(monkeypatch, capsys, config_file):
    ask = functools.partial(shown_by_help, monkeypatch, capsys)
    assert list(ask("--all")) == [field.key for field in all_fields()]
    (config_file.parent / "mine.yml").write_text("include: run.yaml\nstage: motion\n")
    for arguments, stage in (
        ([config_file], "control"), ([config_file.parent / "mine.yml"], "motion"), ([config_file, "stage=base_unet"], "base_unet")
    ):
        assert list(ask(*arguments)) == [field.key for field in all_fields() if stage in field.stages]
    assert {"extract.tasks", "model.base"} <= ask(stages=["extract"]).keys() <= ask("--all").keys() - {"seed", "train.max_steps"}
    training = ask("none.yaml")  # a config that is not there is said when a run is asked for
    assert training["train.shared_noise"] == "float = 0.0, 0 to 1 [motion]"
    assert training["train.max_steps"] == "int = 1000, 1 or more"
    assert not {"train.control_drop", "sample.eta", "model.base_from"} & training.keys()
    assert "[control" not in str(ask(config_file)), "marks say nothing of one stage"


def test_what_a_stage_does_not_use_earns_a_note(tmp_path, config_file):
    own, saved = tmp_path / "own.yaml", tmp_path / "saved.yaml"
    own.write_text("include: run.yaml\ntrain: {max_steps: 1, control_drop: 0.1}\ndata: {puppets: {seed: 1}, num_frames: 2}\n")
    save_config(load_config(own), saved)
    arguments = ["sample.tasks.depth=1", "train.max_steps=2", "sample.loras={}", "data.prompt='a = b'"]
    assert idle_settings(own, arguments, "control") == [
        f"{own}: train.control_drop, data.num_frames: stage control does not use them",
        "argument 'sample.tasks.depth=1': stage control does not use it",
        "argument 'sample.loras={}': stage control does not use it",
    ]
    assert idle_settings(saved, [], "control") == [], "which names every field"
    assert idle_settings(config_file, [], "control") == [f"{config_file}: sample.tasks: stage control does not use it"]
    assert idle_settings(config_file, ["seed=1"], "extract")[1:] == ["argument 'seed=1': stage extract does not use it"]


def test_the_note_is_said_and_the_run_goes_on(monkeypatch, capsys, config_file):
    monkeypatch.setattr(sys, "argv", ["train.py", str(config_file), "sample.eta=1"])
    assert config_from_arguments("").sample.eta == 1
    said = capsys.readouterr().out
    assert "note: argument 'sample.eta=1': stage control does not use it\n" in said and said.count("note: ") == 2
    monkeypatch.setenv("RANK", "1")
    config_from_arguments("")
    assert capsys.readouterr().out == "", "one of several processes says it"
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("META_ANIMATOR_SHARED_SETTINGS", "1")
    config_from_arguments("")
    assert "sample.eta" not in capsys.readouterr().out, "a script gives it to all stages"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_shipped_config_sets_what_its_stage_does_not_use(path):
    assert idle_settings(path, [], load_config(path).stage) == []


def test_a_dry_run_shows_the_settings_that_the_stage_uses(config_file, tmp_path):
    config = load_config(config_file, ["sample.eta=0.5", "train.shared_noise=0.5", "train.batch_size=3"])
    text = to_yaml(config, used=True)
    (tmp_path / "shown.yaml").write_text(text)
    again = load_config(tmp_path / "shown.yaml")
    assert (again.train.batch_size, again.train.shared_noise, again.sample) == (3, 0.0, RunConfig().sample)
    assert "sample:" not in text and "\nextract:" not in text and "root:" in text
    assert list(keys_of(yaml.safe_load(text))) == [field.key for field in all_fields() if "control" in field.stages]
    assert list(keys_of(yaml.safe_load(to_yaml(config)))) == [field.key for field in all_fields()]


def test_yaml_executes_nothing(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(f"output_dir: !!python/object/apply:os.system ['touch {tmp_path}/executed']\n")
    assert "not valid YAML" in message(path)
    path.write_text("output_dir: ${oc.create:x}\nmodel: {backbone: os.system}\n")
    message(path)
    assert not (tmp_path / "executed").exists()


LITERAL = {
    "output_dir=2024_01_15": "2024_01_15",
    "sample.identity=007": "007",
    "sample.identity=no": "no",
    "sample.identity=~": "~",
    "sample.identity=null": "null",
    "sample.identity=1e3": "1e3",
    "sample.prompt=a woman #1 fan {identifier}": "a woman #1 fan {identifier}",
    "sample.prompt={identifier}": "{identifier}",
    "sample.prompt=a: b, [c] = ${d}": "a: b, [c] = ${d}",
    "sample.prompt='quoted, all'": "quoted, all",
    'sample.prompt="a" and "b"': '"a" and "b"',
    "data.train=[C:/a, b: c, 'd, e', 007, no]": ["C:/a", "b: c", "d, e", "007", "no"],
    "data.train=[]": [],
    "sample.loras={C:/a b: 1, '007': .5, d: e: 2}": {"C:/a b": 1.0, "007": 0.5, "d: e": 2.0},
    "sample.loras.x/y.z=2": {"x/y.z": 2.0},
}


@pytest.mark.parametrize("override", LITERAL)
def test_a_text_is_taken_as_it_stands_and_survives_saving(config_file, tmp_path, override):
    config = load_config(config_file, [override])
    value = config
    for name in override.partition("=")[0].removesuffix(".x/y.z").split("."):
        value = getattr(value, name)
    assert value == LITERAL[override]
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    "text", ["back\\slash \\${x}", "line\u2028 and \x85 \n \t", "", " ~ ", "\U0001f483 {identifier}", "'", '"a']
)
def test_any_text_survives_saving(tmp_path, text):
    config = RunConfig(output_dir=text)
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_in_a_file_too_the_field_decides_how_a_value_is_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "\ufeffoutput_dir: 2024_01_15\nseed: 1_000\nmodel: {base: 007, vae: null, face: ~}\n"
        "data: {train: [no, 1.50, 2024-01-15], task_weights: {dwpose: 3}, cache_latents: off}\n"
        "train: {learning_rate: 1e-5, max_grad_norm: .inf}\nsample: {identity: yes, output: !!str 1}\n",
        encoding="utf-8",
    )
    config = load_config(path)
    assert (config.output_dir, config.seed, config.model.base, config.model.vae) == ("2024_01_15", 1000, "007", "")
    assert (config.data.train, config.data.task_weights) == (["no", "1.50", "2024-01-15"], {"dwpose": 3})
    assert (config.data.cache_latents, config.model.face) == (False, "")
    assert (config.train.learning_rate, config.train.max_grad_norm) == (1e-5, float("inf"))
    assert (config.sample.identity, config.sample.output) == ("yes", "1")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data: {train: [a, b: c]}", "data.train: expected a text, got a mapping; put it into quotes"),
        ("data: {train: }", "data.train: expected a list such as [a, b], got nothing"),
        ("sample: {prompt: [a, b]}", "sample.prompt: expected a text, got a list; put it into quotes"),
        ("train: {max_steps: 1.5}", "train.max_steps: expected a whole number, got '1.5'"),
        ("train: {learning_rate: .nan}", "train.learning_rate: expected a number, got '.nan'"),
        ("train: {max_steps: 1}\ntrain: {max_steps: 2}", "key 'train' comes twice"),
        ("seed: 1\ntrain: [", "line 2"),
    ],
)
def test_a_value_of_another_kind_in_a_file_is_said(tmp_path, text, part):
    (tmp_path / "wrong.yaml").write_text(text)
    assert part in message(tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("data.train=my", "data.train: expected a list such as [a, b], got 'my'"),
        ("data.train=[a,,b]", "holds an element without a value"),
        ("sample.tasks={dwpose: many}", "sample.tasks: dwpose: expected a number, got 'many'"),
        ("train.max_steps=", "train.max_steps: expected a whole number, got nothing"),
        ("train.max_steps.x=1", "'train.max_steps' has no keys below it"),
    ],
)
def test_a_value_of_another_kind_on_the_command_line_is_said(config_file, override, part):
    assert part in message(config_file, override)


def test_only_paths_of_the_command_line_start_where_the_user_stands(tmp_path, monkeypatch, capsys):
    """Existing or not; a name on the hub stays a name unless there is such a path."""
    there, root = tmp_path / "there", tmp_path / "root"
    (there / "models" / "mine").mkdir(parents=True)
    root.mkdir()
    (root / "run.yaml").write_text("model: {control_from: outputs/step0}\ndata: {cache_dir: cache}\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("META_ANIMATOR_STARTED_IN", str(there))
    arguments = [
        "run.yaml", "output_dir=2024", "data.train=[my, /abs, s3://bucket/set]", "sample.loras={l: 1}", "sample.prompt=my",
        "model.base=models/mine", "model.tokenizer=openai/clip", "model.vae=", "extract.checkpoint=../run",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    config = config_from_arguments("")
    assert (config.output_dir, config.data.train) == (f"{there}/2024", [f"{there}/my", "/abs", "s3://bucket/set"])
    assert (config.sample.loras, config.extract.checkpoint) == ({f"{there}/l": 1.0}, f"{there}/../run")
    assert (config.model.base, config.model.tokenizer, config.model.vae) == (f"{there}/models/mine", "openai/clip", "")
    assert (config.model.control_from, config.data.cache_dir, config.sample.prompt) == ("outputs/step0", "cache", "my")
    monkeypatch.setenv("META_ANIMATOR_STARTED_IN", str(root))
    assert config_from_arguments("").output_dir == "2024"


def test_the_word_no_is_a_choice_although_yaml_reads_it_as_false(tmp_path):
    (tmp_path / "run.yaml").write_text("train: {mixed_precision: no}\n")
    assert load_config(tmp_path / "run.yaml").train.mixed_precision == "no"
    assert load_config(tmp_path / "run.yaml", ["train.mixed_precision=no"]).train.mixed_precision == "no"
    with pytest.raises(UserError, match="is not one of 'no', 'fp16', 'bf16'"):
        load_config(tmp_path / "run.yaml", ["train.mixed_precision=true"])


def test_a_switch_that_has_become_a_choice_still_takes_true_and_false(tmp_path):
    for word, meant in (("true", "limbs"), ("yes", "limbs"), ("false", "no"), ("whole", "whole")):
        (tmp_path / "run.yaml").write_text(f"sample: {{fit_pose: {word}}}\n")
        assert load_config(tmp_path / "run.yaml").sample.fit_pose == meant
        assert load_config(tmp_path / "run.yaml", ["sample.fit_pose=no", f"sample.fit_pose={word}"]).sample.fit_pose == meant
    assert "'no', 'whole', 'limbs'" in message(tmp_path / "run.yaml", "sample.fit_pose=maybe")


def test_the_published_settings_are_those_of_the_paper_and_its_code():
    """Meta-Animator's project page and released scripts."""
    one, move, tune, sample = (load_config(ROOT / "configs" / "sd15" / "published" / f"step{k}.yaml") for k in range(4))
    assert [run.train.max_steps for run in (one, move, tune)] == [50_000, 10_000, 500]
    for run in (one, move, tune):
        assert (run.train.batch_size, run.train.learning_rate, run.train.optimizer) == (8, 1e-5, "adamw")
        assert (run.data.height, run.data.width, run.model.lora_rank, run.data.pose_drop) == (512, 512, 128, 0)
        assert run.data.prompt_drop == 0.01 and not run.data.task_weights
    assert len(one.model.tasks) == len(tune.model.tasks) == 9 and one.train.trainable == tune.train.trainable == "all"
    assert (tune.data.auxiliary, tune.data.auxiliary_sets) == (["data/people"], 20)
    assert (move.data.num_frames, move.model.tasks, move.train.shared_noise) == (16, ["dwpose"], 0)
    assert (sample.sample.sampler, sample.sample.num_inference_steps, sample.sample.guidance_scale) == ("ddim", 50, 7.5)
    assert (sample.sample.init_noise, sample.sample.shared_noise, sample.sample.fit_pose) == ("inversion", 1.0, "no")
    assert [move.model.control_from, tune.model.control_from] == [one.output_dir] * 2
    assert (sample.model.control_from, sample.model.motion_from) == (tune.output_dir, move.output_dir)


def test_a_list_as_an_argument_comes_back_as_it_went(config_file):
    names = ["/x/Müller", "/x/李", "/x/a, b", "/x/it's", '/x/the "one"', "/x/[c]", "/x/𠮷"]
    assert load_config(config_file, [f"data.train={list_argument(names)}"]).data.train == names
    with pytest.raises(UserError, match="holds both kinds of quotes"):
        list_argument(["it's the \"one\""])


def test_a_seed_of_puppets_is_no_negative_number(config_file):
    with pytest.raises(UserError, match=r"data.puppets.seed: -1 is below the smallest allowed value 0"):
        load_config(config_file, ["data.puppets.seed=-1"])


def test_a_tilde_is_the_home_of_the_user_wherever_they_stand(tmp_path, config_file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert load_config(config_file, ["data.cache_dir=~/c", "data.train=[~/d]"]).data.cache_dir == "/home/anna/c"
    assert load_config(config_file, ["data.train=[~/d, e]"]).data.train == ["/home/anna/d", "e"]
    (tmp_path / "own.yaml").write_text("stage: control\ndata: {cache_dir: ~/c}\n")
    assert load_config(tmp_path / "own.yaml").data.cache_dir == "/home/anna/c"
