"""A base model small enough to build in a second, a puppet data set beside it, and run configs that fit both."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn

from meta_animator.config import load_config
from meta_animator.conversion import lora
from meta_animator.data.batch import Batch, collate
from meta_animator.data.samples import SampleSet
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.data.writer import DatasetWriter
from meta_animator.json_files import write_json
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.control import MetaControlNet
from meta_animator.models.face import FaceConfig, FaceEmbedder
from meta_animator.puppets.base.tokenizer import make_tokenizer
from meta_animator.puppets.dataset import HELDOUT, describe
from meta_animator.puppets.rendering.motion import MOTIONS
from meta_animator.puppets.rendering.render import render_clip
from meta_animator.settings import ModelConfig, RunConfig
from meta_animator.stages.data import load_batches
from meta_animator.stages.train import STAGES

SD15 = Path(__file__).parents[1] / "configs" / "sd15" / "architecture"
SIZE = 64
TASKS = ["dwpose", "seg", "blurred"]
SCHEDULER = {
    "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": False, "steps_offset": 1,
    "clip_sample": False,
}  # fmt: skip


def tiny_unet(seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    values = {
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 8,
    }  # fmt: skip
    return UNet2DConditionModel(**(values | changes)).eval().requires_grad_(False)


def tiny_vae(**changes: Any) -> AutoencoderTiny:
    """A random one of factor 4."""
    blocks = {f"{part}_block_out_channels": (8, 8, 8) for part in ("encoder", "decoder")}
    counts = {f"num_{part}_blocks": (1, 1, 1) for part in ("encoder", "decoder")}
    return AutoencoderTiny(**(blocks | counts | changes)).eval().requires_grad_(False)


def make_base(folder: Path, seed: int = 0) -> Path:
    """A random base model in diffusers format with a face embedder beside it; the VAE's factor is 4."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        tiny_unet(seed).save_pretrained(folder / "unet")
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16), latent_channels=4, norm_num_groups=4, mid_block_add_attention=False,
            sample_size=SIZE, scaling_factor=1.0, **blocks,
        )  # fmt: skip
        vae.save_pretrained(folder / "vae")
        tokenizer = make_tokenizer([*map(describe, range(3)), "person looks like"], identifiers=12, max_length=32)
        tokenizer.save_pretrained(folder / "tokenizer")
        text = CLIPTextConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(tokenizer),
            max_position_embeddings=tokenizer.model_max_length, projection_dim=16, bos_token_id=0, eos_token_id=1,
            pad_token_id=1,
        )  # fmt: skip
        CLIPTextModel(text).save_pretrained(folder / "text_encoder")
        FaceEmbedder(FaceConfig(channels=(8, 12), embedding_dim=8, input_size=8, min_face_size=1)).save_pretrained(
            folder / "face"
        )
        tiny_vae(latent_channels=4).save_pretrained(folder / "tiny_vae")
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    return folder


def make_data(folder: Path, people: int = 4, frames: int = 4) -> Path:
    """<folder>/train: a clip of each of `people`; <folder>/person: as many photos of someone else; 64 x 64 pixels."""
    with DatasetWriter(folder / "train") as writer:
        for person in range(people):
            layers = render_clip(person, person, frames, 12, (SIZE, SIZE), motion_kind=MOTIONS[person % len(MOTIONS)])
            writer.add(id=f"p{person}", identity=f"p{person}", layers=layers, fps=12, prompt=describe(person))
    with DatasetWriter(folder / "person") as writer:
        for k, layer in enumerate(render_clip(HELDOUT, HELDOUT, people, 12, (SIZE, SIZE))):
            writer.add(
                id=f"photo-{k}", identity="held-out", layers=[layer], fps=1, kind="photo", prompt=describe(HELDOUT)
            )  # fmt: skip
    return folder


def make_config(folder: Path, base: Path, data: Path, stage: str = "control", **overrides: Any) -> RunConfig:
    """A config of a few steps in `folder`; `overrides` are dotted keys with __ for the dot (train__max_steps=2)."""
    values = {
        "stage": stage, "output_dir": str(folder), "model.base": str(base), "model.face": str(base / "face"),
        "model.tasks": f"[{','.join(TASKS)}]", "model.lora_rank": 4, "model.motion_max_seq_length": 8,
        "data.train": f"[{data / ('person' if stage == 'reference' else 'train')}]", "data.height": SIZE,
        "data.width": SIZE, "data.num_frames": 3, "train.batch_size": 2, "train.learning_rate": 1e-2,
        "train.max_steps": 4, "train.preview_every": 0, "train.log_every": 1, "train.checkpoint_every": 3,
        "loss.start_step": 0, "loss.max_noise_level": 1.0,
    }  # fmt: skip
    if stage == "reference":
        values |= {"data.auxiliary": f"[{data / 'train'}]", "data.auxiliary_sets": 4}
    values |= {key.replace("__", "."): value for key, value in overrides.items()}
    folder.mkdir(parents=True, exist_ok=True)
    empty = folder / "empty.yaml"
    empty.write_text("{}\n")
    config = load_config(empty, [f"{key}={value}" for key, value in values.items()])
    empty.unlink()
    return config


def make_models(config: ModelConfig, with_motion: bool = False) -> Assembly:
    """Base, Meta ControlNet and, if wanted, motion module, without any checkpoint."""
    return Assembly(config, load_backbone(config), with_motion)


def make_stage(config: RunConfig):
    """(stage, samples, plan), with fresh weights that depend on the config's seed alone. For a run so long that the latents of
    every draw are there."""
    torch.manual_seed(config.seed)
    endless = dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=10**6))
    training = STAGES[config.stage](endless, Accelerator(cpu=True))
    return training.stage, training.samples, training.plan


def first_batch(samples: SampleSet, task: str, count: int = 2) -> Batch:
    """The first samples, drawn as numbers 0, 1, ..."""
    return collate([samples[Draw(k, task, k)] for k in range(count)])


def randomise_zeros(module: nn.Module, std: float = 0.1, seed: int = 0) -> nn.Module:
    """Fill every parameter that is all zero (zero convolutions, LoRA up, proj_out, biases) with random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_meta and not parameter.any():
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module


def tiny_control(tasks: list[str] | None = None, rank: int = 4, random: bool = True, **changes: Any) -> MetaControlNet:
    """A Meta ControlNet of the tiny UNet; its zeros are filled unless `random` is False."""
    control = MetaControlNet.from_unet(tiny_unet(**changes), TASKS if tasks is None else tasks, rank)
    return randomise_zeros(control) if random else control


def control_inputs(batch: int = 2, size: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(control latents, t, context) for the tiny UNet."""
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, size, size, generator=g)
    return latents, torch.arange(batch) * 300 + 50, torch.randn(batch, 5, 16, generator=g)


def batches(config: RunConfig, samples: SampleSet, plan: TaskPlan):
    """What the engine draws its micro-batches from."""
    return functools.partial(load_batches, config.data, samples, plan, Accelerator(cpu=True))


def extract(config: RunConfig) -> list[Path]:
    """The folders of the extraction that a config asks for."""
    return lora.extract(config.extract, config.model, Path(config.output_dir))
