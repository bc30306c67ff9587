"""What drives an animation and whom it shows: the driving motion and the reference photo, opened and put together."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_animator.checkpoints.files import trained_fps
from meta_animator.data.annotations import check_points, outside_note
from meta_animator.data.clips import Clip, driving_clip
from meta_animator.data.conditions.colour_order import recognise_colour_order
from meta_animator.data.crops import Framing, crop_notes, figure_crop, figure_size, framing_of
from meta_animator.data.drawn_pose import TASKS, check_drawn_pose
from meta_animator.data.figures import Figure, figure_of_clip, figure_of_frame
from meta_animator.data.formats.keypoint_json import holds_json
from meta_animator.data.keypoint_clips import json_clip, keypoint_clip
from meta_animator.data.keypoints import sees_person
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import MANIFEST, find_clip, is_data_set, read_manifest
from meta_animator.data.read_drawn import read_clip
from meta_animator.data.transforms import crop_and_resize
from meta_animator.diffusion.randomness import rng
from meta_animator.errors import UserError
from meta_animator.media.images import IMAGE_SUFFIXES, PHOTO_SUFFIXES, read_alpha, read_image
from meta_animator.media.timeline import check_fps, same_rate
from meta_animator.models.backbones.frames import TEMPORAL
from meta_animator.sampling.driving import Driving
from meta_animator.sampling.fitting import find_person, fit_to_reference, photo_points
from meta_animator.settings import DataConfig, ModelConfig, SampleConfig

COLOUR_FRAMES = 12  # looked at to tell red from blue


def open_inputs(
    sample: SampleConfig, data: DataConfig, seed: int, model: ModelConfig
) -> tuple[Driving, Layers | None]:  # fmt: skip
    """The driving motion and the reference photo that a config names, put together. Raises UserError where one of them is
    missing or does not do.

    model   what the frames are for: `motion_from` may know the rate to generate at, a `backbone` with latent frames of several
            frames moves poses that are in a wrong order by whole ones
    """
    size, margin = (data.height, data.width), data.person_margin
    photo = read_reference(sample.reference, sample.reference_clip) if sample.reference else None
    if photo is not None and data.aspect_buckets:
        size = figure_size(photo[1], photo[0].size, data)
        print(f"note: frames are {size[1]}x{size[0]}, the bucket of {sample.reference} ({photo[0].size[1]}x{photo[0].size[0]})")
    driving = open_driving(
        sample.driving, sample.driving_clip, list(sample.tasks), size, max_frames=sample.max_frames,
        shuffle_seed=seed if sample.shuffle_driving else None, together=2 ** sum(TEMPORAL) if model.backbone == "wan" else 1,
        margin=margin, fps=wanted_fps(sample.fps, model.motion_from), own_fps=sample.driving_fps, read_pose=sample.read_pose,
    )  # fmt: skip
    reference = None if photo is None else crop_reference(*photo, size, margin)
    fitting = sample.fit_pose != "no"
    shown = [] if fitting else [framing_of("sample.driving", driving.clip, size)]
    if photo is not None:
        shown.append(Framing("sample.reference", photo[1], photo[0].size, size))
    for note in crop_notes(shown, margin):
        print(f"note: {note}")
    if reference is None and fitting:
        raise UserError("sample.fit_pose needs sample.reference, the person to fit to")
    if reference is None and sample.init_noise == "inversion":
        raise UserError("sample.reference is empty: init_noise 'inversion' starts from a photo of the person")
    if fitting:
        person = find_person(*photo, size, margin, photo_points(sample.reference, sample.reference_clip))
        driving = fit_to_reference(driving, person, list(sample.tasks), sample.fit_pose, sample.smooth_pose)
    return driving, reference


def open_driving(
    path: str, clip_id: str, tasks: Sequence[str], size: tuple[int, int], *, max_frames: int = 0,
    shuffle_seed: int | None = None, together: int = 1, margin: float = 0.0, fps: float = 0.0, own_fps: float = 0.0,
    read_pose: bool = False,
) -> Driving:  # fmt: skip
    """The driving motion that a config names: a data set's clip, a drawn pose video, a keypoint .npz, or keypoint JSON of others
    (a file, or a folder with one for each frame), resampled by time to `fps` frames per second (0: its own rate, which for JSON
    is `own_fps`). With `read_pose`, drawn poses are read back into keypoints.

    Raises UserError where it is missing or cannot show one of `tasks`.
    """
    clip = _open_clip(path, clip_id, own_fps)
    for task in tasks:
        if task not in clip.available_tasks():
            have = ", ".join(clip.available_tasks()) or "none"
            raise UserError(f"driving {path}: cannot show the task '{task}'; it can show: {have}")
    shown, rate = clip.timeline.resampled(fps)
    note_resampling(path, clip, rate)
    shown = shown[: max_frames or len(shown)]
    order = shown if shuffle_seed is None else wrong_order(shown, shuffle_seed, together)
    for task in TASKS:
        if task in tasks and task in clip.conditions:
            check_drawn_pose(clip, task, f"driving {path}")
    swap = False
    if "dwpose" in clip.conditions:
        some = np.linspace(0, clip.num_frames - 1, min(COLOUR_FRAMES, clip.num_frames)).round().astype(int)
        swap = recognise_colour_order([clip.load_condition("dwpose", int(k)) for k in some]) == "bgr"
        if swap:
            warnings.warn(f"driving {path}: red and blue are swapped in these poses; they are swapped back", stacklevel=2)
    driving = Driving(clip=clip, size=size, order=order, fps=rate, shown=shown, margin=margin, swap_colours=swap)
    if read_pose and "dwpose" in clip.conditions and "keypoints" not in clip.layers:
        driving = _read_pose(driving, f"driving {path}")
    _check_person(driving.clip, f"driving {path}")
    return driving


def _read_pose(driving: Driving, where: str) -> Driving:
    """The same with keypoints read from them in the place of drawn poses, and a word on how many frames were read."""
    last = max(driving.shown) + 1
    clip, reading = read_clip(driving.clip, lambda k: driving.drawn("dwpose", k), last)
    if reading.good:
        print(f"note: {where}: poses read from {reading.read} of {last} drawn frames, and drawn anew")
        return dataclasses.replace(driving, clip=clip, swap_colours=False)
    print(
        f"note: {where}: {reading.read} of {reading.drawn} drawn poses could be read, too few; they are used as they are, "
        "fitted by their outlines"
    )
    return dataclasses.replace(driving, clip=clip)


def wanted_fps(fps: float, motion_from: str) -> float:
    """The rate to generate at: `sample.fps` where it is set, else what the motion module was trained at; 0: the driving's."""
    trained = trained_fps(motion_from)
    if not fps:
        return trained
    if trained and not same_rate(fps, trained):
        print(f"note: sample.fps is {fps:g}; the motion module {motion_from} was trained at {trained:g} frames per second")
    return check_fps(fps, "sample.fps")


def note_resampling(path: str, clip: Clip, rate: float) -> None:
    """Say where the driving is not taken frame by frame."""
    if clip.timeline.steady and same_rate(clip.fps, rate):
        return
    own = f"{clip.fps:.4g} frames per second" + ("" if clip.timeline.steady else " at most times")
    slower = "; it has fewer, so that poses repeat" if clip.fps < rate else ""
    print(f"note: driving {path}: has {own}; it is resampled by time to {rate:.4g}{slower}")


def _check_person(clip: Clip, where: str) -> None:
    """Says in how many frames a clip's keypoints show a person, and how many points lie outside. UserError where none does."""
    if "keypoints" not in clip.layers:
        return
    points = np.stack([clip.load_keypoints(k) for k in range(clip.num_frames)])
    seen, size = int(sees_person(points).sum()), (clip.height, clip.width)
    if not seen:
        raise UserError(f"{where}: no person in any of the {len(points)} frames (all scores below 0.3)")
    if seen < len(points):
        print(f"note: {where}: a person is seen in {seen} of {len(points)} frames ({seen / len(points):.0%})")
    for note in outside_note(*check_points(clip.folder / clip.layers["keypoints"], points, size, f"clip '{clip.id}'")):
        print(f"note: {where}: {note}")


def _open_clip(place: str, clip_id: str, own_fps: float) -> Clip:
    if is_data_set(place):
        return find_clip(place, clip_id)
    path = Path(place)
    if holds_json(path):
        return json_clip(path, own_fps)
    if path.suffix == ".npz":
        return keypoint_clip(path)
    if path.is_dir():
        raise UserError(f"driving {path}: a folder without {MANIFEST}; give a data set, a pose video or keypoints (.npz, JSON)")
    return driving_clip(path)


def wrong_order(order: list[int], seed: int, together: int = 1) -> list[int]:
    """`order` with another pose for every frame that can have one: a rotation of a random permutation's cycle.

    together   so many frames go to their new place in one piece, as one latent frame has them: the first frame is one by itself,
               every `together` more are the next. Single poses mixed within a latent frame would not be wrong poses to a network
               that sees them as one, but a blurred one in the middle. A piece that is shorter than its new place is held there.
    """
    pieces = [order[:1], *(order[k : k + together] for k in range(1, len(order), together))]
    cycle = rng(seed, "shuffled driving").permutation(len(pieces)).tolist()
    moved = list(pieces)
    for place, following in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        source, size = pieces[following], len(pieces[place])
        moved[place] = [source[min(k, len(source) - 1)] for k in range(size)]
    return [frame for piece in moved for frame in piece]


def crop_reference(layers: Layers, figure: Figure | None, size: tuple[int, int], margin: float = 0.0) -> Layers:
    """What `read_reference` gives at the output's size, cropped around the person."""
    return crop_and_resize(layers, figure_crop(figure, layers.size, size, margin), size)


def read_reference(path: str, clip_id: str = "") -> tuple[Layers, Figure | None]:
    """The reference photo as it is, of a data set that of this id or the first, and where it shows the person. Raises UserError
    where there is none."""
    place = Path(path)
    if is_data_set(path):
        clip = find_clip(path, clip_id)
        return clip.load(_first_seen(clip, path)), figure_of_clip(clip)
    if place.suffix.lower() not in PHOTO_SUFFIXES or not place.is_file():
        raise UserError(f"reference '{path}': expected a photo ({', '.join(IMAGE_SUFFIXES)}) or a data-set folder")
    layers = Layers(frame=read_image(place), mask=read_alpha(place))
    return dataclasses.replace(layers, mask=None), figure_of_frame(layers)


def open_references(path: str, first: str, count: int, size: tuple[int, int], margin: float = 0.0) -> list[Layers]:
    """`count` photos of the reference person at the output's size, for a base that is shown them beside the pose: of a data set
    the clip `first`, if it is named, then the others in order, each its first frame with a person. Raises UserError where there
    are fewer."""
    names = sorted(_photos(path, first, count), key=lambda name: name != first)  # keeps the order of the others
    return [crop_reference(*read_reference(path, name), size, margin) for name in names[:count]]


def check_references(path: str, first: str, count: int) -> None:
    """Raises UserError where there are fewer than `count` photos for `open_references`."""
    _photos(path, first, count)


def _photos(path: str, first: str, count: int) -> list[str]:
    """The ids of the photos that there are to choose `count` from: of the person whom `first`, or the first clip, shows."""
    if not count:
        return []
    if not path:
        raise UserError(f"sample.reference is empty: sample.references={count} takes photos of the person from it")
    if not is_data_set(path):
        names, whose = [""], ""
    else:
        identity = find_clip(path, first).identity
        names, whose = [clip.id for clip in read_manifest(path) if clip.identity == identity], f" of '{identity}'"
    if len(names) < count:
        raise UserError(f"sample.references: {count} photos are asked for, {path} has {len(names)}{whose}")
    return names


def _first_seen(clip: Clip, path: str) -> int:
    """The first frame of a reference clip in which a person is seen; 0 where no keypoints tell."""
    if "keypoints" not in clip.layers:
        return 0
    seen = [k for k in range(clip.num_frames) if sees_person(clip.load_keypoints(k))]
    if not seen:
        raise UserError(f"reference '{path}': clip '{clip.id}' shows no person (all scores below 0.3)")
    if seen[0] > 0:
        print(f"note: reference '{path}': a person is first seen in frame {seen[0]} of clip '{clip.id}', which is taken")
    return seen[0]
