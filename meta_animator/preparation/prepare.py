"""From a video or photos, with keypoints and a person mask, to a data set on disk and contact sheets of it."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from meta_animator.data.conditions import CONDITIONS, draw_condition
from meta_animator.data.formats.maps import NOTHING, Given
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import crop_and_resize
from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid
from meta_animator.preparation.footage import check_apart, default_identity
from meta_animator.preparation.sources import Photos, Source, Video, find_photos

SHEET_FRAMES = 8
SMALLEST, LARGEST = 16, 8192  # pixels of a side


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to make from what.

    inputs     one video, one folder of photos, or several photos
    keypoints  .npz with keypoints and maybe masks, or for photos a folder of them, as `annotations` describes
    given      masks, depth, normals, body parts
    size       (height, width) to crop and scale to, around the person; None keeps the frames as they are
    fps        frames per second to keep of a video; None keeps all
    heldout    (first, end) frame numbers of the input kept out of training; end is not included
    """

    inputs: Sequence[Path]
    output: Path
    keypoints: Path | None = None
    given: Given = NOTHING
    identity: str = ""
    prompt: str = ""
    size: tuple[int, int] | None = None
    fps: float | None = None
    heldout: tuple[int, int] | None = None
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was made; `skipped` names the photos without a person, `empty` counts such frames of the `of` of a video; `notes`
    say what else is to be known of points and crops."""

    frames: int
    heldout: int
    skipped: list[str]
    empty: int
    tasks: list[str]
    of: int = 0
    notes: Sequence[str] = ()


def prepare(config: PrepareConfig, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Writes the data set and its sheets. `progress(done, of)` is called after each frame.

    Raises UserError for inputs that cannot be read, or keypoints and masks that do not belong to them.
    """
    check_size(config.size)
    check_apart(config.inputs, config.output)
    photos = find_photos(config.inputs)
    source = Photos(photos, config.keypoints, config.given) if photos else Video(config.inputs[0], config.keypoints, config.given)
    identity = config.identity.strip() or default_identity(config.inputs)
    name = _plain(default_identity(config.inputs))
    kept = source.select(config.fps)
    runs = _split(kept, source.num_frames, config.heldout)
    shown = {kept[round(i)] for i in np.linspace(0, len(kept) - 1, min(SHEET_FRAMES, len(kept)))}
    samples: dict[int, tuple[str, Layers]] = {}
    done = 0

    def loaded(indices: list[int], heldout: bool) -> Iterator[Layers]:
        nonlocal done
        for index, layers in zip(indices, cropped(source, indices, config.size), strict=True):
            if index in shown:
                samples[index] = (f"{source.title(index)}{' (held out)' if heldout else ''}", layers)
            done += 1
            if progress is not None:
                progress(done, len(kept))
            yield layers

    with DatasetWriter(config.output, overwrite=config.overwrite) as writer:
        for number, (indices, heldout) in enumerate(runs):
            about = {"identity": identity, "prompt": config.prompt, "split": "heldout" if heldout else "train"}
            if photos:
                for index in indices:
                    id = f"{name}-{index:03d}"
                    writer.add(id=id, layers=loaded([index], heldout), fps=1, kind="photo", **about)
            else:
                id = f"{name}-heldout" if heldout else name if number == 0 else f"{name}-{number + 1}"
                writer.add(id=id, layers=loaded(indices, heldout), fps=config.fps or source.fps, **about)
        tasks = write_sheets(writer.staging / "sheets", [samples[index] for index in sorted(samples)], title=identity)
    out = sum(len(indices) for indices, heldout in runs if heldout)
    return Summary(done, out, source.skipped, source.empty, tasks, source.num_frames, source.notes())


def check_size(size: tuple[int, int] | None) -> None:
    """Raises UserError for a (height, width) that no frame can have."""
    if size and not all(SMALLEST <= side <= LARGEST for side in size):
        raise UserError(f"--size {size[0]} {size[1]}: expected height and width, {SMALLEST} to {LARGEST} pixels")


def write_sheets(folder: Path, samples: Sequence[tuple[str, Layers]], title: str = "") -> list[str]:
    """One contact sheet per task that these (title, layers) can show, and `overview.png` with all; returns the tasks.

    A task's sheet has the frames above their condition images.
    """
    titles = [text for text, _ in samples]
    frames = [layers.frame for _, layers in samples]
    rows: dict[str, list[np.ndarray]] = {}
    for name, task in CONDITIONS.items():
        if all(getattr(layers, need) is not None for _, layers in samples for need in task.needs):
            rows[name] = [draw_condition(name, layers) for _, layers in samples]
            sheet = grid([frames, rows[name]], titles, ["frame", name], title=f"{title}: {name}", cell=320)
            write_image(folder / f"{name}.png", sheet)
    overview = grid([frames, *rows.values()], titles, ["frame", *rows], title=title, cell=200)
    write_image(folder / "overview.png", overview)
    return list(rows)


def _split(kept: list[int], count: int, heldout: tuple[int, int] | None) -> list[tuple[list[int], bool]]:
    """Runs of frames without a gap, each with whether it is held out; training runs first."""
    if heldout is None:
        return [(kept, False)]
    first, end = heldout
    if not 0 <= first < end <= count:
        raise UserError(
            f"--heldout-frames {first}:{end}: expected A:B with 0 <= A < B <= {count}, the frames there are"
        )
    before, after = [i for i in kept if i < first], [i for i in kept if i >= end]
    inside = [i for i in kept if first <= i < end]
    if not inside or not (before or after):
        raise UserError(
            f"--heldout-frames {first}:{end}: leaves no frame to {'hold out' if not inside else 'train on'}"
        )
    return [(run, False) for run in (before, after) if run] + [(inside, True)]


def cropped(source: Source, indices: list[int], size: tuple[int, int] | None) -> Iterator[Layers]:
    """The frames, all of a film cut to one box so that the camera stays still."""
    box = None
    for index, layers in zip(indices, source.read(indices), strict=True):
        if size is not None:
            box = box or source.box(index, layers, size)
            layers = crop_and_resize(layers, box, size)
        yield layers


def _plain(name: str) -> str:
    """Fit for ids of clips."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-") or "person"
