"""The data and networks of the three runs that train the embedded base model."""

from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import nn
from tqdm import tqdm

from meta_animator.conversion.base_model import make_base_tokenizer
from meta_animator.data.batch import collate
from meta_animator.data.latents import LatentCache
from meta_animator.data.manifest import Clip
from meta_animator.data.samples import FRAME, SampleSet, read_clips, to_pixels
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.data.transforms import crop_and_resize, crop_box
from meta_animator.errors import UserError
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.face import FaceConfig, FaceEmbedder
from meta_animator.settings import RunConfig
from meta_animator.stages.base import BaseStage, FaceStage, UNetStage, VAEStage
from meta_animator.weights import fingerprint, read_json


def build_base_stage(config: RunConfig, accelerator: Accelerator) -> tuple[nn.Module, SampleSet, TaskPlan]:
    """base_vae, base_unet or base_face with frames of many people, no conditions."""
    if not config.model.architecture:
        raise UserError(f"model.architecture is empty: stage '{config.stage}' needs the folder with the config files")
    if config.train.trainable == "lora" or (config.train.trainable == "decoder" and config.stage != "base_vae"):
        raise UserError(f"train.trainable={config.train.trainable}: stage '{config.stage}' has no such part")
    if config.train.trainable == "decoder" and not config.model.base_from:
        raise UserError("train.trainable=decoder: name the VAE whose decoder learns on, model.base_from")
    clips = read_clips(config.data.train, config.data.split)
    vae = load_part(AutoencoderKL, Path(config.model.base) / "vae") if config.stage == "base_unet" else None
    samples = SampleSet(clips, config.data, seed=config.seed, identifiers={})
    if vae is not None and config.data.cache_latents:
        samples.cache = make_frame_cache(config, vae, clips)
    plan = TaskPlan(
        samples={FRAME: list(range(len(samples)))}, batch_size=config.train.batch_size, seed=config.seed,
        micro_batches=config.train.gradient_accumulation_steps, world_size=accelerator.num_processes,
    )  # fmt: skip
    chosen = [k * len(samples) // 8 for k in range(8)]
    examples = collate([samples[Draw(10**9 + k, FRAME, index)] for k, index in enumerate(chosen)])
    stage = _make_stage(config, examples, samples, vae)
    return stage, samples, plan


def make_frame_cache(config: RunConfig, vae: AutoencoderKL, clips: list[Clip]) -> LatentCache:
    """Latents of all frames, encoded once. Every process of a run fills it; files appear whole or not at all."""
    size = (config.data.height, config.data.width)

    @torch.no_grad()
    def encode(clip: Clip, name: str, frames: list[int]) -> torch.Tensor:
        box = crop_box(clip.width, clip.height, *size)
        pixels = [to_pixels(crop_and_resize(clip.load(k, ("frame",)), box, size).frame) for k in frames]
        return vae.encode(torch.stack(pixels)).latent_dist.mode() * vae.config.scaling_factor

    depends_on = {"vae": fingerprint(vae.state_dict()), "size": size}
    kept = [(clip, list(range(clip.num_frames))) for clip in clips]
    cache = LatentCache(Path(config.output_dir) / "cache", depends_on, kept)
    with tqdm(total=len(clips), desc="encoding latents", unit="clip", dynamic_ncols=True) as bar:
        cache.fill([], encode, batch_size=8, progress=bar.update)
    return cache


def _make_stage(config: RunConfig, examples, samples: SampleSet, vae: AutoencoderKL | None) -> BaseStage:
    if config.stage == "base_vae":
        return VAEStage(config, examples)
    if config.stage == "base_unet":
        return UNetStage(config, examples, vae, make_base_tokenizer(config, samples.clips))
    shape = read_json(Path(config.model.architecture) / "face" / "config.json")
    people = sorted({clip.identity for clip in samples.clips})
    start = config.model.base_from
    embedder = FaceEmbedder.from_pretrained(Path(start) / "face") if start else FaceEmbedder(FaceConfig(**shape))
    return FaceStage(config, examples, people, embedder)
