"""The only training loop. It knows steps, precision, checkpoints and logs, and nothing of what is trained."""

import contextlib
import functools
import math
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from meta_animator.checkpoints.best import in_words, write_best
from meta_animator.checkpoints.files import Checkpoint, list_checkpoints, read_checkpoint, save_checkpoint, versions
from meta_animator.config import save_config
from meta_animator.errors import Stopped, UserError
from meta_animator.settings import RunConfig
from meta_animator.training.beside import Beside
from meta_animator.training.ema import EMA
from meta_animator.training.gradients import GradientMeans
from meta_animator.training.lock import lock_folder
from meta_animator.training.logs import Later, StepLogs
from meta_animator.training.means import Means
from meta_animator.training.memory_advice import dead_worker, out_of_memory
from meta_animator.training.optim import load_named_state, make_optimizer, named_state, skips_on_device
from meta_animator.training.page import RunPage
from meta_animator.training.resume import changed_settings, check_same_run, training_settings
from meta_animator.training.sharding import reshard, shard, whole_copies
from meta_animator.training.signals import StopRequest, stop_request
from meta_animator.training.trackers import Tracker
from meta_animator.training.watch import Watch, measure_every

PAGE_SECONDS = 60  # at most between two versions of a run's page

# batches(first_step, last_step) yields micro-batches, `gradient_accumulation_steps` of them per optimizer step
Batches = Callable[[int, int], Generator[Any, None, None]]


class LastStep(NamedTuple):
    """A step that is taken but not settled yet.

    moved       names of what it moved, if it was taken
    searching   whether the scaler of fp16 is looking for its scale, so that it does not count as skipped
    """

    logs: StepLogs
    moved: list[str]
    searching: bool


class Trainer:
    """One run: a stage, its optimizer, its average and its folder. `run()` continues where the folder's last checkpoint is."""

    def __init__(
        self, config: RunConfig, accelerator: Accelerator, stage: nn.Module, batches: Batches, sharded: bool = False
    ):
        self.config, self.accelerator, self.batches = config, accelerator, batches
        self.run_folder, self.next_page = Path(config.output_dir), time.monotonic() + PAGE_SECONDS
        self.page, self.pages, self.saving = RunPage(self.run_folder, config, versions()), Beside(), Beside()
        if not any(group.parameters for group in stage.param_groups()):
            raise UserError(f"{config.output_dir}: this configuration trains nothing; see train.trainable")
        try:
            self.run_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir {self.run_folder}: cannot be made ({error.strerror}); name another") from error
        self.lock = lock_folder(self.run_folder) if accelerator.is_main_process else None
        self.stage, self.sharded = stage.to(accelerator.device), sharded
        try:
            self._restore()
        except BaseException:
            if self.lock is not None:
                self.lock.close()
            raise
        self.scheduler = get_scheduler(
            config.train.lr_scheduler, self.optimizer, num_warmup_steps=config.train.lr_warmup_steps,
            num_training_steps=config.train.max_steps,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "scheduler before optimizer"
            for _ in range(self.step):
                self.scheduler.step()

    def run(self) -> None:
        """Train to the last step. Raises Stopped after a signal, UserError for what the user can mend; in both cases the
        folder holds a checkpoint to continue from, if any step was saved."""
        tracker = None
        if self.accelerator.is_main_process:
            tracker = Tracker(self.run_folder, self.step, self.config.train.wandb_project)
            write_best(self.run_folder, self.watch.best)  # where the run goes back to before it
        try:
            with stop_request() as request, self.saving, self.pages:
                self._loop(tracker, request)
            if tracker is not None:
                best = f"; step {self.watch.best['step']} is {in_words(self.watch.best)}" if self.watch.best else ""
                print(f"done: {list_checkpoints(self.run_folder)[-1]}{best}; to look at: {self.run_folder}/index.html")
        except torch.OutOfMemoryError as error:
            saved = bool(list_checkpoints(self.run_folder))
            raise UserError(out_of_memory(self.config, self.step + 1, self.sharded, saved)) from error
        except RuntimeError as error:  # torch notices a dead worker wherever this process happens to be
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(dead_worker(error, self.config.data.num_workers)) from error
        finally:
            if tracker is not None:
                tracker.close()
                self.lock.close()

    def step_once(self, stream: Generator[Any, None, None]) -> None:
        """One optimizer step and nothing beside it, no log, no checkpoint: for measuring."""
        self._optimizer_step(stream)
        self.step += 1

    def _loop(self, tracker: Tracker | None, request: StopRequest) -> None:
        train, main = self.config.train, tracker is not None
        if main:
            save_config(self.config, self.run_folder / "config.yaml")
        bar = tqdm(
            total=train.max_steps, initial=self.step, desc=self.config.stage, unit="step", disable=not main,
            mininterval=1.0, dynamic_ncols=True,
        )  # fmt: skip
        stream = self.batches(self.step, train.max_steps)
        with contextlib.closing(stream), bar:
            if self._measures_now() and not self.over and self.watch.measured < self.step:  # a signal came before it
                self._measure(tracker)
                if self.watch.is_best(self.step):
                    self._save()
            while not self.over:
                self._optimizer_step(stream)
                self.step += 1
                self.watch.pass_by(self.step)
                bar.update()
                if self.step % train.log_every == 0 or self.step == train.max_steps:
                    means, self.means = self._means_of_all_ranks(), Means()
                    bar.set_postfix(loss=f"{means.overall()['loss']:.4f}")
                    if main:
                        tracker.log(self.step, means.lines(), means.overall())
                stop = self._stop_on_any_rank(request)
                if self._measures_now() and (self.over or not stop):
                    self._measure(tracker)
                self._save_and_show(save_now=bool(stop))
                if stop and not self.over:
                    self.saving.wait()
                    name = signal.Signals(stop).name
                    raise Stopped(f"{name} after step {self.step}, which is saved; the same command continues", stop)

    @property
    def over(self) -> bool:
        return self.step >= self.config.train.max_steps or self.watch.over

    def _optimizer_step(self, stream: Generator[Any, None, None]) -> None:
        """Forward and backward over the micro-batches, clip, step.

        A step whose gradient is not finite changes nothing but the step number; `train.max_skipped_steps` of them are
        forgiven. With fp16 the scaler skips steps of its own until it has found its scale; those do not count.
        """
        count, train = self.config.train.gradient_accumulation_steps, self.config.train
        all_logs, batches = [], [next(stream) for _ in range(count)]
        self.stage.train()
        self.stage.begin_step(batches, self.step, self._mean_of_all_ranks)
        for micro, batch in enumerate(batches):
            with self._without_sync() if self.sharded and micro < count - 1 else contextlib.nullcontext(), self._rounding_once():
                with self.accelerator.autocast():
                    loss, logs = self.stage(batch.to(self.accelerator.device), self.step)
                self.accelerator.backward(loss / count)
            all_logs.append({"loss": loss.detach(), **logs})
        if self.gradients is not None:
            self.gradients.take()
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), train.max_grad_norm or math.inf)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        own = {"learning_rate": float(self.optimizer.param_groups[0]["lr"]), "gradient_norm": norm}
        self._settle()
        scaler = self.accelerator.scaler
        searching = scaler is not None and scaler.get_scale() >= 1
        if skips_on_device(self.optimizer, norm) or scaler is not None or math.isfinite(norm):
            self.prepared.step()  # with a scaler, it skips by itself, and must be called
        moved = [name for name, parameter in self.parameters.items() if parameter.grad is not None]
        by_scaler = self.accelerator.optimizer_step_was_skipped
        self.last = LastStep(StepLogs(self.step + 1, all_logs, own), [] if by_scaler else moved, searching)
        self.prepared.zero_grad(set_to_none=True)
        self.scheduler.step()

    def _settle(self) -> None:
        """What is left to do of the last step, once its gradient norm is known: to average what it moved, or to count it as
        skipped. As late as can be, when the device has the next one to do. Raises UserError when too many were skipped."""
        last, self.last = self.last, None
        if last is None:
            return
        logs = last.logs.read()
        if not math.isfinite(logs["gradient_norm"]):
            if not last.searching:
                self._skip(logs, last.logs.step)
        elif self.ema is not None:
            self.ema.update(last.moved)
        self.means.add(logs)

    def _mean_of_all_ranks(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values.to(self.accelerator.device, non_blocking=True), "mean")

    def _rounding_once(self) -> contextlib.AbstractContextManager:
        """The stage's, but where weights are shared out: there they are other tensors, gathered for each pass."""
        found = None if self.sharded else getattr(self.stage, "rounding_once", None)
        return contextlib.nullcontext() if found is None else found()

    @contextlib.contextmanager
    def _without_sync(self) -> Iterator[None]:
        """Gradients that are shared out stay in this process until the step's last micro-batch."""
        self.stage.set_requires_gradient_sync(False)
        yield
        self.stage.set_requires_gradient_sync(True)

    def _means_of_all_ranks(self) -> Means:
        """Of the steps since the last line."""
        self._settle()
        together = Means()
        for one in [self.means] if self.accelerator.num_processes == 1 else gather_object([self.means]):
            together.merge(one)
        return together

    def _skip(self, logs: dict[str, Any], step: int) -> None:
        """Count a step that is not taken. Raises UserError when there were too many."""
        self.skipped += 1
        logs["skipped_steps"] = self.skipped
        budget = self.config.train.max_skipped_steps
        if self.skipped > budget:
            self.saving.wait()
            saved = list_checkpoints(self.run_folder)
            raise UserError(
                f"{self.run_folder}: the gradient is not finite at step {step} (loss {logs['loss']:.4g}), and "
                f"{budget} steps were skipped for that before; lower train.learning_rate; "
                f"{f'the last checkpoint, {saved[-1].name}, is good' if saved else 'nothing was saved yet'}"
            )

    def _stop_on_any_rank(self, request: StopRequest) -> int:
        """The signal that some process got, or 0; the same on all of them. Of several, each asks what was known a step ago."""
        if self.accelerator.num_processes == 1:
            return request.number
        number = torch.full((1,), float(request.number), device=self.accelerator.device)
        before, self.asked = self.asked, Later(self.accelerator.gather(number).max()[None])
        return int(before.read()[0]) if before else 0

    def _save_and_show(self, save_now: bool) -> None:
        """What is due at this step: checkpoint, preview, and after either, or every minute, the page that shows the run."""
        train, last = self.config.train, self.over
        save = self.step % train.checkpoint_every == 0 or last or save_now or self.watch.is_best(self.step)
        show = train.preview_every and (self.step % train.preview_every == 0 or last) and not save_now
        if save:
            self._save()
        if show:
            self._show()
        if self.accelerator.is_main_process and (save or show or time.monotonic() > self.next_page):
            self.pages.start(self.page.of_now())
            self.next_page = time.monotonic() + PAGE_SECONDS
        if save or show:
            self.accelerator.wait_for_everyone()

    def _show(self) -> None:
        """A preview of the averaged weights, by the main process; where weights are shared out, all must take part."""
        self._settle()
        if not (self.accelerator.is_main_process or self.sharded):
            return
        with contextlib.ExitStack() as stack:
            folder = self.run_folder / "previews"
            if self.accelerator.is_main_process:
                folder.mkdir(exist_ok=True)
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(self._as_saved())
            self.stage.preview(folder, self.step)

    def _measures_now(self) -> bool:
        every = measure_every(self.config.train) if getattr(self.stage, "measures", False) else 0
        return every > 0 and (self.step % every == 0 or self.over)

    def _measure(self, tracker: Tracker | None) -> None:
        """What the stage's meters say of the averaged weights, by whom previews are shown; all processes hear the same."""
        self._settle()
        told: list[dict[str, float]] = [{}]
        if self.accelerator.is_main_process or self.sharded:
            with self._as_saved():
                told = [self.stage.measure()]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(told)
        notes = self.watch.add(self.step, told[0], last=self.step == self.config.train.max_steps)
        if tracker is not None and told[0]:
            tracker.log(self.step, told, told[0])
            for note in notes:
                tqdm.write(f"note: step {self.step}: {note}")

    @contextlib.contextmanager
    def _as_saved(self) -> Iterator[None]:
        """The stage with averaged weights, not in training; nothing is compiled for what it does so."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.ema.applied() if self.ema else contextlib.nullcontext())
            self.stage.eval()
            if self.config.train.compile:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            with torch.no_grad():
                yield
            if self.sharded:
                reshard(self.stage)

    def _save(self) -> None:
        """Let a checkpoint be written by the main process, of copies; it holds whole tensors, however they are shared out."""
        self._settle()
        self.saving.wait()  # or there would be copies of two
        main = self.accelerator.is_main_process
        model = whole_copies(self.stage.trainable_state(), keep=main)
        optimizer = whole_copies(named_state(self.optimizer, self.groups), keep=main)
        ema = whole_copies(self.ema.shadow, keep=main) if self.ema else {}
        means, meters = self._means_of_all_ranks().state(), self.watch.state()
        if not main:
            return
        metadata = {
            **self._identity(), "versions": versions(), "skipped_steps": self.skipped,
            "settings": training_settings(self.stage.config),
            **({"means_since_last_line": means} if means else {}), **({"meters": meters} if meters else {}),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
        }  # fmt: skip
        updates = dict(self.ema.updates) if self.ema else {}
        checkpoint = Checkpoint(
            step=self.step, metadata=metadata, model=model, optimizer=optimizer, ema=ema, ema_updates=updates
        )  # fmt: skip
        keep, best = self.config.train.keep_checkpoints, self.watch.best
        self.saving.start(functools.partial(save_checkpoint, self.run_folder, checkpoint, keep, best))

    def _identity(self) -> dict[str, Any]:
        """What must stay the same for a run to continue."""
        groups = {group.name: len(group.parameters) for group in self.groups}
        train = self.config.train
        samples = train.batch_size * train.gradient_accumulation_steps * self.accelerator.num_processes
        return {
            **self.stage.metadata(), "trained_tensors": groups, "has_ema": bool(train.ema_decay),
            "seed": self.config.seed, "samples_per_step": samples, "optimizer": train.optimizer,
        }  # fmt: skip

    def _restore(self) -> None:
        """Make optimizer and average, and continue from the newest checkpoint of the run folder, if any."""
        found, train = list_checkpoints(self.run_folder), self.config.train
        checkpoint = read_checkpoint(found[-1]) if found else None
        if checkpoint is not None:
            self.groups = self.stage.param_groups()
            check_same_run(self._identity(), {"optimizer": "adamw", **checkpoint.metadata}, found[-1])
            for change in changed_settings(self.stage.config, checkpoint.metadata):
                self.accelerator.print(f"note: {self.run_folder}: {change}")
            self.stage.load_trainable_state(checkpoint.model, str(found[-1]))
        if self.sharded:
            shard(self.stage, self.accelerator.device)
            self.accelerator.print(f"what is trained is shared out over {self.accelerator.num_processes} processes")
        self.groups = self.stage.param_groups()
        self.parameters = {name: p for g in self.groups for name, p in g.parameters.items()}
        self.optimizer = make_optimizer(self.groups, train)
        several = self.accelerator.num_processes > 1 and not self.sharded
        alike = getattr(self.stage, "gradients_alike", False)
        self.gradients = GradientMeans(self.parameters.values(), alike) if several else None
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.ema = EMA(self.parameters, train.ema_decay, train.ema_device) if train.ema_decay else None
        self.step, self.skipped, self.means = 0, 0, Means()
        state = {} if checkpoint is None else checkpoint.metadata.get("meters")
        self.watch = Watch(getattr(self.stage, "early_stop", 0), state, getattr(self.stage, "best_step", 0))
        self.watch.look_back([int(path.name.removeprefix("step-")) for path in found])
        self.last: LastStep | None = None
        self.asked: Later | None = None
        if checkpoint is None:
            return
        load_named_state(self.optimizer, self.groups, checkpoint.optimizer)
        if self.ema is not None:
            self.ema.load(checkpoint.ema, checkpoint.metadata.get("ema_updates", checkpoint.ema_updates))
        if self.accelerator.scaler is not None and checkpoint.metadata.get("scaler"):
            self.accelerator.scaler.load_state_dict(checkpoint.metadata["scaler"])
        self.step, self.skipped = checkpoint.step, checkpoint.metadata.get("skipped_steps", 0)
        if self.accelerator.is_main_process:  # they are all processes'
            self.means = Means(checkpoint.metadata.get("means_since_last_line"))
        self.accelerator.print(f"continuing {self.run_folder} at step {checkpoint.step}")
