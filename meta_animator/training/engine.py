"""The only training loop. It knows steps, precision, checkpoints and logs, and nothing of what is trained."""

import contextlib
import datetime
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from torch import nn
from tqdm import tqdm

from meta_animator.config import save_config
from meta_animator.errors import UserError
from meta_animator.settings import RunConfig
from meta_animator.training.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, save_checkpoint
from meta_animator.training.ema import EMA
from meta_animator.training.optim import load_named_state, make_optimizer, named_state
from meta_animator.training.trackers import Tracker

# batches(first_step, last_step) yields micro-batches, `gradient_accumulation_steps` of them per optimizer step
Batches = Callable[[int, int], Iterator[Any]]


class Trainer:
    """One run: a stage, its optimizer, its average and its folder. `run()` continues where the folder's last checkpoint is."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, stage: nn.Module, batches: Batches):
        self.config, self.accelerator, self.batches = config, accelerator, batches
        self.run_folder = Path(config.output_dir)
        self.groups = stage.param_groups()
        self.parameters = {name: p for g in self.groups for name, p in g.parameters.items()}
        if not self.parameters:
            raise UserError(f"{config.output_dir}: this configuration trains nothing; see train.trainable")
        self.stage = stage.to(accelerator.device)
        self.optimizer = make_optimizer(self.groups, config.train)
        self.ema = EMA(self.parameters, config.train.ema_decay) if config.train.ema_decay else None
        self.step = self._resume()
        self.wrapped, self.prepared = accelerator.prepare(self.stage, self.optimizer)
        self.scheduler = get_scheduler(
            config.train.lr_scheduler, self.optimizer, num_warmup_steps=config.train.lr_warmup_steps,
            num_training_steps=config.train.max_steps,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "scheduler before optimizer"
            for _ in range(self.step):
                self.scheduler.step()

    def run(self) -> None:
        train, main = self.config.train, self.accelerator.is_main_process
        tracker = Tracker(self.config, self.step) if main else None
        if main:
            save_config(self.config, self.run_folder / "config.yaml")
        bar = tqdm(
            total=train.max_steps, initial=self.step, desc=self.config.stage, unit="step", disable=not main,
            mininterval=1.0, dynamic_ncols=True,
        )  # fmt: skip
        with bar:
            stream = self.batches(self.step, train.max_steps)
            while self.step < train.max_steps:
                logs = self._optimizer_step(stream)
                self.step += 1
                bar.update()
                if main and (self.step % train.log_every == 0 or self.step == train.max_steps):
                    bar.set_postfix(loss=f"{logs['loss']:.4f}")
                    tracker.log(self.step, logs)
                self._save_and_show()
        if main:
            tracker.close()

    def _optimizer_step(self, stream: Iterator[Any]) -> dict[str, Any]:
        """Forward and backward over the micro-batches, clip, step; returns the means of their logs."""
        count = self.config.train.gradient_accumulation_steps
        all_logs = []
        self.wrapped.train()
        for micro in range(count):
            batch = next(stream).to(self.accelerator.device)
            sync = contextlib.nullcontext() if micro == count - 1 else self.accelerator.no_sync(self.wrapped)
            with sync:
                with self.accelerator.autocast():
                    loss, logs = self.wrapped(batch, self.step)
                self.accelerator.backward(loss / count)
            all_logs.append({"loss": float(loss.detach()), **logs})
            if not math.isfinite(all_logs[-1]["loss"]):
                raise UserError(
                    f"{self.run_folder}: the loss is {all_logs[-1]['loss']} at step {self.step + 1}; lower train.learning_rate"
                )
        norm = None
        if self.config.train.max_grad_norm:
            norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.train.max_grad_norm)
        self.prepared.step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.scheduler.step()
            if self.ema is not None:
                self.ema.update()
        self.prepared.zero_grad(set_to_none=True)
        mean = _mean_logs(all_logs)
        mean["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if norm is not None:
            mean["gradient_norm"] = float(norm)
        return mean

    def _save_and_show(self) -> None:
        train, last = self.config.train, self.step == self.config.train.max_steps
        if self.accelerator.is_main_process:
            if self.step % train.checkpoint_every == 0 or last:
                self._save()
            if train.preview_every and (self.step % train.preview_every == 0 or last):
                folder = self.run_folder / "previews"
                folder.mkdir(exist_ok=True)
                with self.ema.applied() if self.ema else contextlib.nullcontext(), torch.no_grad():
                    self.stage.eval()
                    self.stage.preview(folder, self.step)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        checkpoint = Checkpoint(
            step=self.step,
            manifest={**self._identity(), "ema_updates": self.ema.updates if self.ema else 0},
            model=self.stage.trainable_state(),
            optimizer=named_state(self.optimizer, self.groups),
            ema=self.ema.shadow if self.ema else {},
        )
        save_checkpoint(self.run_folder, checkpoint, self.config.train.keep_checkpoints)

    def _identity(self) -> dict[str, Any]:
        """What must stay the same for a run to continue."""
        groups = {group.name: len(group.parameters) for group in self.groups}
        return {**self.stage.manifest(), "trained_tensors": groups, "has_ema": self.ema is not None}

    def _resume(self) -> int:
        """Load the newest checkpoint of the run folder, if any, and return its step."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        found = list_checkpoints(self.run_folder)
        if not found:
            return 0
        checkpoint = read_checkpoint(found[-1])
        _check_same_run(self._identity(), checkpoint.manifest, found[-1])
        self.stage.load_trainable_state(checkpoint.model, str(found[-1]))
        load_named_state(self.optimizer, self.groups, checkpoint.optimizer)
        if self.ema is not None:
            self.ema.load(checkpoint.ema, checkpoint.manifest["ema_updates"])
        self.accelerator.print(f"continuing {self.run_folder} at step {checkpoint.step}")
        return checkpoint.step


def _check_same_run(own: dict[str, Any], saved: dict[str, Any], where: Path) -> None:
    for key, value in own.items():
        if key in ("versions", "identifiers"):
            continue
        if saved.get(key) != value:
            raise UserError(
                f"{where}: its {key} is {saved.get(key)}, this run's is {value}; use another output_dir or the old settings"
            )


def _mean_logs(all_logs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over micro-batches; texts (the task) are the same in all of them."""
    mean = {}
    for key in all_logs[0]:
        values = [logs[key] for logs in all_logs if logs.get(key) is not None]
        mean[key] = values[0] if isinstance(values[0], str) else sum(values) / len(values)
    return mean


def make_accelerator(config: RunConfig) -> Accelerator:
    """find_unused_parameters: inactive LoRAs take no part in a step. The long timeout: one process may encode latents."""
    from accelerate import DistributedDataParallelKwargs, InitProcessGroupKwargs

    return Accelerator(
        mixed_precision=config.train.mixed_precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=24)),
        ],
    )
