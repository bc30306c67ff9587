"""Which sample and which task each batch gets: a deterministic map from the step number, so that resuming needs no state."""

import dataclasses
import functools
import math
from collections.abc import Iterator

from meta_animator.diffusion.randomness import rng


@dataclasses.dataclass(frozen=True)
class Draw:
    """One sample to load. `number` counts all draws of a run, over all ranks."""

    number: int
    task: str
    sample: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task per optimizer step; the tasks come in a fresh order in every cycle, so each gets the same number of steps.

    Inside a task its samples are walked in shuffled epochs: a task with few samples repeats them sooner.

    samples         {task: sample indices that have this task}
    batch_size      samples per rank and micro-batch
    micro_batches   gradient-accumulation steps; all of one task
    world_size      ranks; all of the same task
    auxiliary       {task: sample indices} of which `auxiliary_fraction` of the draws are taken
    """

    samples: dict[str, list[int]]
    batch_size: int
    seed: int
    micro_batches: int = 1
    world_size: int = 1
    auxiliary: dict[str, list[int]] | None = None
    auxiliary_fraction: float = 0.0

    @property
    def draws_per_step(self) -> int:
        return self.batch_size * self.micro_batches * self.world_size

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps after which as many samples were drawn as there are (sample, task) pairs."""
        return max(1.0, sum(len(s) for s in self.samples.values()) / self.draws_per_step)

    def pools(self) -> set[int]:
        """All samples that can be drawn."""
        return {index for table in (self.samples, self.auxiliary or {}) for pool in table.values() for index in pool}

    def task_at(self, step: int) -> str:
        tasks = sorted(self.samples)
        cycle, place = divmod(step, len(tasks))
        return tasks[rng(self.seed, "tasks", cycle).permutation(len(tasks))[place]]

    def step_draws(self, step: int) -> list[Draw]:
        """All draws of an optimizer step, in global order: micro-batch by micro-batch, rank by rank."""
        task = self.task_at(step)
        turn = step // len(self.samples)  # each task is drawn once per cycle
        draws = []
        for slot in range(self.draws_per_step):
            number, position = step * self.draws_per_step + slot, turn * self.draws_per_step + slot
            draws.append(Draw(number, task, self._sample(task, position)))
        return draws

    def _sample(self, task: str, position: int) -> int:
        """The sample of a task's draw number `position`. Auxiliary draws are spread evenly among the others."""
        pool, name = self.samples[task], "main"
        if self.auxiliary and self.auxiliary.get(task):
            before = math.floor(position * self.auxiliary_fraction)
            if math.floor((position + 1) * self.auxiliary_fraction) > before:
                pool, name, position = self.auxiliary[task], "auxiliary", before
            else:
                position -= before
        epoch, place = divmod(position, len(pool))
        return pool[_permutation(self.seed, f"order {task} {name}", epoch, len(pool))[place]]

    def batches(self, first_step: int, last_step: int, rank: int = 0) -> Iterator[list[Draw]]:
        """This rank's micro-batches from optimizer step `first_step` up to, not including, `last_step`."""
        for step in range(first_step, last_step):
            draws = self.step_draws(step)
            for micro in range(self.micro_batches):
                start = (micro * self.world_size + rank) * self.batch_size
                yield draws[start : start + self.batch_size]


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, stream: str, epoch: int, size: int) -> tuple[int, ...]:
    return tuple(rng(seed, stream, epoch).permutation(size).tolist())
