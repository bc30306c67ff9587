"""Whether the data sets and pictures that a run names are there and can show what it needs."""

import re
from pathlib import Path

from meta_animator.data.manifest import Clip, is_data_set, read_manifest
from meta_animator.data.samples import SampleSet, several
from meta_animator.errors import UserError
from meta_animator.sampling.opening import check_references, open_inputs
from meta_animator.settings import NETWORKS, DataConfig, ModelConfig, SampleConfig, TrainConfig
from meta_animator.stages.check_checkpoints import Absent
from meta_animator.stages.check_settings import trained_tasks
from meta_animator.stages.held_out import few_left, hold_out


def check_data(stage: str, data: DataConfig, model: ModelConfig, train: TrainConfig) -> list[str] | None:
    """Raises UserError for data sets that are not there or cannot show what is to be learned, else returns notes. Those that the
    run makes first are left alone."""
    auxiliary = data.auxiliary if stage == "reference" and data.auxiliary_sets else []
    clips = {folder: _clips(folder, data) for folder in [*data.train, *auxiliary]}
    if None in clips.values():
        return None
    learned = [clip for folder in data.train for clip in clips[folder] if clip.split == data.split]
    if not learned:
        raise UserError(f"data {', '.join(data.train) or '(data.train is empty)'}: no clip of the split '{data.split}'")
    if stage == "reference":
        person = only_person(learned)
        shown = [clip for folder in auxiliary for clip in clips[folder] if clip.split == data.split]
        if auxiliary:
            check_others([clip for clip in shown if clip.identity != person], {person}, data)
    if stage in NETWORKS:
        num_frames = data.num_frames if stage == "motion" else None
        if stage in ("control", "reference"):
            num_frames = several(data.clip_frames)
        tasks = trained_tasks(stage, model, train)
        if stage == "reference":
            hold_out(learned, data, 0, tasks, num_frames)
        SampleSet(learned, data, seed=0, identifiers={}, num_frames=num_frames, photos=stage != "motion").by_task(tasks)
    return few_left(len(learned), data) if stage == "reference" else None


def _clips(folder: str, data: DataConfig) -> list[Clip] | None:
    """The clips of a data set; None for one that the run makes first."""
    if not is_data_set(folder) and _is_made_first(Path(folder), data):
        return None
    try:
        return read_manifest(folder)
    except UserError as error:
        raise (UserError if is_data_set(folder) else Absent)(str(error)) from None


def _is_made_first(path: Path, data: DataConfig) -> bool:
    return bool(data.puppets.root) and Path(data.puppets.root).resolve() in path.resolve().parents


def _maker(path: Path, data: DataConfig) -> str:
    """What makes a data set that is not there."""
    if _is_made_first(path, data):
        return "any training stage of this config's makes this data set, such as bash Step0_train_BaseCtrl_LoRA.sh"
    return "scripts/prepare_data.py makes data sets"


def only_person(clips: list[Clip]) -> str:
    people = sorted({clip.identity for clip in clips})
    if len(people) != 1:
        raise UserError(f"stage 2 learns one person; data.train holds {len(people)}: {', '.join(people[:4])}")
    return people[0]


def check_others(clips: list[Clip], people: set[str], data: DataConfig) -> None:
    """Raises UserError where the auxiliary data sets show only the `people` who are learned: no clip of others."""
    if not clips:
        raise UserError(
            f"data.auxiliary {', '.join(data.auxiliary)}: shows nobody but {', '.join(sorted(people))}; name data of "
            "other people (another --identity), or set data.auxiliary=[] to train without"
        )


# what stage 3 opens, and what it writes

WRITTEN_ANEW, PICTURE = ("frames", "driving"), re.compile(r"\d{6}\.png")


def check_inputs(sample: SampleConfig, data: DataConfig) -> None:
    """Raises UserError for a driving motion or a reference photo that is not there."""
    for key in ("driving", "reference"):
        path = getattr(sample, key)
        if path and not Path(path).exists() and not is_data_set(path):
            kind = "a photo or a data set" if key == "reference" else "a data set, a drawn pose video, a keypoint .npz or JSON"
            raise Absent(f"sample.{key}: {path}: no such file or folder; expected {kind}; {_maker(Path(path), data)}")
    check_references(sample.reference, sample.reference_clip, sample.references)


def check_own_folders(sample: SampleConfig, output_dir: str) -> None:
    """Raises UserError where what stage 3 writes anew, `frames` and `driving`, holds what is not its own."""
    for folder in (Path(output_dir) / name for name in WRITTEN_ANEW):
        for key in ("driving", "reference"):
            path = getattr(sample, key)
            if path and Path(path).exists() and Path(path).resolve().is_relative_to(folder.resolve()):
                raise UserError(f"sample.{key}: {path}: stage 3 writes {folder} anew; name another output_dir")
        others = [one.name for one in folder.glob("[!.]*") if not PICTURE.fullmatch(one.name)] if folder.is_dir() else []
        if others:
            raise UserError(f"{folder}: holds {min(others)}, which stage 3 would delete; name another output_dir")


def try_inputs(sample: SampleConfig, data: DataConfig, seed: int, model: ModelConfig) -> None:
    """Raises UserError for a driving motion or a reference photo that is not there or does not do."""
    check_inputs(sample, data)
    open_inputs(sample, data, seed, model)
