"""Sizes of the benchmark, its people and its judges."""

import dataclasses
import subprocess
import sys
from pathlib import Path

from meta_animator.benchmark.fewshot.cells import PEOPLE, Bench, Size
from meta_animator.benchmark.fewshot.judges import PoseJudge, train_pose_judge
from meta_animator.benchmark.fewshot.methods import METHODS
from meta_animator.benchmark.fewshot.people import TEST, TUNING, make_people
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.models.face import FaceEmbedder

RIVALS = ("first_photo", "nearest_photo", "stage0", "control_pose", "dreambooth", "meta_animator")
NAME = "bench.json"
KIND = ("side", "frames", "sampling_steps", "others", "judge_people", "judge_steps")  # beside how long stage 2 lasts
JUDGES_PEOPLE = 500_000  # seeds of puppets from here on are the judges' own


def size_of(name: str, tuning: bool = False, people: int = 0, **given: tuple) -> Size:
    """smoke, usual or full, with so many people, where it is not 0, and what else is given in its place.

    Raises UserError where there are not so many people.
    """
    pool = TUNING if tuning else TEST
    if not 0 <= people <= len(pool):
        raise UserError(f"--people: there are {len(pool)} people, not {people}")
    size = _usual(name, pool)
    given = given | ({"steps": tuple(sorted(set(given["steps"])))} if "steps" in given else {})
    return dataclasses.replace(size, **given, people=pool[:people] if people else size.people)


def _usual(name: str, people: tuple[int, ...]) -> Size:
    if name == "smoke":
        return Size(
            people=people[:1], photos=(3,), methods=("first_photo", "nearest_photo", "stage0", "dreambooth", "meta_animator"),
            steps=(2, 4), frames=4, sampling_steps=2, others=3, judge_people=12, judge_steps=4,
        )  # fmt: skip
    if name == "full":
        return Size(people=people[:8], photos=(1, 3, 5, 10), methods=tuple(METHODS), seeds=(0, 1), steps=(100, 250, 500, 1000))
    return Size(people=people[:8], photos=(5,), methods=RIVALS, steps=(100, 250, 500, 1000))


def open_bench(folder: Path, size: Size) -> Bench:
    """Make what is missing: people with their photos and motions, and the judges. Raises UserError for a folder whose people,
    judges and trainings are of another size."""
    _same_kind(folder, size)
    for photos in size.photos:
        make_people(folder / PEOPLE, list(size.people), photos, size.frames, size.side, size.others)
    judges, shown = folder / "judges", folder / "judges" / "people"
    if not (judges / "face").is_dir():
        _train_face_judge(judges, shown, size)
    if not (judges / "pose.safetensors").is_file():
        error = train_pose_judge(shown / "train", judges, size.judge_steps)
        print(f"the pose judge is off by {error:.1%} of the height on people it has not seen")
    return Bench(
        folder=folder, size=size, face=FaceEmbedder.from_pretrained(judges / "face").eval(), pose=PoseJudge.load(judges)
    )  # fmt: skip


def _same_kind(folder: Path, size: Size) -> None:
    """Writes what may not differ between cells of one folder, or compares it with what is written there."""
    kind = {name: getattr(size, name) for name in KIND} | {"steps": size.steps[-1]}
    if not (folder / NAME).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NAME, kind)
    known = read_json(folder / NAME)
    if other := [f"{name} {known.get(name)}, not {value}" for name, value in kind.items() if known.get(name) != value]:
        raise UserError(f"{folder}: holds a benchmark of another kind ({'; '.join(other)}); name another folder with --output")


def _train_face_judge(judges: Path, people: Path, size: Size) -> None:
    """As the base's embedder was trained, on other people, from another seed."""
    settings = (
        f"output_dir={judges / 'face_run'}", f"data.puppets.root={people}", f"data.puppets.identities={size.judge_people}",
        f"data.puppets.seed={JUDGES_PEOPLE}", f"data.train=[{people / 'train'}]", f"train.max_steps={size.judge_steps}",
        f"data.height={size.side}", f"data.width={size.side}", "train.preview_every=0", "train.ema_decay=0.99", "seed=1",
        f"train.checkpoint_every={size.judge_steps}", f"data.puppets.height={size.side}", f"data.puppets.width={size.side}",
    )  # fmt: skip
    for command in (
        ("scripts/train.py", "configs/demo/base_face.yaml", *settings),
        ("scripts/dev/export_base.py", judges / "face_run", judges),
    ):
        if subprocess.run([sys.executable, *map(str, command)], check=False).returncode:
            raise UserError(f"the face judge could not be trained; see above, and {judges / 'face_run'}")
