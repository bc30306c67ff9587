"""Two processes on one machine (gloo): the same training as one process with the double batch, and the launching of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.config import save_config
from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.media.images import read_image
from meta_animator.puppets.rendering.render import render_clip
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train
from meta_animator.training.sharding import take_sharding_request
from meta_animator.weights import load_tensors
from tests import tiny

ROOT = Path(__file__).parents[1]
STEPS = 21  # seven of each task
SETTINGS = {  # an epsilon far above the rounding of gradients, whose first steps Adam would else make large
    "train__max_steps": STEPS, "train__checkpoint_every": 100, "train__log_every": 1, "train__learning_rate": 1e-3,
    "train__adam_epsilon": 1e-4, "train__gradient_accumulation_steps": 2, "loss__image_weight": 0.5,
    "loss__face_weight": 0.5, "loss__start_step": 0, "loss__max_noise_level": 0.6, "data__cache_latents": False,
}  # fmt: skip


def written(config) -> str:
    """The path of the config's YAML."""
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    path = Path(config.output_dir).with_suffix(".yaml")
    save_config(config, path)
    return str(path)


def environment(processes: int, **variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("ACCELERATE_CONFIG_FILE", "LOCAL_RANK")}
    own = {"NUM_PROCESSES": str(processes), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "VIRTUAL_ENV": sys.prefix}
    return kept | own | variables


def launch(python: Path, config, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python, "scripts/launch.py", "scripts/train.py", written(config)], cwd=ROOT, env=environment(2, **variables),
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def lines(config) -> list[dict]:
    path = Path(config.output_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def end(config) -> dict[str, torch.Tensor]:
    return load_tensors(list_checkpoints(Path(config.output_dir))[-1] / "model.safetensors")


def start_weights(make_config, **settings) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in tiny.make_stage(make_config(**settings))[0].trainable_state().items()}


@pytest.fixture
def some_faceless(tmp_path) -> str:
    """Four people, two of whom never show their faces."""
    with DatasetWriter(tmp_path / "faces") as writer:
        for person in range(4):
            layers = render_clip(person, person, 4, 12, (tiny.SIZE, tiny.SIZE))
            for layer in layers if person % 2 else []:
                layer.keypoints[:, 2] *= np.arange(133) >= 91  # the hands remain
            writer.add(id=f"p{person}", identity=f"p{person}", layers=layers, fps=12)
    return f"[{tmp_path / 'faces'}]"


@pytest.mark.timeout(900)
def test_two_processes_equal_one_with_the_double_batch(make_config, some_faceless, warm):
    one = make_config(name="one", train__batch_size=4, data__train=some_faceless, **SETTINGS)
    two = make_config(name="two", train__batch_size=2, data__train=some_faceless, **SETTINGS)
    train(one)
    answer = launch(warm, two)
    assert answer.returncode == 0, answer.stderr[-500:]
    begin = start_weights(make_config, **SETTINGS)
    single, double = end(one), end(two)
    assert single.keys() == double.keys() == begin.keys()
    update = torch.cat([(single[n] - begin[n]).flatten() for n in begin])
    difference = torch.cat([(double[n] - single[n]).flatten() for n in begin])
    assert update.norm() > 0.1
    assert difference.norm() / update.norm() <= 1e-4
    assert len(lines(one)) == len(lines(two)) == STEPS
    for ours, theirs in zip(lines(one), lines(two), strict=True):
        names = ours.keys() - {"task", "gated_images", "faces"}  # counts are per process
        assert theirs.keys() == ours.keys() and [theirs[k] for k in names] == pytest.approx([ours[k] for k in names], rel=1e-3)
    assert sum("face" in line for line in lines(one)) > 5, "visible faces took part"
    assert {line["faces"] == line["gated_images"] for line in lines(one)} == {True, False}, "and faceless images"


@pytest.mark.timeout(900)
def test_all_processes_stop_where_one_measures(make_config, prepared, warm):
    """With a learning rate of 0 nothing gets better. The main process measures and shows a preview."""
    settings = {"model__control_from": prepared, "data__held_out": 1, "train__early_stop": 2, "train__learning_rate": 0}
    settings |= {"train__max_steps": 50, "train__measure_every": 1, "train__checkpoint_every": 100, "train__preview_every": 2}
    config = make_config("reference", "early", **settings)
    answer = launch(warm, config)
    assert answer.returncode == 0, answer.stderr[-900:]
    assert [line["step"] for line in lines(config) if "held_out_error" in line] == [1, 2, 3]
    assert [path.name for path in list_checkpoints(Path(config.output_dir))] == ["step-000001", "step-000003"]
    assert answer.stdout.count("the run ends here") == 1


FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # what accelerate makes of configs/accelerate/fsdp2.yaml


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["control", "motion", "reference"])
def test_shared_out_weights_train_as_whole_ones(make_config, prepared, warm, stage):
    """Two processes with FSDP2, continued with it (stage 0) and then without, against one process with the double batch."""
    settings = SETTINGS | {"train__max_steps": 6, "train__ema_decay": 0.5, "train__preview_every": 2}
    ends = [2, 4] if stage == "control" else [4]
    if stage != "control":
        settings |= {"stage": stage, "model__control_from": prepared, "train__preview_every": 0}
    if stage == "reference":
        settings |= {"model__person_lora_rank": 2}
    one, two = (make_config(name=name, train__batch_size=4, **settings) for name in ("one", "two"))
    train(one)
    for steps in ends:
        part = make_config(name="two", train__batch_size=2, **(settings | {"train__max_steps": steps}))
        answer = launch(warm, part, **FSDP2)
        assert answer.returncode == 0 and "shared out over 2 processes" in answer.stdout, answer.stderr[-500:]
    assert list_checkpoints(Path(two.output_dir))[-1].name == "step-000004"
    train(two)
    if stage == "control":  # previews of averaged weights, gathered for it
        for name in ("step-000002.png", "step-000004.png"):
            shown = (read_image(Path(c.output_dir) / "previews" / name).astype(int) for c in (one, two))
            assert np.abs(next(shown) - next(shown)).max() <= 2
    begin = start_weights(make_config, **settings)
    for file in ("model.safetensors", "ema.safetensors"):
        single, shared = (load_tensors(list_checkpoints(Path(c.output_dir))[-1] / file) for c in (one, two))
        assert single.keys() == shared.keys()
        update = torch.cat([(single[n] - begin[n]).flatten() for n in single])
        difference = torch.cat([(shared[n] - single[n]).flatten() for n in single])
        assert update.norm() > 1e-3
        assert difference.norm() / update.norm() <= 1e-4


@pytest.mark.timeout(900)
def test_another_number_of_processes_continues_the_same_order(make_config, warm):
    """Three steps of two processes, then one process with twice the micro-batches, against one process throughout."""
    settings = SETTINGS | {"train__gradient_accumulation_steps": 1}
    whole = make_config(name="whole", train__batch_size=4, **(settings | {"train__max_steps": 6}))
    first = make_config(name="parts", train__batch_size=2, **(settings | {"train__max_steps": 3}))
    wrong = make_config(name="parts", train__batch_size=2, **(settings | {"train__max_steps": 6}))
    then = make_config(
        name="parts", train__batch_size=2, **(settings | {"train__max_steps": 6, "train__gradient_accumulation_steps": 2})
    )
    train(whole)
    assert launch(warm, first).returncode == 0
    with pytest.raises(UserError, match="was trained with 4 samples per step, now there are 2"):
        train(wrong)
    train(then)
    begin, one, two = start_weights(make_config, **settings), end(whole), end(then)
    update = torch.cat([(one[n] - begin[n]).flatten() for n in begin])
    difference = torch.cat([(two[n] - one[n]).flatten() for n in begin])
    assert difference.norm() / update.norm() <= 1e-4


@pytest.mark.timeout(900)
def test_tasks_of_their_own_do_not_hang_and_leave_unused_loras_alone(make_config, warm):
    config = make_config(name="own", **(SETTINGS | {"train__max_steps": 1, "data__task_per_rank": True}))
    answer = launch(warm, config)
    assert answer.returncode == 0, answer.stderr[-500:]
    folder = list_checkpoints(Path(config.output_dir))[-1]
    stepped = {name.split(".")[1] for name in load_tensors(folder / "optimizer.safetensors") if name.startswith("lora.")}
    tasks = read_json(folder / "manifest.json")["tasks"]
    assert len(stepped) == 2 < len(tasks), "two ranks have a task each; the third LoRA has no gradient on either"


# starting and stopping them

RANKS = """
import os, pathlib, sys, time
import torch
from meta_animator import cli, config
from meta_animator.stages import train as training

class Trainer:
    def __init__(self, config, accelerator, *rest):
        self.late, self.left = not accelerator.is_main_process, pathlib.Path(config.output_dir) / "left"
    def run(self):
        if self.late:
            time.sleep(1)
            self.left.touch()

def main():
    nothing = training.Training(stage=None, samples=None, plan=None)
    training.train(run, stages={"base_face": lambda config, accelerator: nothing})
    print((pathlib.Path(run.output_dir) / "left").exists(), torch.distributed.is_initialized())

training.Trainer = Trainer
for path in sys.argv[1:]:
    run, ranks = config.load_config(path), []
    for rank in "01":
        if not (child := os.fork()):
            os.environ.update(RANK=rank, LOCAL_RANK=rank)
            for number in (1, 2):
                os.dup2(os.open(f"{run.output_dir}/{number}-{rank}", os.O_WRONLY | os.O_CREAT), number)
            try:
                cli.run(main)
            except SystemExit as end:
                os._exit(end.code)
            os._exit(0)
        ranks.append(child)
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks))
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, tiny_base, puppet_data):
    """{what: exit code, output and errors of each of two processes} of trainings that do nothing, in processes that no launcher
    ends."""
    folder, wrong = tmp_path_factory.mktemp("ranks"), {"data__train": "[nowhere]"}
    configs = {
        name: tiny.make_config(folder / name, tiny_base, puppet_data, "base_face", **more)
        for name, more in {"works": {}, "fails": wrong}.items()
    }
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    done = subprocess.run(
        [sys.executable, "-c", RANKS, *map(written, configs.values())], cwd=ROOT, capture_output=True, text=True, check=True,
        env=environment(2, ACCELERATE_USE_CPU="true", TORCH_CPP_LOG_LEVEL="ERROR", **group), timeout=200,
    )  # fmt: skip
    return {
        name: [(int(code), *((folder / name / f"{n}-{k}").read_text() for n in (1, 2))) for k, code in enumerate(codes.split())]
        for name, codes in zip(configs, done.stdout.splitlines(), strict=True)
    }


def test_processes_leave_their_group_together(ranks):
    for code, output, errors in ranks["works"]:
        assert code == 0 and output.splitlines()[-1] == "True False", errors[-900:]


def test_what_stops_the_main_process_stops_the_others(ranks):
    for code, output, errors in ranks["fails"]:
        assert code == 2 and output == "" and len(errors.splitlines()) == 1, errors[-900:]
        assert errors.startswith("error: nowhere/manifest.jsonl: no such file"), errors


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_through_shell_script_and_launcher_saves_and_leaves_none_behind(make_config, number):
    """SIGTERM to the script alone, as `kill` and Slurm's batch step send it; Ctrl-C to the whole group."""
    config = make_config(train__max_steps=5000, train__checkpoint_every=5000, data__num_workers=1, data__cache_latents=False)
    process = subprocess.Popen(
        ["bash", "Step0_train_BaseCtrl_LoRA.sh", written(config)], cwd=ROOT, env=environment(2), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 240
    while len(lines(config)) < 3:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 4, "two ranks, each with a data-loader process"
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err[-900:]
    said = [line for line in err.replace("\r", "\n").splitlines() if "stopped: " in line or "error" in line.lower()]
    assert len(said) == 1 and said[0].startswith(f"stopped: {number.name} after step"), err[-900:]
    assert list_checkpoints(Path(config.output_dir))[-1].name == f"step-{lines(config)[-1]['step']:06d}"
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


SRUN = """#!/usr/bin/env bash
shift  # --kill-on-bad-exit=1
for node in 0 1; do SLURM_NODEID=$node "$@" & started+=($!); done
code=0; for one in "${started[@]}"; do wait $one || code=$?; done; exit $code
"""


@pytest.mark.timeout(900)
def test_two_machines_by_the_slurm_example(make_config, tmp_path):
    """Slurm's two programs are stand-ins, the two machines are this one; the rest is configs/accelerate as it is."""
    one = make_config(name="one", train__max_steps=3, train__batch_size=4)
    two = make_config(name="two", train__max_steps=3)
    train(one)
    for name, code in (("srun", SRUN), ("scontrol", "#!/usr/bin/env bash\necho localhost\necho otherhost\n")):
        (tmp_path / name).write_text(code)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "both", "MAIN_PROCESS_PORT": str(port)}
    done = subprocess.run(
        ["bash", "configs/accelerate/slurm.sh", written(two)], cwd=ROOT, capture_output=True, text=True, check=False,
        env=environment(2, ACCELERATE_USE_CPU="true", **variables), timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-900:]
    assert [line["loss"] for line in lines(two)] == pytest.approx([line["loss"] for line in lines(one)], rel=1e-3)


FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_understands_its_config_files(path, monkeypatch):
    """What `accelerate launch` would start its processes with."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(path), "train.py"]))
    count = {"one_gpu": 1, "eight_gpus": 8, "two_nodes": 16, "fsdp2": 8}[path.stem]
    assert arguments.num_processes == count
    if count == 1:
        made = prepare_simple_launcher_cmd_env(arguments)[1]
    else:
        made = prepare_multi_gpu_env(arguments)
        assert str(arguments.nproc_per_node) == "8"
    assert made["ACCELERATE_MIXED_PRECISION"] == "no"
    shared = ("true", "2") if path.stem == "fsdp2" else (None, None)
    assert (made.get("ACCELERATE_USE_FSDP"), made.get("FSDP_VERSION")) == shared


@pytest.mark.parametrize(
    ("variables", "settings", "said"),
    [
        ({"FSDP_VERSION": "1"}, {}, "accelerate's fsdp_version is 1; only 2 can be used"),
        ({}, {"train__mixed_precision": "fp16"}, "train.mixed_precision: fp16 does not go with FSDP2"),
        ({}, {"train__optimizer": "adamw8bit"}, "train.optimizer: adamw8bit does not go with FSDP2"),
        ({}, {"train__ema_device": "cpu"}, "train.ema_device: leave it empty; with FSDP2"),
        ({}, {"train__compile": "regional"}, "train.compile: leave it empty; it does not go with FSDP2"),
        ({}, {"data__task_per_rank": True}, "data.task_per_rank: set it to false"),
        ({}, {"stage": "base_vae"}, "stage 'base_vae' does not go with FSDP2"),
    ],
)
def test_what_does_not_go_with_shared_out_weights_is_said(make_config, monkeypatch, variables, settings, said):
    for name, value in (FSDP2 | {"WORLD_SIZE": "2"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        config = make_config(**settings)
        take_sharding_request(config.stage, config.train, config.data)


@pytest.mark.timeout(900)
def test_two_processes_sample_the_clip_of_one(make_config, prepared, puppet_data, capsys):
    settings = {
        "model__control_from": prepared, "sample__reference": puppet_data / "person", "sample__identity": "p0",
        "sample__driving": puppet_data / "train", "sample__num_inference_steps": 3, "sample__guidance_scale": 1.5,
        "sample__frame_batch_size": 1, "sample__shared_noise": 0.5,
    }  # fmt: skip
    one, two = (make_config("sample", name, **settings) for name in ("one", "two"))
    alone = sample(one)
    run = subprocess.run(
        ["bash", "Step3_sample.sh", written(two)], cwd=ROOT, env=environment(2), capture_output=True, text=True, check=False,
        timeout=400,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "note: 2 processes share 4 windows\n" in run.stdout and "share" not in capsys.readouterr().out
    assert run.stdout.count("wrote ") == 1 and (Path(two.output_dir) / "animation.mp4").is_file()
    frames = [sorted((Path(config.output_dir) / "frames").glob("*.png")) for config in (one, two)]
    assert len(frames[0]) == 4 and [f.read_bytes() for f in frames[0]] == [f.read_bytes() for f in frames[1]], alone
