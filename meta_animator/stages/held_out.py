"""What a run keeps out of its training and measures on."""

from collections.abc import Sequence

from meta_animator.data.manifest import Clip, read_manifest
from meta_animator.data.samples import clip_samples
from meta_animator.diffusion.randomness import rng
from meta_animator.errors import UserError
from meta_animator.settings import DataConfig

ENOUGH = 5  # photos from which a person is learned well
POSE = "dwpose"


def main_task(tasks: Sequence[str]) -> str:
    """The condition that a run is judged by: the one that stage 3 samples with, or else its first."""
    return POSE if POSE in tasks else tasks[0]


def held_out_clips(data: DataConfig, num_frames: int | None, photos: bool) -> list[Clip]:
    """The clips of the trained data sets that these mark as held out: stages 0 and 1 measure on them. Only those that give
    samples, see `SampleSet` for its `num_frames` and `photos`."""
    clips = [clip for folder in data.train for clip in read_manifest(folder) if clip.split != data.split]
    return [clip for clip in clips if clip_samples(0, clip, data, num_frames, photos)]


def hold_out(
    photos: Sequence[Clip], data: DataConfig, seed: int, tasks: Sequence[str], num_frames: int | None = None
) -> tuple[list[Clip], list[Clip]]:
    """(what is learned, what is not) of a person's photos: `data.held_out` that can show the main task are left out, the same
    ones where others are added or taken away, with `data.held_out_share` others. Raises UserError where there are not as many,
    or nothing would be left."""
    count, share, task = data.held_out, data.held_out_share, main_task(tasks)
    if not count:
        return list(photos), []
    able = _able(photos, data, task, num_frames)
    if len(able) < count or len(photos) <= count:
        raise UserError(
            f"data.held_out: {count} of {len(photos)} photos, {len(able)} of which show {task}; at least one has to be left to "
            "learn from, and what is held out has to show it: set a lower number, 0 for none"
        )
    if (share + 1) * count > len(able):
        raise UserError(
            f"data.held_out_share: {share} is not there; of the {len(able)} photos that show {task}, {count} at a time, the last "
            f"are {len(able) // count - 1}"
        )
    held = sorted(able, key=lambda clip: rng(seed, f"held out {clip.id}").random())[share * count :][:count]
    return [clip for clip in photos if clip not in held], held


def shares_of(photos: Sequence[Clip], data: DataConfig, tasks: Sequence[str], num_frames: int | None = None) -> int:
    """How many values of `data.held_out_share` there are, of which each holds out other photos."""
    return len(_able(photos, data, main_task(tasks), num_frames)) // data.held_out


def _able(photos: Sequence[Clip], data: DataConfig, task: str, num_frames: int | None) -> list[Clip]:
    return [clip for clip in photos if task in clip.available_tasks() and clip_samples(0, clip, data, num_frames, photos=True)]


def few_left(photos: int, data: DataConfig) -> list[str]:
    """A note where few of the photos are left to learn from."""
    left = photos - data.held_out
    if not data.held_out or left >= ENOUGH:
        return []
    return [f"data.held_out: {left} of {photos} photos are learned; with fewer than {ENOUGH}, what they lack is made up"]
