"""The data and networks of the runs that train the embedded base model."""

from pathlib import Path

from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from meta_animator.data.batch import Batch, collate
from meta_animator.data.manifest import Clip
from meta_animator.data.samples import FRAME, SampleSet, of_one_size, read_clips
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.errors import UserError
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.backbones.sd import StableDiffusion, read_scheduler
from meta_animator.models.face import FaceConfig, FaceEmbedder
from meta_animator.puppets.base.export import make_base_tokenizer, text_config
from meta_animator.puppets.base.unet import UNetStage
from meta_animator.puppets.base.vae_and_face import BaseStage, FaceStage, VAEStage
from meta_animator.settings import ModelConfig, RunConfig, TrainConfig
from meta_animator.stages.build import build_stage
from meta_animator.weights import read_json


def build_unet_stage(config: RunConfig, accelerator: Accelerator) -> tuple[nn.Module, SampleSet, TaskPlan]:
    """base_unet with the data of a stage 0."""
    return build_stage(config, accelerator, UNetStage, growing_base)


def build_base_stage(config: RunConfig, accelerator: Accelerator) -> tuple[nn.Module, SampleSet, TaskPlan]:
    """base_vae or base_face with frames of many people, no conditions."""
    check_base_config(config.stage, config.model, config.train)
    clips = read_clips(config.data.train, config.data.split)
    samples = SampleSet(clips, config.data, seed=config.seed, identifiers={})
    plan = TaskPlan(
        samples={FRAME: list(range(len(samples)))}, batch_size=config.train.batch_size, seed=config.seed,
        micro_batches=config.train.gradient_accumulation_steps, world_size=accelerator.num_processes,
        buckets=samples.buckets(),
    )  # fmt: skip
    chosen = of_one_size(range(len(samples)), samples, 8)
    examples = collate([samples[Draw(10**9 + k, FRAME, index)] for k, index in enumerate(chosen)])
    return _make_stage(config, examples, samples), samples, plan


def growing_base(config: RunConfig, clips: list[Clip]) -> StableDiffusion:
    """The base of a base_unet run: the trained VAE of `model.base` with a UNet and a text encoder that are fresh, or those of
    `model.base_from`."""
    from transformers import CLIPTextModel

    check_base_config(config.stage, config.model, config.train)
    folder, start = Path(config.model.architecture), Path(config.model.base_from)
    tokenizer = make_base_tokenizer(config.model.base_from, clips)
    if config.model.base_from:
        unet = load_part(UNet2DConditionModel, start / "unet")
        text_encoder = load_part(CLIPTextModel, start / "text_encoder")
    else:
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        text_encoder = CLIPTextModel(text_config(folder, tokenizer))
    vae = load_part(AutoencoderKL, Path(config.model.base) / "vae")
    return StableDiffusion(config.model, unet, vae, text_encoder, tokenizer, read_scheduler(folder))


def check_base_config(stage: str, model: ModelConfig, train: TrainConfig) -> None:
    """Raises UserError for settings that a base_* stage cannot follow."""
    if not model.architecture:
        raise UserError(f"model.architecture is empty: stage '{stage}' needs the folder with the config files")
    if train.trainable == "lora" or (train.trainable == "decoder" and stage != "base_vae"):
        raise UserError(f"train.trainable={train.trainable}: stage '{stage}' has no such part")
    if train.trainable == "decoder" and not model.base_from:
        raise UserError("train.trainable=decoder: name the VAE whose decoder learns on, model.base_from")


def _make_stage(config: RunConfig, examples: Batch, samples: SampleSet) -> BaseStage:
    if config.stage == "base_vae":
        return VAEStage(config, examples)
    shape = read_json(Path(config.model.architecture) / "face" / "config.json")
    people = sorted({clip.identity for clip in samples.clips})
    start = config.model.base_from
    embedder = FaceEmbedder.from_pretrained(Path(start) / "face") if start else FaceEmbedder(FaceConfig(**shape))
    return FaceStage(config, examples, people, embedder)


STAGES = {"base_vae": build_base_stage, "base_unet": build_unet_stage, "base_face": build_base_stage}
