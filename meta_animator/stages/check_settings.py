"""Whether the settings of a run go together, and with the base model whose config files are here."""

import dataclasses
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from meta_animator.data.conditions import find_condition
from meta_animator.diffusion.samplers import sampler_for
from meta_animator.errors import UserError
from meta_animator.models.arcface import ADVICE
from meta_animator.models.backbones import family
from meta_animator.models.compiling import check_compiler
from meta_animator.settings import NETWORKS, DataConfig, LossConfig, ModelConfig, RunConfig, SampleConfig, TrainConfig
from meta_animator.stages.cache import check_cacheable
from meta_animator.training.watch import measure_every


def check_training(stage: str, data: DataConfig, model: ModelConfig, train: TrainConfig) -> list[str]:
    """Raises UserError for settings of a training that do not go together."""
    check_tasks(model.tasks, "model.tasks")
    tasks = trained_tasks(stage, model, train)
    check_weights(data.task_weights)
    check_meters(stage, data, train)
    if train.wandb_project and find_spec("wandb") is None:
        raise UserError("train.wandb_project: Weights & Biases is not installed; pip install wandb, or leave it empty")
    if train.optimizer == "adamw8bit" and find_spec("torchao") is None:
        raise UserError("train.optimizer: adamw8bit needs one more package: pip install torchao")
    if stage not in NETWORKS:
        return []
    if train.compile:
        check_compiler("train.compile")
    if stage == "motion" and train.trainable == "lora":
        raise UserError("train.trainable=lora is for stages 0 and 2; stage 1 trains the motion module")
    if train.trainable in ("decoder", "tiny_vae") and stage != "base_unet":
        raise UserError(f"train.trainable={train.trainable} is for base_vae; stages 0 to 2 keep the VAE as it is")
    if stage != "motion" and model.motion_from:
        raise UserError(f"model.motion_from: stage '{stage}' has no motion module; leave it empty (1 and 3 take it)")
    if stage == "motion" and data.num_frames < 2:
        raise UserError(f"data.num_frames: {data.num_frames}; stage 1 learns what lies between frames, expected at least 2")
    if data.cache_latents:
        check_cacheable(data, model)
    idle = [task for task in data.task_weights if task not in tasks]
    return [f"data.task_weights: {', '.join(idle)} is not trained, so that its weight counts for nothing"] if idle else []


def check_meters(stage: str, data: DataConfig, train: TrainConfig) -> None:
    """Raises UserError for a guard against over-fitting that could not see anything."""
    if stage != "reference":
        return
    if train.early_stop and not data.held_out:
        raise UserError("train.early_stop: is measured on photos that are not learned; set data.held_out=1, or leave it 0")
    if data.held_out and not measure_every(train):
        raise UserError("data.held_out: nothing is ever measured; set train.measure_every to a number of steps")
    if train.best_step and data.held_out:
        raise UserError("train.best_step: data.held_out chooses the best step by measuring; leave one of them 0")
    if train.best_step > train.max_steps:
        raise UserError(f"train.best_step: {train.best_step} is never reached; train.max_steps is {train.max_steps}")


def check_tasks(tasks: list[str], key: str) -> None:
    """Raises UserError for an empty list, a task named twice, or an unknown one (with the known ones)."""
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(f"{key}: expected at least one task, each once, such as [dwpose, canny]; got {list(tasks)}")
    for task in tasks:
        find_condition(task)


def trained_tasks(stage: str, model: ModelConfig, train: TrainConfig) -> list[str]:
    """The tasks that a run draws, and whose LoRAs it trains if any: `train.lora_tasks`, or all. Raises UserError for one that
    the run does not have, and where the shared weights would learn along and change what the other LoRAs do."""
    chosen, tasks = train.lora_tasks, model.tasks
    if not chosen:
        return list(tasks)
    check_tasks(chosen, "train.lora_tasks")
    if unknown := [task for task in chosen if task not in tasks]:
        raise UserError(f"train.lora_tasks: {', '.join(unknown)} is not in model.tasks, [{', '.join(tasks)}]; add it there")
    alone = train.train_lora_in_motion if stage == "motion" else train.trainable == "lora"
    if not alone or stage not in ("control", "motion", "reference"):
        raise UserError(
            "train.lora_tasks: is for stages 0 and 2 with train.trainable=lora, and for stage 1 with train.train_lora_in_motion; "
            "leave it empty, or set that"
        )
    return [task for task in tasks if task in chosen]


def check_weights(weights: Mapping[str, int]) -> None:
    """Raises UserError for an unknown task, or a weight below 1."""
    for task, weight in weights.items():
        find_condition(task)
        if weight < 1:
            raise UserError(f"data.task_weights: {task} has {weight}; expected at least 1, and model.tasks to leave a task out")


def check_sampling(sample: SampleConfig, model: ModelConfig) -> None:
    """Raises UserError for settings of stage 3 that do not go together."""
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


def check_size(data: DataConfig, divisor: int) -> None:
    for name in ("height", "width"):
        if getattr(data, name) % divisor:
            raise UserError(f"data.{name}: {getattr(data, name)} is not divisible by {divisor}, the base's factor")
    if data.aspect_buckets % divisor:
        raise UserError(f"data.aspect_buckets: {data.aspect_buckets} is not divisible by {divisor}, the base's factor")


def check_sides(model: ModelConfig, data: DataConfig) -> None:
    """Raises UserError for a size that the base whose config files are here cannot have."""
    if divisor := family(model.backbone).size_multiple_of(Path(model.architecture or model.base)):
        check_size(data, divisor)


def check_steps(model: ModelConfig, sample: SampleConfig) -> None:
    """Raises UserError for a number of sampling steps that the base whose config files are here cannot take."""
    if process := family(model.backbone).process_of(model):
        try:
            process.sampling_timesteps(sample.num_inference_steps, sample.timestep_spacing)
        except ValueError as error:
            raise UserError(f"sample.num_inference_steps: {error}") from error


# the face embedder


def check_face(model: ModelConfig, loss: LossConfig) -> list[str]:
    """Raises UserError where the face term is on and no embedder is named; a note where the one that is named is not there."""
    if wants_face(loss) and not model.face:
        raise UserError(f"model.face is empty but loss.face_weight > 0: name a face embedder; {ADVICE}")
    return [f"the face term is OFF: model.face {model.face} does not exist; {ADVICE}"] if _misses_face(model, loss) else []


def without_missing_face(config: RunConfig) -> RunConfig:
    """What a run does where the face embedder that its config names is not there: it trains without the face term. The config
    itself, which the run folder keeps, stays as it was asked for."""
    if not _misses_face(config.model, config.loss):
        return config
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, face_weight=0.0))


def wants_face(loss: LossConfig) -> bool:
    """Whether the face term counts."""
    return loss.face_weight > 0 and loss.image_weight > 0


def _misses_face(model: ModelConfig, loss: LossConfig) -> bool:
    return wants_face(loss) and bool(model.face) and not Path(model.face).exists()
