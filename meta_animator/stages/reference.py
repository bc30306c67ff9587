"""Stage 2: a few photos of one person, called up by an identifier. What learns, and how, is stage 0's; the data differ: photos of
the person, and between them frames of other people, so that what the networks know of people is not forgotten."""

from collections import Counter
from collections.abc import Sequence

from accelerate import Accelerator

from meta_animator.data.manifest import Clip
from meta_animator.data.orders import walk
from meta_animator.data.samples import SampleSet, read_clips, several
from meta_animator.diffusion.randomness import rng
from meta_animator.errors import UserError
from meta_animator.settings import DataConfig, RunConfig
from meta_animator.stages.check_data import check_others, only_person
from meta_animator.stages.check_settings import trained_tasks, without_missing_face
from meta_animator.stages.control import ControlParts
from meta_animator.stages.data import Training, counted
from meta_animator.stages.denoising_run import denoising_run
from meta_animator.stages.held_out import hold_out
from meta_animator.stages.networks import load_networks


def build(config: RunConfig, accelerator: Accelerator) -> Training:
    """Photos and auxiliary clips -> networks -> what they are trained on -> what learns."""
    photos = read_clips(config.data.train, config.data.split)
    config = without_missing_face(config)
    num_frames, tasks = several(config.data.clip_frames), trained_tasks(config.stage, config.model, config.train)
    learned, held = hold_out(photos, config.data, config.seed, tasks, num_frames)
    person, clips = only_person(photos), [*learned, *auxiliary_clips(photos, config.data, config.seed)]
    networks = load_networks(config.model, config.loss, with_person=True)
    run = denoising_run(
        config, clips, networks, accelerator, num_frames=num_frames, photos=True, person=person, own_clips=len(learned),
        auxiliary=auxiliary_samples,
    )  # fmt: skip
    # sampling need not be told whose photos these were, and what was said of them
    about = {"person": person, "description": Counter(clip.prompt for clip in photos).most_common(1)[0][0]}
    about |= {"held_out": sorted(clip.id for clip in held), "data": counted(learned)}
    if others := clips[len(learned) :]:
        about["auxiliary"] = counted(others)
    parts = ControlParts(config, networks, run.examples(), about, run.measured(held, photos=True))
    return run.training(parts, frees=(parts.texts, parts.previews, parts.meters))


def auxiliary_clips(photos: Sequence[Clip], data: DataConfig, seed: int) -> list[Clip]:
    """Clips of others than the person of the photos: up to `data.auxiliary_sets`, of as many people as there are."""
    if not data.auxiliary or not data.auxiliary_sets:
        return []
    people = {clip.identity for clip in photos}
    clips = [c for c in read_clips(data.auxiliary, data.split) if c.identity not in people]
    check_others(clips, people, data)
    by_person: dict[str, list[Clip]] = {}
    for k in rng(seed, "auxiliary clips").permutation(len(clips)):
        by_person.setdefault(clips[k].identity, []).append(clips[k])
    return _in_turns(list(by_person.values()))[: data.auxiliary_sets]


def auxiliary_samples(samples: SampleSet, first_clip: int, table: dict[str, list[int]]) -> dict[str, list[int]] | None:
    """{task: `data.auxiliary_sets` frames} of the clips from `first_clip` on, from as many people as there are and from all of
    their clips, the same frames for every task of `table`; None where there are no such clips."""
    by_clip: dict[int, list[int]] = {}
    for index, sample in enumerate(samples.samples):
        if sample.clip >= first_clip:
            by_clip.setdefault(sample.clip, []).append(index)
    if not by_clip:
        if first_clip < len(samples.clips):
            raise UserError(
                f"data.auxiliary: no film is long enough for {samples.num_frames} frames (data.clip_frames); name longer ones, "
                "or set data.auxiliary=[] to train without"
            )
        return None
    rows = [
        [pool[walk(step, len(pool), f"{samples.seed} auxiliary frames {samples.clips[clip].id}")] for step in range(len(pool))]
        for clip, pool in by_clip.items()
    ]
    chosen = set(_in_turns(rows)[: samples.config.auxiliary_sets])
    return {task: [k for k in table[task] if k in chosen] for task in table}


def _in_turns(rows: list[list]) -> list:
    """The first of every row, then the second of every row, and so on."""
    return [row[turn] for turn in range(max(map(len, rows))) for row in rows if turn < len(row)]
