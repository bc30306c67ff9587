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
    """One task per optimizer step and lane; the tasks come in a fresh order in every cycle, so each gets the same number
    of steps, or `weights` times as many.

    A lane is all ranks together, or with `task_per_rank` each rank. Inside a task its samples are walked in shuffled
    epochs: a task with few samples repeats them sooner. What a step draws depends on the number of its samples alone,
    not on how they are split into ranks and micro-batches (with `task_per_rank`: also on the number of ranks).

    samples         {task: sample indices that have this task}
    batch_size      samples per rank and micro-batch
    micro_batches   gradient-accumulation steps; all of one task
    world_size      ranks
    task_per_rank   every rank has a task of its own instead of all the same
    weights         {task: how often it comes in a cycle}, 1 for those not named; those that are not in `samples` do not count
    auxiliary       {task: sample indices} of which `auxiliary_fraction` of the draws are taken
    """

    samples: dict[str, list[int]]
    batch_size: int
    seed: int
    micro_batches: int = 1
    world_size: int = 1
    task_per_rank: bool = False
    weights: dict[str, int] = dataclasses.field(default_factory=dict)
    auxiliary: dict[str, list[int]] | None = None
    auxiliary_fraction: float = 0.0

    @property
    def draws_per_step(self) -> int:
        return self.batch_size * self.micro_batches * self.world_size

    @property
    def lanes(self) -> int:
        return self.world_size if self.task_per_rank else 1

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps after which as many samples were drawn as there are (sample, task) pairs."""
        return max(1.0, sum(len(s) for s in self.samples.values()) / self.draws_per_step)

    def pools(self) -> set[int]:
        """All samples that can be drawn."""
        return {index for table in (self.samples, self.auxiliary or {}) for pool in table.values() for index in pool}

    def task_at(self, step: int, lane: int = 0) -> str:
        return self._turn(step, lane)[0]

    def _turn(self, step: int, lane: int) -> tuple[str, int]:
        """The task of a step and lane, and how often it was drawn before."""
        tasks = [task for task in sorted(self.samples) for _ in range(self.weights.get(task, 1))]
        cycle, place = divmod(step * self.lanes + lane, len(tasks))
        order = [tasks[k] for k in rng(self.seed, "tasks", cycle).permutation(len(tasks))]
        task = order[place]
        return task, cycle * order.count(task) + order[:place].count(task)

    def lane_draws(self, step: int, lane: int = 0) -> list[Draw]:
        """The draws of an optimizer step and lane, in order."""
        (task, turn), count = self._turn(step, lane), self.draws_per_step // self.lanes
        first = step * self.draws_per_step + lane * count
        return [Draw(first + slot, task, self._sample(task, turn * count + slot)) for slot in range(count)]

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
            draws = self.lane_draws(step, rank if self.task_per_rank else 0)
            for micro in range(self.micro_batches):
                place = micro if self.task_per_rank else micro * self.world_size + rank
                yield draws[place * self.batch_size : (place + 1) * self.batch_size]


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, stream: str, epoch: int, size: int) -> tuple[int, ...]:
    return tuple(rng(seed, stream, epoch).permutation(size).tolist())
