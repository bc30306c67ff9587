"""What a training does when the machine or the data misbehave: it saves what is good, and says one line."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import psutil
import pytest
import torch

from meta_animator.checkpoints.files import find_checkpoint, list_checkpoints
from meta_animator.config import save_config
from meta_animator.errors import Stopped, UserError
from meta_animator.json_files import read_json
from meta_animator.stages import train as training_stages
from meta_animator.stages.denoising import DenoisingStage
from meta_animator.stages.train import train
from meta_animator.training import engine, optim
from meta_animator.training.lock import lock_folder
from meta_animator.training.memory_advice import out_of_memory
from meta_animator.training.trackers import Tracker
from meta_animator.weights import load_tensors

ROOT = Path(__file__).parents[2]


def steps(config) -> list[dict]:
    return [json.loads(line) for line in (Path(config.output_dir) / "metrics.jsonl").read_text().splitlines()]


def last(config) -> Path:
    return list_checkpoints(Path(config.output_dir))[-1]


@pytest.fixture
def disturbed(monkeypatch):
    """disturbed(step, what): `what(loss)` takes the loss's place in that step of every stage-0 training."""
    plans = {}
    original = DenoisingStage.forward

    def forward(self, batch, step):
        loss, logs = original(self, batch, step)
        return (plans[step](loss) if step in plans else loss), logs

    monkeypatch.setattr(DenoisingStage, "forward", forward)
    return lambda step, what: plans.__setitem__(step, what)


@pytest.mark.parametrize(("value", "fused_on"), [(float("nan"), ()), (float("inf"), ()), (float("nan"), ("cpu",))])
def test_a_step_without_a_finite_gradient_is_skipped_and_counted(make_config, disturbed, monkeypatch, value, fused_on):
    """By the loop, or (which a GPU does) by the optimizer itself."""
    monkeypatch.setattr(optim, "FUSED_ON", fused_on)
    disturbed(2, lambda loss: loss * value)
    config = make_config(train__max_steps=5, train__checkpoint_every=1, train__keep_checkpoints=9, train__ema_decay=0.9)
    train(config)
    for file in ("model", "ema", "optimizer"):
        two, three, four = (
            load_tensors(Path(config.output_dir) / "checkpoints" / f"step-{k:06d}" / f"{file}.safetensors") for k in (2, 3, 4)
        )
        assert all(torch.equal(two[name], three[name]) for name in two)
        assert not any(three[name].any() for name in three.keys() - two.keys()), "at most fresh momenta"
        assert any(not torch.equal(three[name], four[name]) for name in two)
    lines = steps(config)
    assert [line.get("skipped_steps") for line in lines] == [None, None, 1, None, None]
    assert lines[2]["loss"] is None and read_json(last(config) / "manifest.json")["skipped_steps"] == 1


def test_skipped_steps_are_forgiven_only_so_often_and_over_resumes(make_config, disturbed):
    for step in (1, 3, 4):
        disturbed(step, lambda loss: loss * float("nan"))
    settings = {"train__checkpoint_every": 1, "train__max_skipped_steps": 2}
    train(make_config(train__max_steps=3, **settings))
    config = make_config(train__max_steps=8, **settings)
    with pytest.raises(UserError, match=r"not finite at step 5 .*2 steps were skipped.*step-000004, is good") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert all(torch.isfinite(w).all() for w in load_tensors(last(config) / "model.safetensors").values())


def test_out_of_memory_names_the_knobs_in_order(make_config, disturbed):
    def burst(loss):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand so on")

    disturbed(2, burst)
    with pytest.raises(UserError) as caught:
        train(make_config(train__batch_size=4, train__checkpoint_every=1, train__ema_decay=0.9))
    text = str(caught.value)
    assert "\n" not in text and "out of memory at step 3" in text
    knobs = [
        "train.gradient_checkpointing=true", "train.batch_size=2 with train.gradient_accumulation_steps=2",
        "train.mixed_precision=bf16", "train.ema_device=cpu", "loss.image_weight=0", "data.height",
    ]  # fmt: skip
    assert sorted(text.index(knob) for knob in knobs) == [text.index(knob) for knob in knobs]
    assert "adamw8bit" not in text, "a run that has saved its optimizer goes on with it"
    text = out_of_memory(make_config(train__batch_size=3), 1, sharded=False)
    assert "train.batch_size=1 with train.gradient_accumulation_steps=3, " in text and "train.optimizer=adamw8bit" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_ends_equal(make_config, disturbed, number):
    whole = make_config(name="whole", train__max_steps=6)
    train(whole)

    def ask_to_stop(loss):
        os.kill(os.getpid(), number)
        return loss

    disturbed(1, ask_to_stop)
    stopped = make_config(name="stopped", train__max_steps=6)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=rf"{number.name} after step 2, which is saved") as caught:
        train(stopped)
    assert caught.value.signal_number == number and last(stopped).name == "step-000002"
    assert signal.getsignal(number) is before
    train(stopped)
    assert steps(whole) == steps(stopped)
    ends = [load_tensors(last(config) / "model.safetensors") for config in (whole, stopped)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_two_runs_in_one_folder_are_refused(make_config, disturbed):
    config = make_config(train__max_steps=2)
    said = []

    def second_run(loss):
        pattern = rf"another run is writing here \(process {os.getpid()} on .*another output_dir"
        with pytest.raises(UserError, match=pattern) as caught:
            train(config)
        said.append(str(caught.value))
        return loss

    disturbed(1, second_run)
    train(config)
    assert len(said) == 1 and len(steps(config)) == 2
    train(config)


def test_the_page_is_written_as_the_run_goes(make_config, disturbed, monkeypatch):
    """Before the first checkpoint, too; beside it, so that step 2 may have begun before step 1 is on it."""
    monkeypatch.setattr(engine, "PAGE_SECONDS", 0)
    config = make_config(train__max_steps=4, train__checkpoint_every=4)
    seen = []

    def look(loss):
        assert not list_checkpoints(Path(config.output_dir))
        seen.append((Path(config.output_dir) / "index.html").read_text())
        return loss

    disturbed(2, look)
    train(config)
    assert "step 1 of 4" in seen[0] or "step 2 of 4" in seen[0]
    assert "step 4 of 4" in (Path(config.output_dir) / "index.html").read_text()


def hold_back(monkeypatch, until) -> None:
    """Checkpoints are written, but not before `until` is set."""
    original = engine.save_checkpoint
    monkeypatch.setattr(engine, "save_checkpoint", lambda *arguments: until.wait(30) and original(*arguments))


def test_training_goes_on_while_a_checkpoint_is_written_and_it_is_of_its_step(make_config, disturbed, monkeypatch):
    """The checkpoint of step 2 is held back until step 4 is under way."""
    settings = {"train__max_steps": 4, "train__ema_decay": 0.9, "train__checkpoint_every": 2, "train__keep_checkpoints": 9}
    train(whole := make_config(name="whole", **settings))
    until = threading.Event()
    hold_back(monkeypatch, until)
    late = make_config(name="late", **settings)

    def let_go(loss):
        assert len(steps(late)) == 3 and not list_checkpoints(Path(late.output_dir))
        until.set()
        return loss

    disturbed(3, let_go)
    train(late)
    names = [path.name for path in list_checkpoints(Path(late.output_dir))]
    assert names == ["step-000002", "step-000004"]
    for name in names:
        folders = [Path(config.output_dir) / "checkpoints" / name for config in (late, whole)]
        for file in ("model", "optimizer", "ema"):
            ours, theirs = (load_tensors(folder / f"{file}.safetensors") for folder in folders)
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), (name, file)


def test_a_stop_waits_for_the_checkpoint_that_it_names(make_config, disturbed, monkeypatch):
    until = threading.Event()
    hold_back(monkeypatch, until)
    config = make_config(train__max_steps=5000, train__checkpoint_every=5000)

    def ask_to_stop(loss):
        threading.Timer(0.3, until.set).start()
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    disturbed(1, ask_to_stop)
    with pytest.raises(Stopped, match="after step 2, which is saved"):
        train(config)
    assert last(config).name == "step-000002"
    train(make_config(train__max_steps=2))  # the folder's lock is free


def test_a_checkpoint_that_cannot_be_written_is_no_stop_that_saved(make_config, disturbed, monkeypatch):
    def fail(*_):
        raise UserError("checkpoints: cannot be written (no space left)")

    monkeypatch.setattr(engine, "save_checkpoint", fail)
    disturbed(1, lambda loss: os.kill(os.getpid(), signal.SIGTERM) or loss)
    with pytest.raises(UserError, match="no space left"):
        train(make_config(train__max_steps=5000, train__checkpoint_every=5000))
    with pytest.raises(UserError, match="no space left"):
        train(make_config(name="end", train__max_steps=1))


# through the entry point


def start(config, *arguments: str, prelude: str = "", **variables: str) -> subprocess.Popen:
    path = Path(config.output_dir).with_suffix(".yaml")
    save_config(config, path)
    code = f"import runpy, sys; sys.argv = ['train.py', {str(path)!r}, *{list(arguments)!r}]\n{prelude}\n"
    code += f"runpy.run_path({str(ROOT / 'scripts' / 'train.py')!r}, run_name='__main__')"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def error_lines(text: str) -> list[str]:
    return [line for line in text.replace("\r", "\n").splitlines() if "error" in line.lower() or "Traceback" in line]


def test_a_data_loader_process_that_dies_is_one_line(make_config):
    config = make_config(data__num_workers=1, data__cache_latents=False, train__max_steps=50)
    prelude = """
import os, signal
from meta_animator.data import samples
main, original = os.getpid(), samples.SampleSet.__getitem__
def deadly(self, draw):
    if draw.number >= 6 and os.getpid() != main:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, draw)
samples.SampleSet.__getitem__ = deadly
"""
    process = start(config, prelude=prelude)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err[-900:]
    (line,) = error_lines(err)
    assert "a data-loader process died" in line and "data.num_workers (now 1)" in line


def test_a_data_loader_process_that_dies_while_latents_are_encoded_is_one_line(make_config):
    config = make_config(data__num_workers=1)
    prelude = """
import os, signal
from meta_animator.stages import cache
main, original = os.getpid(), cache.Drawings.__iter__
def deadly(self):
    if os.getpid() != main:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self)
cache.Drawings.__iter__ = deadly
"""
    process = start(config, prelude=prelude)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err[-900:]
    *_, line = error_lines(err)  # after the bar's
    assert "Traceback" not in err and "a data-loader process died" in line and "data.num_workers (now 1)" in line


def test_what_is_wrong_with_the_folder_is_told_before_anything_is_encoded(make_config, monkeypatch):
    train(make_config(train__max_steps=1))
    monkeypatch.setitem(training_stages.STAGES, "control", lambda *how: pytest.fail("was built"))
    with pytest.raises(UserError, match=r"step-000001: its seed is 0, this run's is 7; use another output_dir"):
        train(make_config(seed=7))
    with pytest.raises(UserError, match="was trained with 2 samples per step, now there are 5"):
        train(make_config(train__batch_size=5))
    config = make_config()
    with lock_folder(Path(config.output_dir)), pytest.raises(UserError, match="another run is writing here"):
        train(config)


def test_copies_of_checkpoints_are_left_alone(make_config):
    """Beside the others, under names that a person gives them."""
    config = make_config(train__max_steps=1, train__checkpoint_every=1, train__keep_checkpoints=1)
    train(config)
    home = Path(config.output_dir) / "checkpoints"
    names = ("step-000001.bak", "step-000009-old", "step-000001 (copy)")
    copies = [shutil.copytree(home / "step-000001", home / name) for name in names]
    train(make_config(train__max_steps=3, train__checkpoint_every=1, train__keep_checkpoints=1))
    assert [path.name for path in list_checkpoints(Path(config.output_dir))] == ["step-000003"]
    assert all((copy / "manifest.json").is_file() for copy in copies)


def test_a_step_that_is_past_becomes_the_best_where_it_was_kept(make_config, prepared):
    settings = {"train__checkpoint_every": 1, "train__keep_checkpoints": 2, "train__max_steps": 3}
    settings["model__control_from"] = prepared
    train(make_config("reference", **settings))
    config = make_config("reference", train__best_step=2, **settings)
    train(config)
    assert find_checkpoint(config.output_dir).name == "step-000002"
    with pytest.raises(UserError, match=r"did not keep step 1; name another output_dir, or one of 2, 3"):
        train(make_config("reference", train__best_step=1, **settings))


def test_on_a_disk_without_locks_a_run_is_trained_all_the_same(make_config, monkeypatch, capsys):
    def no_locks(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    config = make_config(train__max_steps=1)
    train(config)
    assert len(list_checkpoints(Path(config.output_dir))) == 1
    assert "this disk knows no locks; see to it yourself" in capsys.readouterr().out


def test_a_run_of_weights_and_biases_is_known_by_its_folder_not_by_the_folders_path(tmp_path, monkeypatch):
    asked = []
    fake = types.SimpleNamespace(init=lambda **how: asked.append(how["id"]) or types.SimpleNamespace(finish=lambda: None))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        (tmp_path / "run").mkdir()
        for _ in range(2):
            Tracker(tmp_path / "run", 0, "mine").close()
        shutil.rmtree(tmp_path / "run")
    first, again, other, other_again = asked
    assert first == again != other == other_again


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(make_config):
    """A limit on the size of files stands in for the disk: the optimizer's state is larger than the model."""
    config = make_config(train__max_steps=4, train__checkpoint_every=1)
    train(make_config(train__max_steps=1))
    (good,) = list_checkpoints(Path(config.output_dir))
    limit = (good / "model.safetensors").stat().st_size // 2
    prelude = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    )
    process = start(config, prelude=prelude)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err[-900:]
    (line,) = error_lines(err)
    assert line.startswith("error: ") and "checkpoints" in line and ("too large" in line or "cannot be written" in line)
    assert list_checkpoints(Path(config.output_dir)) == [good]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_saves_and_leaves_none_behind(make_config, number):
    """As Ctrl-C in a terminal and Slurm send it: to the data-loader processes too."""
    config = make_config(data__num_workers=2, data__cache_latents=False, train__max_steps=5000, train__checkpoint_every=5000)
    process = start(config)
    end = time.monotonic() + 120
    while not (Path(config.output_dir) / "metrics.jsonl").exists() or len(steps(config)) < 3:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not error_lines(err) and f"stopped: {number.name} after step" in err
    assert last(config).name == f"step-{steps(config)[-1]['step']:06d}"
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_read_only_place_is_one_line(make_config):
    """/proc takes no files, whoever asks."""
    process = start(make_config(), "output_dir=/proc/run", "data.cache_latents=false")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err[-900:]
    (line,) = error_lines(err)
    assert line.startswith("error: ") and "/proc/run" in line
