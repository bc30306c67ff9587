"""Put a run together: data, models, stage; then hand it to the engine."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from meta_animator.checkpoints.files import find_checkpoint, list_checkpoints, read_weights, trained_fps
from meta_animator.checkpoints.loading import load_control, note_posterior
from meta_animator.conversion.motion import load_motion
from meta_animator.data.batch import Batch, collate
from meta_animator.data.crops import bucket_notes, crop_notes, some_shown
from meta_animator.data.drawn_pose import TASKS as POSES
from meta_animator.data.drawn_pose import check_drawn_pose
from meta_animator.data.manifest import Clip
from meta_animator.data.orders import walk
from meta_animator.data.prompts import fit_descriptions
from meta_animator.data.samples import SampleSet, of_one_size, read_clips, training_rate
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.diffusion.randomness import rng
from meta_animator.errors import UserError
from meta_animator.losses.hybrid import HybridLoss
from meta_animator.media.timeline import same_rate
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import DataConfig, PuppetsConfig, RunConfig
from meta_animator.stages.cache import make_cache
from meta_animator.stages.checks import check_others, check_run, check_size, only_person, trained_tasks, without_missing_face
from meta_animator.stages.control import ControlStage
from meta_animator.stages.motion import MotionStage
from meta_animator.stages.reference import ReferenceStage
from meta_animator.stages.workers import closing_workers
from meta_animator.training.engine import Trainer, make_accelerator
from meta_animator.training.sharding import take_sharding_request
from meta_animator.training.signals import leave_signals_to_the_loop
from meta_animator.weights import read_json

MOST_DRAWN = 8  # clips whose drawn poses are looked at
PREVIEW_DRAWS = 10**9  # numbers of preview draws, beyond those of training
STAGES = {"control": ControlStage, "motion": MotionStage, "reference": ReferenceStage}
Builder = Callable[[RunConfig, Accelerator], tuple[nn.Module, SampleSet, TaskPlan]]


def train(
    config: RunConfig, stages: Mapping[str, Builder] | None = None, make_data: Callable[[PuppetsConfig], None] | None = None
) -> None:  # fmt: skip
    """Run a training stage from its config to its last checkpoint. Raises UserError for what the user can mend.

    stages      what puts other stages together than those of the method, by name
    make_data   makes the data sets of `data.puppets` that are not there
    """
    builders = {**dict.fromkeys(STAGES, build_released_stage), **(stages or {})}
    if config.stage not in builders:
        raise UserError(f"stage '{config.stage}' is not trained; use {', '.join(builders)}")
    sharded = take_sharding_request(config.stage, config.train, config.data)
    accelerator = make_accelerator(config.train.mixed_precision)
    torch.manual_seed(config.seed)  # fresh weights
    if accelerator.is_main_process:
        for note in check_run(config):
            print(f"note: {note}")
        if make_data:
            make_data(config.data.puppets)
    accelerator.wait_for_everyone()
    stage, samples, plan = builders[config.stage](config, accelerator)
    batches = functools.partial(load_batches, config.data, samples, plan, accelerator)
    Trainer(config, accelerator, stage, batches, sharded).run()


def build_released_stage(config: RunConfig, accelerator: Accelerator) -> tuple[nn.Module, SampleSet, TaskPlan]:
    """Stage 0, 1 or 2 with its data, without the networks that it does not need any more."""
    stage, samples, plan = build_stage(config, accelerator)
    stage.release(samples.prompts(), encoder=samples.cache is not None)
    return stage, samples, plan


def build_stage(
    config: RunConfig, accelerator: Accelerator, kind: Callable[..., nn.Module] | None = None,
    make_base: Callable[[RunConfig, list[Clip]], nn.Module] | None = None,
) -> tuple[nn.Module, SampleSet, TaskPlan]:  # fmt: skip
    """Stage 0, 1 or 2 with its data; or another stage on the same data, of a base of its own.

    kind        the stage instead of the config's
    make_base   (config, clips) -> the base instead of `model.base`
    """
    clips = read_clips(config.data.train, config.data.split)
    config = without_missing_face(config)
    person = only_person(clips) if config.stage == "reference" else ""
    extra = auxiliary_clips(config) if config.stage == "reference" else []
    backbone = make_base(config, clips) if make_base else None
    models = build_models(config, [clip.identity for clip in [*clips, *extra]], backbone, person)
    check_size(config.data, models.backbone.divisor)
    for note in fit_descriptions([*clips, *extra], config.data.prompt, models.identifiers, models.backbone.fits):
        accelerator.print(f"note: {note}")
    num_frames = config.data.num_frames if config.stage == "motion" else None
    samples = SampleSet(
        [*clips, *extra], config.data, seed=config.seed, identifiers=models.identifiers, num_frames=num_frames
    )  # fmt: skip
    shown = some_shown(samples.clips, config.data)
    for note in [*bucket_notes(samples.clips, config.data), *crop_notes(shown, config.data.person_margin)]:
        accelerator.print(f"note: {note}")
    for clip in [clip for clip in samples.clips if clip.conditions][:MOST_DRAWN]:
        for task in {*POSES} & {*config.model.tasks} & clip.conditions.keys():
            check_drawn_pose(clip, task, f"clip '{clip.id}', drawn {task}")
    table = samples.by_task(trained_tasks(config))
    main = {t: [k for k in table[t] if samples.samples[k].clip < len(clips)] for t in table}
    if empty := [t for t in main if not main[t]]:
        able = ", ".join(t for t in main if main[t])
        raise UserError(f"data.train: no frame can show {', '.join(empty)}; set model.tasks to [{able}]")
    plan = TaskPlan(
        samples=main, batch_size=config.train.batch_size, seed=config.seed,
        micro_batches=config.train.gradient_accumulation_steps, world_size=accelerator.num_processes,
        task_per_rank=config.data.task_per_rank, weights=dict(config.data.task_weights),
        auxiliary=auxiliary_samples(config, samples, table, len(clips)),
        auxiliary_fraction=config.data.auxiliary_fraction if extra else 0.0, buckets=samples.buckets(),
        owners=samples.owners(),
    )  # fmt: skip
    if config.data.cache_latents:
        models.backbone.vae.to(accelerator.device)  # alone: the others follow in the precision that they train in
        samples.cache = make_cache(config, models, samples.kept_frames(plan.pools()), list(plan.samples), accelerator)
    loss = make_loss(config, plan, accelerator.print)
    samples.latents_only = not loss.image_active(config.train.max_steps)
    examples = preview_examples(samples, plan, config)
    stage = (kind or STAGES[config.stage])(config, models, loss, examples).to(accelerator.device)
    if isinstance(stage, MotionStage):
        shown = [clips[k] for k in sorted({sample.clip for sample in samples.samples})]
        stage.fps = training_rate(shown, config.data, accelerator.print)
        note_rate(config.model.motion_from, stage.fps, accelerator.print)
    if isinstance(stage, ReferenceStage):
        stage.person = person
        stage.description = Counter(clip.prompt for clip in clips).most_common(1)[0][0]
    return stage, samples, plan


def build_models(
    config: RunConfig, identities: list[str], backbone: nn.Module | None = None, person: str = ""
) -> Assembly:  # fmt: skip
    """The networks of a run, started from the checkpoints that the config names.

    backbone   instead of the config's
    person     whom a stage 2 learns
    """
    models = Assembly(
        config.model, backbone or load_backbone(config.model), with_motion=config.stage == "motion",
        face=config.loss.face_weight > 0 and config.loss.image_weight > 0,
    )  # fmt: skip
    if config.model.control_from:
        fresh = config.stage in ("control", "reference", "base_unet")
        metadata, weights = read_weights(config.model.control_from)
        load_control(models, metadata, weights, config.model.control_from, fresh_loras=fresh)
        note_posterior(models, metadata, config.model.control_from)
    if config.stage == "motion" and config.model.motion_from:
        load_motion(models, config.model.motion_from)
    if list_checkpoints(Path(config.output_dir)):
        models.keep_identifiers(read_json(find_checkpoint(config.output_dir) / "manifest.json").get("identifiers", {}))
    models.name_people(identities, person)
    return models


def note_rate(motion_from: str, fps: float, say: Callable[[str], None]) -> None:
    """Say where a motion module goes on at another rate than it was trained at."""
    before = trained_fps(motion_from)
    if before and not same_rate(before, fps):
        say(f"note: {motion_from} was trained at {before:.3g} frames per second, this run's clips have {fps:.3g} (data.fps)")


def make_loss(config: RunConfig, plan: TaskPlan, say: Callable[[str], None]) -> HybridLoss:
    """The hybrid loss, with its first step in figures."""
    loss = config.loss
    start = loss.start_step if loss.start_step >= 0 else int(plan.steps_per_epoch / 2)
    if loss.image_weight > 0:
        late = " (after the last step; set loss.start_step)" if start >= config.train.max_steps else ""
        say(f"the image loss starts at step {start}{late}")
    return HybridLoss(
        image_weight=loss.image_weight, face_weight=loss.face_weight, pixel_weight=loss.pixel_weight,
        latent_weight=loss.latent_weight, max_noise_level=loss.max_noise_level, start_step=start,
    )  # fmt: skip


# auxiliary sets of stage 2


def auxiliary_clips(config: RunConfig) -> list[Clip]:
    if not config.data.auxiliary or not config.data.auxiliary_sets:
        return []
    people = {clip.identity for clip in read_clips(config.data.train, config.data.split)}
    clips = [c for c in read_clips(config.data.auxiliary, config.data.split) if c.identity not in people]
    check_others(clips, people, config.data)
    order = rng(config.seed, "auxiliary clips").permutation(len(clips))
    by_person: dict[str, list[Clip]] = {}
    for k in order:
        by_person.setdefault(clips[k].identity, []).append(clips[k])
    return _in_turns(list(by_person.values()))[: config.data.auxiliary_sets]


def auxiliary_samples(
    config: RunConfig, samples: SampleSet, table: dict[str, list[int]], first_clip: int
) -> dict[str, list[int]] | None:
    """{task: `auxiliary_sets` frames}, from as many people as there are and from all of their clips, the same frames for every
    task."""
    by_clip: dict[int, list[int]] = {}
    for index, sample in enumerate(samples.samples):
        if sample.clip >= first_clip:
            by_clip.setdefault(sample.clip, []).append(index)
    if not by_clip:
        return None
    rows = [
        [pool[walk(step, len(pool), f"{config.seed} auxiliary frames {samples.clips[clip].id}")] for step in range(len(pool))]
        for clip, pool in by_clip.items()
    ]
    chosen = set(_in_turns(rows)[: config.data.auxiliary_sets])
    return {task: [k for k in table[task] if k in chosen] for task in table}


def _in_turns(rows: list[list]) -> list:
    """The first of every row, then the second of every row, and so on."""
    return [row[turn] for turn in range(max(map(len, rows))) for row in rows if turn < len(row)]


# batches


def load_batches(
    data: DataConfig, samples: SampleSet, plan: TaskPlan, accelerator: Accelerator, first: int, last: int
) -> Generator[Batch, None, None]:
    """This rank's micro-batches of the optimizer steps first .. last - 1. To be closed: worker processes end with it."""
    draws = list(plan.batches(first, last, accelerator.process_index))
    loader = iter(DataLoader(
        samples, batch_sampler=draws, collate_fn=collate, num_workers=data.num_workers,
        worker_init_fn=leave_signals_to_the_loop,
    ))  # fmt: skip
    with closing_workers(loader):
        yield from loader


def preview_examples(samples: SampleSet, plan: TaskPlan, config: RunConfig, count: int = 4) -> dict[str, Batch]:
    """A few fixed samples per task (at most four tasks), with condition pixels."""
    if not config.train.preview_every:
        return {}
    bare = SampleSet(
        samples.clips, dataclasses.replace(config.data, prompt_drop=0.0, pose_drop=0.0), seed=config.seed,
        identifiers=samples.identifiers, num_frames=samples.num_frames,
    )  # fmt: skip
    count = 1 if samples.num_frames else count
    examples = {}
    for task in list(plan.samples)[:4]:
        pool = plan.samples[task]
        chosen = of_one_size(pool, samples, count)
        examples[task] = collate([bare[Draw(PREVIEW_DRAWS + k, task, index)] for k, index in enumerate(chosen)])
    return examples
