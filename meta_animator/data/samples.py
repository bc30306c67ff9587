"""From clips on disk to tensors: crop, draw the condition, find the face, write the prompt.

Letters: f frames of a sample, h w its size in pixels.
"""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from meta_animator.data.conditions import CONDITIONS, draw_condition, find_condition
from meta_animator.data.crops import person_crop, random_crop, size_of
from meta_animator.data.keypoints import five_points, flip_keypoints, person_box
from meta_animator.data.latents import FRAME, LatentCache, Unit, Wanted, name_of
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import Clip, read_manifest
from meta_animator.data.pose_drop import PoseDrop, drop_of, loses_parts
from meta_animator.data.prompts import fill_prompt
from meta_animator.data.tasks import Draw
from meta_animator.data.transforms import Box, crop_and_resize, flip_layers, move_keypoints
from meta_animator.diffusion.randomness import rng
from meta_animator.errors import UserError
from meta_animator.media.timeline import same_rate
from meta_animator.settings import DataConfig


@dataclasses.dataclass(frozen=True)
class Sample:
    """Frames `first`, `first + step`, ... of clip number `clip`, `count` of them."""

    clip: int
    first: int
    step: int = 1
    count: int = 1


def read_clips(folders: Sequence[str], split: str) -> list[Clip]:
    """Clips of one split of several data sets. UserError where there are none, or two of one name."""
    clips = [clip for folder in folders for clip in read_manifest(folder) if clip.split == split]
    if not clips:
        raise UserError(f"data {', '.join(folders) or '(data.train is empty)'}: no clip of the split '{split}'")
    return clips


class SampleSet(Dataset):
    """Clips of `num_frames`, or single frames of all clips and photos (`num_frames` None), which are clips of one; `[Draw]` gives
    what `batch.collate` stacks.

    photos        with `num_frames`: photos are samples too, of one frame each
    every         a clip begins at every so many frames of a film: more begin where each frame is encoded once for all of them
    identifiers   {identity: identifier}
    cache         where latents come from; conditions are then not drawn
    cropped_draws draws from this number on see no random crop; None: all may
    sees_pixels   with a cache: which draws' pixels are loaded, by their numbers; None: no one's, for runs whose loss has no
                  image terms
    """

    sees_pixels: Callable[[int], bool] | None = None
    cropped_draws: int | None = None

    def __init__(
        self, clips: list[Clip], config: DataConfig, *, seed: int, identifiers: Mapping[str, str],
        num_frames: int | None = None, photos: bool = False, every: int = 1, cache: LatentCache | None = None,
    ):  # fmt: skip
        self.clips, self.config, self.seed, self.cache = clips, config, seed, cache
        self.identifiers, self.num_frames, self.photos = dict(identifiers), num_frames, photos and num_frames is not None
        self.every = every
        for clip in clips:
            clip.video_reader = config.video_reader
        if config.flip:
            _check_mirrored(clips)
        self.samples = [s for k, clip in enumerate(clips) for s in clip_samples(k, clip, config, num_frames, photos, every)]
        if not self.samples:
            raise UserError(
                f"data: no clip is long enough for {num_frames} frames at this fps or stride; "
                f"the longest has {max(c.num_frames for c in clips)}"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def by_task(self, tasks: Sequence[str]) -> dict[str, list[int]]:
        """{task: indices of samples that can show it}; UserError where a task has none."""
        table = {task: [] for task in tasks}
        for index, sample in enumerate(self.samples):
            available = set(self.clips[sample.clip].available_tasks()) | {FRAME}
            for task in tasks:
                if task in available:
                    table[task].append(index)
        if empty := [task for task, indices in table.items() if not indices]:
            layers = ", ".join(dict.fromkeys(layer for task in empty for layer in CONDITIONS[task].needs))
            able = ",".join(task for task in table if task not in empty)
            raise UserError(
                f"data: no frame can show {', '.join(empty)}: the layers {layers} make them; add what is missing of these"
                + (f", or set model.tasks to [{able}]" if able else "")
            )
        return table

    def owners(self) -> dict[int, tuple[str, str]]:
        """{sample: (person, clip)}"""
        names = [(clip.identity, f"{clip.folder}/{clip.id}") for clip in self.clips]
        return {index: names[sample.clip] for index, sample in enumerate(self.samples)}

    def buckets(self) -> dict[int, tuple[int, int, int]] | None:
        """{sample: (frames, height, width)} where they are of several sizes; None where all are of one."""
        if not self.config.aspect_buckets and not self.photos:
            return None
        sizes = [size_of(clip, self.config) for clip in self.clips]
        return {index: (sample.count, *sizes[sample.clip]) for index, sample in enumerate(self.samples)}

    def kept_units(self, indices: Iterable[int], together: bool) -> list[tuple[Clip, list[Unit]]]:
        """What these samples show, by clip: each frame by itself, or `together` those of a sample."""
        units: dict[int, set[Unit]] = {}
        for index in indices:
            frames = self._frames(self.samples[index])
            units.setdefault(self.samples[index].clip, set()).update([tuple(frames)] if together else [(k,) for k in frames])
        return [(self.clips[k], sorted(units[k])) for k in sorted(units)]

    def wanted(self, draws: Iterable[Draw], together: bool) -> Wanted:
        """What of `kept_units` these draws show."""
        wanted: dict[tuple[str, str, str, int, int], set[Unit]] = {}
        for draw in draws:
            sample = self.samples[draw.sample]
            clip, frames, crop = self.clips[sample.clip], self._frames(sample), self._crop_number(draw)
            units = [tuple(frames)] if together else [(k,) for k in frames]
            for name, drop in {(FRAME, 0), (draw.task, 0 if draw.task == FRAME else self._drop_number(draw))}:
                wanted.setdefault((*name_of(clip), name, crop, drop), set()).update(units)
        return wanted

    def _frames(self, sample: Sample) -> list[int]:
        return [sample.first + k * sample.step for k in range(sample.count)]

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        sample = self.samples[draw.sample]
        clip = self.clips[sample.clip]
        frames = self._frames(sample)
        item = {
            "task": draw.task, "draws": draw.number, "prompts": self._prompt(clip, draw), "identities": clip.identity,
        }  # fmt: skip
        if self.cache is not None:
            crop = self._crop_number(draw)
            item["latents"] = self.cache.read(clip, FRAME, frames, crop)
            if draw.task != FRAME:
                item["control_latents"] = self.cache.read(clip, draw.task, frames, crop, self._drop_number(draw))
        if self.cache is not None and not (self.sees_pixels and self.sees_pixels(draw.number)):
            item |= {"pixels": None} if self.sees_pixels else {}
            places = [load_places(clip, k, self.config, self._crop(clip, draw), self._flips(draw)) for k in frames]
            item |= {name: torch.stack([getattr(one, name) for one in places]) for name in PLACES}
        else:
            task = draw.task if self.cache is None else FRAME  # a cached condition need not be drawn
            how = {"box": self._crop(clip, draw), "flip": self._flips(draw), "drop": self._drop(clip, draw)}
            shown = [load_frame(clip, k, task, self.config, **how) for k in frames]
            for name in ("pixels", *(["control_pixels"] if task != FRAME else [])):
                item[name] = torch.stack([getattr(one, name) for one in shown])
            item |= {name: torch.stack([getattr(one.places, name) for one in shown]) for name in PLACES}
        return item

    def reading(self, cache: LatentCache | None, sees_pixels: Callable[[int], bool] | None) -> "SampleSet":
        """The same samples, whose latents come from a cache; see there for what it makes unnecessary."""
        other = copy.copy(self)
        other.cache, other.sees_pixels = cache, sees_pixels
        return other

    def _prompt(self, clip: Clip, draw: Draw) -> str:
        if rng(self.seed, "prompt", draw.number).random() < self.config.prompt_drop:
            return ""
        return self.prompt_of(clip)

    def prompt_of(self, clip: Clip) -> str:
        return fill_prompt(self.config.prompt, self.identifiers.get(clip.identity, ""), clip.prompt)

    def prompts(self) -> list[str]:
        """Every prompt that a draw may have."""
        return list(dict.fromkeys([*map(self.prompt_of, self.clips), *([""] if self.config.prompt_drop else [])]))

    def _crop(self, clip: Clip, draw: Draw) -> Box:
        if self.config.random_crop and not self.config.crops and not self._is_whole(draw):
            return random_crop(clip, size_of(clip, self.config), self.config, rng(self.seed, "crop", draw.number))
        return crop_of(clip, self._crop_number(draw), self.config, self.seed)

    def _crop_number(self, draw: Draw) -> int:
        count = number_of_crops(self.config)
        if count == 1 or self._is_whole(draw):
            return 0
        return int(rng(self.seed, "crop", draw.number).integers(count))

    def _is_whole(self, draw: Draw) -> bool:
        """Whether a draw is one of those that see no random crop."""
        return self.cropped_draws is not None and draw.number >= self.cropped_draws

    def _flips(self, draw: Draw) -> bool:
        return bool(self.config.flip) and rng(self.seed, "flip", draw.number).random() < self.config.flip

    def _drop(self, clip: Clip, draw: Draw) -> PoseDrop | None:
        if not (number := self._drop_number(draw)):
            return None
        if not self.config.pose_variants:
            return PoseDrop(self.seed, f"of draw {draw.number}", per_frame=self.num_frames is None)
        return drop_of(clip, number, self._crop_number(draw), self.seed, per_frame=self.num_frames is None)

    def _drop_number(self, draw: Draw) -> int:
        """Which of a frame's drawings without some parts is taken; 0: the whole one."""
        random = rng(self.seed, "pose drop", draw.number)
        lost = bool(self.config.pose_drop) and random.random() < self.config.pose_drop
        return 1 + int(random.integers(max(1, self.config.pose_variants))) if lost else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where a frame shows its person, of a `Batch`: landmarks (5 2), face_visible (), person_boxes (4)."""

    landmarks: Tensor
    face_visible: Tensor
    person_boxes: Tensor


PLACES = tuple(field.name for field in dataclasses.fields(Places))
NOBODY = (0.0, 0.0, -1.0, -1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedFrame:
    """One frame ready for a model: pixels and control_pixels (3 h w) in [-1, 1], and where it shows its person."""

    pixels: Tensor
    control_pixels: Tensor | None
    places: Places
    layers: Layers


def of_one_size(pool: Sequence[int], samples: SampleSet, count: int) -> list[int]:
    """`count` samples of a pool, evenly chosen among those that have the size of most."""
    if (sizes := samples.buckets()) is not None:
        (most, _), *_ = Counter(sizes[index] for index in pool).most_common(1)
        pool = [index for index in pool if sizes[index] == most]
    return [pool[k * len(pool) // count] for k in range(count)]


def number_of_crops(config: DataConfig) -> int:
    """How many crops of a clip there are to choose from, at least 1."""
    return config.crops if config.random_crop and config.crops else 1


def crop_of(clip: Clip, number: int, config: DataConfig, seed: int) -> Box:
    """Crop `number` of a clip: 0 is its `person_crop`, the others are random functions of (seed, clip, number) inside of it."""
    if number == 0:
        return person_crop(clip, size_of(clip, config), config.person_margin)
    return random_crop(clip, size_of(clip, config), config, rng(seed, f"crop of {clip.id}", number))


def load_frame(
    clip: Clip, index: int, task: str, config: DataConfig, box: Box, flip: bool = False, drop: PoseDrop | None = None
) -> LoadedFrame:  # fmt: skip
    """Frame `index` of a clip with its condition image, both cropped to `box` and resized to the clip's `size_of`; a pose that
    is drawn from keypoints loses what `drop` says."""
    size = size_of(clip, config)
    drawn = task in clip.conditions
    needs = () if task == FRAME or drawn else CONDITIONS[task].needs
    layers = crop_and_resize(clip.load(index, tuple({FRAME, "keypoints", *needs})), box, size)
    if flip:
        layers = flip_layers(layers)
    control = None
    if drawn:
        image = crop_and_resize(Layers(frame=clip.load_condition(task, index)), box, size).frame
        control = to_pixels(image[:, ::-1].copy() if flip else image)
    elif task != FRAME:
        lost = drop is not None and loses_parts(task)
        posed = dataclasses.replace(layers, keypoints=drop.apply(layers.keypoints, index)) if lost else layers
        control = to_pixels(draw_condition(task, posed))
    whole = (0.0, 0.0, float(size[1]), float(size[0]))
    places = _places_of(None if layers.keypoints is None else move_keypoints(layers.keypoints, whole, size))  # none outside
    return LoadedFrame(pixels=to_pixels(layers.frame), control_pixels=control, places=places, layers=layers)


def load_places(clip: Clip, index: int, config: DataConfig, box: Box, flip: bool = False) -> Places:
    """The places of a frame, as in `LoadedFrame`, without its picture."""
    keypoints = clip.load_keypoints(index)
    if keypoints is not None:
        size = size_of(clip, config)
        keypoints = move_keypoints(keypoints, box, size)
        keypoints = flip_keypoints(keypoints, size[1]) if flip else keypoints
    return _places_of(keypoints)


def _places_of(keypoints: np.ndarray | None) -> Places:
    points = None if keypoints is None else five_points(keypoints)
    box = None if keypoints is None else person_box(keypoints)
    return Places(
        landmarks=torch.zeros(5, 2) if points is None else torch.from_numpy(points),
        face_visible=torch.tensor(points is not None),
        person_boxes=torch.tensor(NOBODY if box is None else box),
    )


def _check_mirrored(clips: Sequence[Clip]) -> None:
    for clip in clips:
        if sided := sorted(task for task in clip.conditions if find_condition(task).sided):
            raise UserError(
                f"data.flip: clip '{clip.id}' has drawn images of {', '.join(sided)}, in which left and right cannot be swapped; "
                "set data.flip=0"
            )


def clip_samples(
    number: int, clip: Clip, config: DataConfig, num_frames: int | None, photos: bool = False, every: int = 1
) -> list[Sample]:  # fmt: skip
    """Every frame of a clip, or whole windows of `num_frames` at the wanted fps or stride, which begin at every so many frames;
    of a photo its one frame, where `photos` are wanted beside clips. None of what only drives, and has no frames."""
    if not clip.has_frames:
        return []
    if num_frames is None or (photos and clip.kind == "photo"):
        return [Sample(number, k) for k in range(clip.num_frames)]
    if clip.kind == "photo":
        return []
    step = clip_step(clip, config)
    last = clip.num_frames - (num_frames - 1) * step
    return [Sample(number, k, step, num_frames) for k in range(0, max(0, last), every)]


def several(num_frames: int) -> int | None:
    """The frames of a sample as `SampleSet` takes them: None where it is a single frame."""
    return num_frames if num_frames > 1 else None


def clip_step(clip: Clip, config: DataConfig) -> int:
    """Stored frames between two frames of a training clip: whole numbers, so that `data.fps` is met as nearly as they can."""
    return max(1, round(clip.fps / config.fps)) if config.fps else config.stride


def training_rate(clips: Sequence[Clip], config: DataConfig, say: Callable[[str], None]) -> float:
    """Frames per second of stage 1's clips, the median over `clips`; says where they differ from `data.fps` or each other."""
    pairs = sorted({(clip.fps, clip.fps / clip_step(clip, config)) for clip in clips})
    median = float(np.median([clip.fps / clip_step(clip, config) for clip in clips]))
    off = [f"{rate:.3g} from {own:.3g}" for own, rate in pairs if config.fps and not same_rate(rate, config.fps)]
    several = not same_rate(min(rate for _, rate in pairs), max(rate for _, rate in pairs))
    if off:
        some = ", ".join(off[:4]) + (", ..." if len(off) > 4 else "")
        say(f"note: data.fps: {config.fps:g} frames per second cannot be had of all clips by leaving out frames; it is {some}")
    if several:
        low, high = min(rate for _, rate in pairs), max(rate for _, rate in pairs)
        say(f"note: the clips have {low:.3g} to {high:.3g} frames per second; {median:.3g}, their median, is recorded")
    return median


def to_pixels(image: np.ndarray) -> Tensor:
    """uint8 (h w 3) to float32 (3 h w) in [-1, 1]."""
    return rearrange(torch.tensor(image), "h w c -> c h w").float() / 127.5 - 1


def to_images(pixels: Tensor) -> np.ndarray:
    """(... 3 h w) in [-1, 1], clipped, to uint8 (... h w 3)."""
    image = ((pixels.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rearrange(image, "... c h w -> ... h w c").contiguous().numpy()
