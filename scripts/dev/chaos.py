"""Kill trainings at random moments, start them again, and see whether they end as if nothing had happened.

python scripts/dev/chaos.py [--kills 50] [--seed 0] [--stages control motion reference] [--folder outputs/chaos] [key=value ...]

Settings such as train.compile=regional go to every training.

Each stage is trained once without disturbance, with data-loader processes, averaged weights, gradient accumulation,
gated images and faces. Then it is trained again and again, ended by SIGKILL at a random moment or in the middle of
writing a checkpoint, and continued by the same call. Weights, LoRAs, optimizer state, averages and the lines of
metrics.jsonl must be equal, bit for bit. Prints a table; the exit code is 1 where something differs.
"""

import argparse
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from meta_animator.cli import run
from meta_animator.config import load_config

ROOT = Path(__file__).parents[2]
STEPS, EVERY = 12, 3
CONFIGS = {"control": "step0.yaml", "motion": "step1.yaml", "reference": "step2.yaml"}
SETTINGS = [
    f"model.base={ROOT}/assets/base", "data.height=64", "data.width=64", "data.num_workers=2", "data.prompt_drop=0.3",
    "data.num_frames=2", "loss.image_weight=0.5", "loss.start_step=2", "loss.max_noise_level=0.9",
    f"train.max_steps={STEPS}", f"train.checkpoint_every={EVERY}", "train.batch_size=1", "train.preview_every=0",
    "train.gradient_accumulation_steps=2", "train.ema_decay=0.9", "train.log_every=1", "train.lr_warmup_steps=4",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how often a training is killed, over all stages")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--stages", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--folder", type=Path, default=Path("outputs/chaos"), help="deleted first")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="for every training")
    options = parser.parse_intermixed_args()

    SETTINGS.extend(options.settings)
    importlib.import_module("meta_animator.stages.train")  # once: each training is a fork, and starts within moments

    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    moments = random.Random(options.seed)
    print(f"{'stage':<10} {'killed':>6}  {'at step':<24} {'while writing':>13}  {'seconds':>7}  as if nothing had happened")
    share = [options.kills // len(options.stages) + (k < options.kills % len(options.stages)) for k in range(len(options.stages))]
    failed = False
    for stage, kills in zip(options.stages, share, strict=True):
        failed |= not torment(stage, kills, moments, options.folder)
    sys.exit(failed)


def torment(stage: str, kills: int, moments: random.Random, folder: Path) -> bool:
    """Train undisturbed, then disturbed until `kills` were spent; whether every disturbed run ended equal."""
    whole = folder / f"{stage}-whole"
    if start(stage, whole, folder).wait(timeout=None) != 0:
        raise SystemExit(f"the undisturbed training failed; see {whole}.log")
    equal, number = True, 0
    while kills > 0:
        number += 1
        out, begin, at, writing = folder / f"{stage}-{number}", time.monotonic(), [], 0
        for _ in range(min(kills, moments.randint(2, 4))):
            child, in_writing = start(stage, out, folder), moments.random() < 0.4
            step, delay = moments.randrange(STEPS), moments.uniform(0, 0.5)
            if not (wait_for_writing(child, out) if in_writing else wait_for_step(child, out, step, delay)):
                break
            child.kill()
            kills, writing = kills - 1, writing + in_writing
            at.append(logged_steps(out))
        code = start(stage, out, folder).wait(timeout=None)
        different = "failed, see the log" if code else difference(whole, out)
        equal &= not different
        print(
            f"{stage:<10} {len(at):>6}  {', '.join(map(str, at)):<24} {writing:>13}  {time.monotonic() - begin:>7.1f}  "
            f"{'yes' if not different else 'NO: ' + different}", flush=True,
        )  # fmt: skip
    return equal


class Training:
    """A training in a forked process."""

    def __init__(self, arguments: tuple):
        self.process = multiprocessing.get_context("fork").Process(target=train, args=arguments)
        self.process.start()

    def wait(self, timeout: float | None) -> int | None:
        """The exit code, or None where it still runs."""
        self.process.join(timeout)
        return self.process.exitcode

    def kill(self) -> None:
        """The training at once; its data-loader processes are left to notice."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def start(stage: str, out: Path, folder: Path) -> Training:
    return Training((stage, out, folder))


def train(stage: str, out: Path, folder: Path) -> None:
    from meta_animator.puppets.dataset import ensure_puppets
    from meta_animator.stages.train import train

    log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    settings = [
        *SETTINGS, f"output_dir={out}", f"data.cache_dir={folder}/cache", f"data.puppets.root={folder}/puppets",
        "data.puppets.identities=3", "data.puppets.frames=3", "data.puppets.photos=5", "data.puppets.driving_frames=2",
        f"data.train=[{folder}/puppets/{'person' if stage == 'reference' else 'train'}]",
        f"model.control_from={ROOT}/assets/base/control",
    ]  # fmt: skip
    if stage == "reference":
        settings.append(f"data.auxiliary=[{folder}/puppets/train]")
    config = load_config(ROOT / "configs" / "demo" / CONFIGS[stage], settings)
    run(lambda: train(config, make_data=ensure_puppets))


def logged_steps(out: Path) -> int:
    return len((out / "metrics.jsonl").read_text().splitlines()) if (out / "metrics.jsonl").exists() else 0


def wait_for_step(child: Training, out: Path, step: int, delay: float) -> bool:
    """Return some time after a step was logged; False where the child ended before."""
    while child.process.is_alive() and logged_steps(out) < step:
        time.sleep(0.005)
    return child.wait(timeout=delay) is None


def wait_for_writing(child: Training, out: Path) -> bool:
    """Return in the middle of writing a checkpoint; False where the child ended before."""
    while child.process.is_alive():
        if any((out / "checkpoints").glob(".step-*")):
            return True
        time.sleep(0.0005)
    return False


def difference(whole: Path, parts: Path) -> str:
    """The first file that differs between two runs, or nothing. Compared as bytes: torch's threads must not start
    before the next fork."""
    if (whole / "metrics.jsonl").read_bytes() != (parts / "metrics.jsonl").read_bytes():
        return "metrics.jsonl"
    last = f"checkpoints/step-{STEPS:06d}"
    for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "manifest.json"):
        if (whole / last / name).read_bytes() != (parts / last / name).read_bytes():
            return f"{last}/{name}"
    return ""


if __name__ == "__main__":
    run(main)
