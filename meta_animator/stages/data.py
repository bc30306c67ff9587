"""The data of a training run: samples, the plan of who is drawn when, cached latents, batches."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from meta_animator.data.batch import Batch, collate
from meta_animator.data.crops import bucket_notes, crop_notes, some_framings
from meta_animator.data.drawn_pose import TASKS as POSES
from meta_animator.data.drawn_pose import check_drawn_pose
from meta_animator.data.manifest import Clip
from meta_animator.data.prompts import fit_descriptions
from meta_animator.data.samples import SampleSet, number_of_crops
from meta_animator.data.tasks import TaskPlan
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.settings import DataConfig, TrainConfig
from meta_animator.stages import workers
from meta_animator.stages.cache import make_cache
from meta_animator.stages.check_settings import check_size
from meta_animator.training.signals import leave_signals_to_the_loop

NEARLY_ALL = 20  # draws for each picture: they leave hardly one out, and take long to go through beforehand
MOST_DRAWN = 8  # clips whose drawn poses are looked at

Auxiliary = Callable[[SampleSet, int, dict[str, list[int]]], dict[str, list[int]] | None]


def _nothing() -> None: ...


@dataclasses.dataclass(kw_only=True)
class Training:
    """What the engine trains, and on what. `release` frees what is needed no more, just before the first step."""

    stage: nn.Module
    samples: SampleSet
    plan: TaskPlan
    release: Callable[[], None] = _nothing


def counted(clips: Sequence[Clip]) -> dict[str, int]:
    """How much data that is, for those who get the weights."""
    people = len({clip.identity for clip in clips})
    return {"people": people, "clips": len(clips), "frames": sum(clip.num_frames for clip in clips)}


def make_samples(
    clips: Sequence[Clip], data: DataConfig, seed: int, networks: Assembly, say: Callable[[str], None],
    num_frames: int | None = None, photos: bool = False, every: int = 1,
) -> SampleSet:  # fmt: skip
    """Frames, or clips of `num_frames` and, with `photos`, photos too; says what there is to say of how they are cropped and
    described."""
    check_size(data, networks.backbone.size_multiple)
    for note in fit_descriptions(clips, data.prompt, networks.identifiers, networks.backbone.fits):
        say(f"note: {note}")
    samples = SampleSet(
        list(clips), data, seed=seed, identifiers=networks.identifiers, num_frames=num_frames, photos=photos, every=every
    )  # fmt: skip
    if photos and num_frames:
        films = [k for k, clip in enumerate(samples.clips) if clip.kind != "photo"]
        short = len(films) - len({sample.clip for sample in samples.samples} & set(films))
        if short:
            say(f"note: {short} of {len(films)} films are too short for {num_frames} frames at this fps, and left out")
    shown = some_framings(samples.clips, data)
    for note in [*bucket_notes(samples.clips, data), *crop_notes(shown, data.person_margin)]:
        say(f"note: {note}")
    for clip in [clip for clip in samples.clips if clip.conditions][:MOST_DRAWN]:
        for task in {*POSES} & {*networks.config.tasks} & clip.conditions.keys():
            check_drawn_pose(clip, task, f"clip '{clip.id}', drawn {task}")
    return samples


def make_plan(
    samples: SampleSet, tasks: Sequence[str], train: TrainConfig, ranks: int, own_clips: int | None = None,
    auxiliary: Auxiliary | None = None,
) -> TaskPlan:  # fmt: skip
    """Who is drawn when, for these tasks.

    own_clips   so many of the first clips are what is learned, the others auxiliary; None: all are learned
    auxiliary   (samples, own_clips, {task: samples that can show it}) -> those of them that are auxiliary
    Raises UserError for a task that none of them can show.
    """
    data, table = samples.config, samples.by_task(tasks)
    own_clips = len(samples.clips) if own_clips is None else own_clips
    main = {t: [k for k in table[t] if samples.samples[k].clip < own_clips] for t in table}
    if empty := [t for t in main if not main[t]]:
        able = ", ".join(t for t in main if main[t])
        raise UserError(f"data.train: no frame can show {', '.join(empty)}; set model.tasks to [{able}]")
    return TaskPlan(
        samples=main, batch_size=train.batch_size, seed=samples.seed, micro_batches=train.gradient_accumulation_steps,
        world_size=ranks, task_per_rank=data.task_per_rank, weights=dict(data.task_weights),
        auxiliary=auxiliary(samples, own_clips, table) if auxiliary else None,
        auxiliary_fraction=data.auxiliary_fraction if own_clips < len(samples.clips) else 0.0, buckets=samples.buckets(),
        owners=samples.owners(),
    )  # fmt: skip


def with_cached_latents(
    samples: SampleSet, plan: TaskPlan, networks: Assembly, accelerator: Accelerator, *, run_folder: str,
    sees_pixels: Callable[[int], bool] | None, steps: int,
) -> SampleSet:  # fmt: skip
    """The samples with the latents of what the plan draws in `steps` optimizer steps, encoded now where they are not in the cache
    yet; as they are where `data.cache_latents` is off.

    sees_pixels   the draws whose pixels are read all the same, see `SampleSet`
    """
    data = samples.config
    if not data.cache_latents:
        return samples.reading(None, sees_pixels)
    networks.backbone.vae.to(accelerator.device)  # alone: the others follow in the precision that they train in
    together = not networks.backbone.frames_apart
    kept = samples.kept_units(plan.pools(), together)
    few = plan.draws_per_step * steps < NEARLY_ALL * number_of_crops(data) * sum(map(len, plan.samples.values()))
    cache = make_cache(
        data, networks, kept, list(plan.samples), accelerator, folder=Path(run_folder) / "cache", seed=samples.seed,
        clips=samples.num_frames is not None, wanted=samples.wanted(plan.draws_before(steps), together) if few else None,
    )  # fmt: skip
    return samples.reading(cache, sees_pixels)


def load_batches(
    data: DataConfig, samples: SampleSet, plan: TaskPlan, accelerator: Accelerator, first: int, last: int
) -> Generator[Batch, None, None]:
    """This rank's micro-batches of the optimizer steps first .. last - 1. To be closed: worker processes end with it."""
    draws = list(plan.batches(first, last, accelerator.process_index))
    loader = iter(DataLoader(
        samples, batch_sampler=draws, collate_fn=collate, num_workers=data.num_workers,
        worker_init_fn=leave_signals_to_the_loop, timeout=workers.LOADING_SECONDS if data.num_workers else 0,
    ))  # fmt: skip
    with workers.closing_workers(loader):
        yield from loader
