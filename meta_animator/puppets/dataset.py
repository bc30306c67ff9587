"""Puppets as data sets on disk, in the same format as real footage."""

import dataclasses
import functools
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from meta_animator.data.layers import Layers
from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.puppets.rendering.flow import backward_flow
from meta_animator.puppets.rendering.identity import make_identity
from meta_animator.puppets.rendering.motion import MOTIONS, ON_FOOT
from meta_animator.puppets.rendering.render import render_clip
from meta_animator.puppets.rendering.scene import make_scene
from meta_animator.settings import PuppetsConfig

HELDOUT = 1_000_000  # identity and motion seeds from here on are never in a train set


def ensure_puppets(config: PuppetsConfig) -> None:
    """Make what is missing of <root>/train (many people), <root>/person (photos of a held-out person) and
    <root>/driving (that person in an unseen motion: the poses to follow, and the truth to compare with)."""
    if not config.root:
        return
    root = Path(config.root)
    _check_same_puppets(config, root / "puppets.json")
    for name, make in (("train", make_train), ("person", make_person), ("driving", make_driving)):
        if not (root / name / "manifest.jsonl").exists():
            print(f"making puppets: {root / name}", flush=True)
            make(config, root / name)


def _check_same_puppets(config: PuppetsConfig, note: Path) -> None:
    """Raises UserError where the folder holds puppets of other settings; a new folder gets a note of its own.

    A note from before a setting existed means the setting's default.
    """
    wanted = {name: value for name, value in dataclasses.asdict(config).items() if name != "root"}
    if note.exists():
        made = dataclasses.asdict(PuppetsConfig()) | read_json(note)
        for name, value in wanted.items():
            if made[name] != value:
                raise UserError(
                    f"{note.parent}: was made with {name} {made[name]}, this run's data.puppets.{name} is {value}; "
                    "name another data.puppets.root, or delete the folder"
                )
    elif not (note.parent / "train").exists():
        write_json(note, wanted)


def make_train(config: PuppetsConfig, folder: Path) -> None:
    """`identities` people with `clips` clips each, motions and cameras of their own."""
    jobs = []
    for person in range(config.seed, config.seed + config.identities):
        for clip in range(config.clips):
            motion = person * config.clips + clip
            jobs.append((person, motion, MOTIONS[motion % len(MOTIONS)], motion))
    with DatasetWriter(folder) as writer:
        rendered = _render_all(config, config.frames, jobs)
        for (person, motion, kind, _), layers in zip(jobs, tqdm(rendered, total=len(jobs), unit="clip"), strict=True):
            writer.add(
                id=f"{_name(person)}-{motion:06d}-{kind}", identity=_name(person), layers=layers, fps=config.fps,
                prompt=describe(person),
            )  # fmt: skip


def make_person(config: PuppetsConfig, folder: Path) -> None:
    """`photos` photos of the held-out person on foot in different poses, all with one camera."""
    person = HELDOUT + config.seed
    jobs = [(person, person + 1 + k, ON_FOOT[k % len(ON_FOOT)], person) for k in range(config.photos)]
    with DatasetWriter(folder) as writer:
        for k, layers in enumerate(_render_all(config, 1 + config.fps, jobs)):
            writer.add(
                id=f"photo-{k:02d}", identity=_name(person), layers=layers[-1:], fps=1, kind="photo",
                prompt=describe(person),
            )  # fmt: skip


def make_driving(config: PuppetsConfig, folder: Path) -> None:
    """One clip of the held-out person in a motion that no other set shows, seen by the camera of the photos."""
    person = HELDOUT + config.seed
    jobs = [(person, person, "dance", person)]
    with DatasetWriter(folder) as writer:
        for layers in _render_all(config, config.driving_frames, jobs):
            writer.add(id="driving", identity=_name(person), layers=layers, fps=config.fps, prompt=describe(person))


def driving_flow(config: PuppetsConfig) -> np.ndarray:
    """Where each pixel of the person in the clip of `make_driving` was in the frame before: see `backward_flow`. UserError
    where its camera moves."""
    if config.camera_motion:
        raise UserError("data.puppets.camera_motion: the true motion of a film is known for cameras that stand still alone (0)")
    person = HELDOUT + config.seed
    return backward_flow(
        person, person, config.driving_frames, config.fps, (config.height, config.width), motion_kind="dance", camera_seed=person
    )  # fmt: skip


def describe(person: int) -> str:
    """The prompt of a puppet in its scene."""
    return f"{make_identity(person).describe()} {make_scene(person).describe()}"


def _render_all(config: PuppetsConfig, frames: int, jobs: list[tuple[int, int, str, int]]) -> Iterable[list[Layers]]:
    """Clips in the order of `jobs` (person, motion, kind, camera), rendered by all cores."""
    render = functools.partial(_render_job, config, frames)
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        yield from pool.map(render, jobs)


def _render_job(config: PuppetsConfig, frames: int, job: tuple[int, int, str, int]) -> list[Layers]:
    person, motion, kind, camera = job
    return render_clip(
        person, motion, frames, config.fps, (config.height, config.width), motion_kind=kind, camera_seed=camera,
        camera_motion=config.camera_motion,
    )  # fmt: skip


def _name(person: int) -> str:
    return f"puppet-{person:07d}"


def puppet_sheet(config: PuppetsConfig, people: int = 10) -> Path:
    """A picture of the first people of the train set, a row each: the frame and its nine conditions."""
    from meta_animator.data.conditions import CONDITIONS
    from meta_animator.data.manifest import read_manifest
    from meta_animator.media.images import write_image
    from meta_animator.media.sheets import grid

    rows = []
    for clip in read_manifest(Path(config.root) / "train")[:people]:
        middle = clip.num_frames // 2
        rows.append([clip.load(middle, ("frame",)).frame, *(clip.load_condition(t, middle) for t in CONDITIONS)])
    return write_image(Path(config.root) / "sheet.png", grid(rows, column_titles=["frame", *CONDITIONS]))
