"""What can be told to be wrong before anything is rendered, loaded or encoded: from the config, from the files that are there
and from what checkpoints say of themselves (check_checkpoints.py). `--dry-run` asks it, and every run before it begins."""

import dataclasses
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from meta_animator.data.conditions import find_condition
from meta_animator.data.manifest import Clip, is_data_set, read_manifest
from meta_animator.data.samples import SampleSet
from meta_animator.diffusion.samplers import sampler_for
from meta_animator.errors import UserError
from meta_animator.models.arcface import ADVICE
from meta_animator.models.backbones.sd import read_process
from meta_animator.sampling.opening import open_inputs
from meta_animator.settings import DataConfig, RunConfig
from meta_animator.stages.cache import check_cacheable
from meta_animator.stages.check_checkpoints import Absent, check_control, check_extraction, check_motion, check_words
from meta_animator.weights import read_json

TRAINED = ("control", "motion", "reference", "base_unet")  # stages that learn to denoise


def check_run(config: RunConfig, dry: bool = False) -> list[str]:
    """Notes on a run that may start. Raises UserError for the first thing that is in its way.

    dry   what is not there yet (data sets, checkpoints) is a note too
    """
    notes: list[str] = []
    for check in _checks_of(config.stage, dry):
        try:
            notes += check(config) or []
        except Absent as error:
            if not dry:
                raise
            notes.append(f"not there yet: {error}")
    return list(dict.fromkeys(notes))


def _checks_of(stage: str, dry: bool) -> list[Callable[[RunConfig], list[str] | None]]:
    if stage == "sample":
        inputs = try_inputs if dry else check_inputs  # the run itself opens them next
        return [check_settings, check_sizes, check_control, check_motion, check_words, inputs]
    if stage == "extract":
        return [check_extraction]
    common = [check_training, check_data]
    return [*common, check_sizes, check_face, check_control, check_motion] if stage in TRAINED else common


# settings


def check_training(config: RunConfig) -> list[str]:
    """Raises UserError for settings of a training that do not go together."""
    train, model, data, stage = config.train, config.model, config.data, config.stage
    check_tasks(model.tasks, "model.tasks")
    tasks = trained_tasks(config)
    check_weights(data.task_weights)
    if train.wandb_project and find_spec("wandb") is None:
        raise UserError("train.wandb_project: Weights & Biases is not installed; pip install wandb, or leave it empty")
    if stage not in TRAINED:
        return []
    if stage == "motion" and train.trainable == "lora":
        raise UserError("train.trainable=lora is for stages 0 and 2; stage 1 trains the motion module")
    if train.trainable == "decoder" and stage != "base_unet":
        raise UserError("train.trainable=decoder is for base_vae; stages 0 to 2 keep the VAE as it is")
    if stage != "motion" and model.motion_from:
        raise UserError(f"model.motion_from: stage '{stage}' has no motion module; leave it empty (1 and 3 take it)")
    if stage == "motion" and data.num_frames < 2:
        raise UserError(f"data.num_frames: {data.num_frames}; stage 1 learns what lies between frames, expected at least 2")
    if stage == "motion" and data.num_frames > model.motion_max_seq_length:
        limit = model.motion_max_seq_length
        raise UserError(f"data.num_frames: {data.num_frames} is more than model.motion_max_seq_length, {limit}")
    if data.cache_latents:
        check_cacheable(config.data, config.model)
    idle = [task for task in data.task_weights if task not in tasks]
    return [f"data.task_weights: {', '.join(idle)} is not trained, so that its weight counts for nothing"] if idle else []


def check_tasks(tasks: list[str], key: str) -> None:
    """Raises UserError for an empty list, a task named twice, or an unknown one (with the known ones)."""
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(f"{key}: expected at least one task, each once, such as [dwpose, canny]; got {list(tasks)}")
    for task in tasks:
        find_condition(task)


def trained_tasks(config: RunConfig) -> list[str]:
    """The tasks whose LoRAs a run trains, and which it draws: `train.lora_tasks`, or all. Raises UserError for one that the run
    does not have, and where the shared weights would learn along and change what the other LoRAs do."""
    chosen, tasks = config.train.lora_tasks, config.model.tasks
    if not chosen:
        return list(tasks)
    check_tasks(chosen, "train.lora_tasks")
    if unknown := [task for task in chosen if task not in tasks]:
        raise UserError(f"train.lora_tasks: {', '.join(unknown)} is not in model.tasks, [{', '.join(tasks)}]; add it there")
    if config.train.trainable != "lora" or config.stage not in ("control", "reference"):
        raise UserError("train.lora_tasks: is for stages 0 and 2 with train.trainable=lora; leave it empty, or set that")
    return [task for task in tasks if task in chosen]


def check_weights(weights: Mapping[str, int]) -> None:
    """Raises UserError for an unknown task, or a weight below 1."""
    for task, weight in weights.items():
        find_condition(task)
        if weight < 1:
            raise UserError(f"data.task_weights: {task} has {weight}; expected at least 1, and model.tasks to leave a task out")


def check_settings(config: RunConfig) -> None:
    """Raises UserError for settings of stage 3 that do not go together."""
    sample, model = config.sample, config.model
    if not sample.output.endswith(".mp4"):
        raise UserError(f"sample.output: '{sample.output}' does not end in .mp4")
    if not model.control_from:
        raise UserError("model.control_from is empty: name the run of stage 2 (or stage 0) to sample from")
    if not sample.driving:
        raise UserError("sample.driving is empty: name a data set, a drawn pose video or a keypoint .npz")
    if not sample.tasks:
        raise UserError("sample.tasks is empty: name at least one, such as {dwpose: 1.0}")
    check_tasks(list(sample.tasks), "sample.tasks")
    sampler_for(sample.sampler, sample.eta)
    if model.motion_from and sample.window > model.motion_max_seq_length:
        limit = model.motion_max_seq_length
        raise UserError(f"sample.window: {sample.window} is more than model.motion_max_seq_length, {limit}")


def check_size(data: DataConfig, divisor: int) -> None:
    for name in ("height", "width"):
        if getattr(data, name) % divisor:
            raise UserError(f"data.{name}: {getattr(data, name)} is not divisible by {divisor}, the base's factor")
    if data.aspect_buckets % divisor:
        raise UserError(f"data.aspect_buckets: {data.aspect_buckets} is not divisible by {divisor}, the base's factor")


def check_sizes(config: RunConfig) -> None:
    """Raises UserError for a size, or a number of sampling steps, that the base whose config files are here cannot have."""
    folder = Path(config.model.architecture or config.model.base)
    files = [folder / part / "config.json" for part in ("vae", "unet")]
    if all(file.is_file() for file in files):
        levels = [len(read_json(file).get("block_out_channels", [None])) - 1 for file in files]
        check_size(config.data, 2 ** sum(levels))
    if config.stage == "sample" and (folder / "scheduler" / "scheduler_config.json").is_file():
        try:
            read_process(folder).sampling_timesteps(config.sample.num_inference_steps)
        except ValueError as error:
            raise UserError(f"sample.num_inference_steps: {error}") from error


# data


def check_data(config: RunConfig) -> None:
    """Raises UserError for data sets that are not there or cannot show what is to be learned. Those that the run
    makes first are left alone."""
    data = config.data
    auxiliary = data.auxiliary if config.stage == "reference" and data.auxiliary_sets else []
    clips = {folder: _clips(folder, data) for folder in [*data.train, *auxiliary]}
    if None in clips.values():
        return
    train = [clip for folder in data.train for clip in clips[folder] if clip.split == data.split]
    if not train:
        raise UserError(f"data {', '.join(data.train) or '(data.train is empty)'}: no clip of the split '{data.split}'")
    if config.stage == "reference":
        person = only_person(train)
        shown = [clip for folder in auxiliary for clip in clips[folder] if clip.split == data.split]
        if auxiliary:
            check_others([clip for clip in shown if clip.identity != person], {person}, data)
    if config.stage in TRAINED:
        num_frames = data.num_frames if config.stage == "motion" else None
        SampleSet(train, data, seed=0, identifiers={}, num_frames=num_frames).by_task(trained_tasks(config))


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


def check_face(config: RunConfig) -> list[str]:
    """Raises UserError where the face term is on and no embedder is named; a note where the one that is named is not there."""
    if config.loss.face_weight > 0 and config.loss.image_weight > 0 and not config.model.face:
        raise UserError(f"model.face is empty but loss.face_weight > 0: name a face embedder; {ADVICE}")
    if without_missing_face(config) is config:
        return []
    return [f"the face term is OFF: model.face {config.model.face} does not exist; {ADVICE}"]


def without_missing_face(config: RunConfig) -> RunConfig:
    """What a run does where the face embedder that its config names is not there: it trains without the face term. The config
    itself, which the run folder keeps, stays as it was asked for."""
    wanted, path = config.loss.face_weight > 0 and config.loss.image_weight > 0, config.model.face
    if not wanted or not path or Path(path).exists():
        return config
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, face_weight=0.0))


def check_inputs(config: RunConfig) -> None:
    """Raises UserError for a driving motion or a reference photo that is not there."""
    for key in ("driving", "reference"):
        path = getattr(config.sample, key)
        if path and not Path(path).exists() and not is_data_set(path):
            kind = "a photo or a data set" if key == "reference" else "a data set, a drawn pose video, a keypoint .npz or JSON"
            raise Absent(f"sample.{key}: {path}: no such file or folder; expected {kind}; {_maker(Path(path), config.data)}")


def try_inputs(config: RunConfig) -> None:
    """Raises UserError for a driving motion or a reference photo that is not there or does not do."""
    check_inputs(config)
    open_inputs(config.sample, config.data, config.seed, config.model.motion_from)
