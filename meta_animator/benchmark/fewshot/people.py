"""Whom the benchmark is about: puppets whom no base, stage 0 or stage 1 has seen, each with photos and an unseen motion."""

from pathlib import Path

import numpy as np

from meta_animator.puppets.dataset import HELDOUT, driving_flow, make_driving, make_person, make_train
from meta_animator.settings import PuppetsConfig

TEST = tuple(range(1000, 1016))  # added to HELDOUT; used once for each table that is reported
TUNING = tuple(range(2000, 2016))  # what settings are chosen by
OTHERS = 24  # people of the auxiliary set, of the base's world


def make_people(folder: Path, people: list[int], photos: int, frames: int, size: int, others: int = OTHERS) -> None:
    """What is missing of <folder>/others and of <folder>/<person>/{photos-<photos>, driving}. More photos begin with the
    fewer."""

    def settings(person: int) -> PuppetsConfig:
        return puppets(folder, person, photos, frames, size, others)

    wanted = [(make_train, 0, others_of(folder))]
    for person in people:
        wanted += [(make_person, person, photos_of(folder, person, photos)), (make_driving, person, driving_of(folder, person))]
    for make, person, target in wanted:
        if not (target / "manifest.jsonl").exists():
            make(settings(person), target)


def puppets(folder: Path, person: int, photos: int, frames: int, size: int, others: int = OTHERS) -> PuppetsConfig:
    return PuppetsConfig(
        root=str(folder), identities=others, frames=12, fps=12, photos=photos, driving_frames=frames, height=size, width=size,
        seed=person,
    )  # fmt: skip


def true_flow(folder: Path, person: int, frames: int, size: int) -> np.ndarray:
    """Of a person's motion: float32 (frames - 1, size, size, 2), as `backward_flow` has it."""
    return driving_flow(puppets(folder, person, 1, frames, size))


def others_of(folder: Path) -> Path:
    return folder / "others"


def photos_of(folder: Path, person: int, photos: int) -> Path:
    return folder / str(person) / f"photos-{photos}"


def driving_of(folder: Path, person: int) -> Path:
    return folder / str(person) / "driving"


def name_of(person: int) -> str:
    """As the data sets call a person."""
    return f"puppet-{HELDOUT + person:07d}"
