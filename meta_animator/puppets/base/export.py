"""Write a trained part of the embedded base model as diffusers and transformers load it, in half precision."""

import dataclasses
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTokenizer

from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.config import load_config
from meta_animator.data.manifest import Clip
from meta_animator.data.samples import read_clips, to_pixels
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.face import FaceConfig, FaceEmbedder
from meta_animator.puppets.base.tokenizer import base_tokenizer
from meta_animator.puppets.base.wan_export import export_wan, export_wan_vae, fill
from meta_animator.settings import ModelConfig, RunConfig
from meta_animator.weights import save_tensors


def export_base(run: Path, output: Path) -> list[Path]:
    """Turn a base_* run, or a run of stage 0 or 1 on it, into folders of the base model at `output`; returns the folders."""
    config = load_config(run / "config.yaml")
    metadata, weights = read_weights(run)
    if config.stage in ("control", "motion"):
        return [_export_checkpoint(metadata, weights, output / config.stage)]
    export = {
        "base_vae": _export_vae, "base_unet": _export_unet, "base_face": _export_face, "base_wan_vae": export_wan_vae,
        "base_wan": export_wan,
    }  # fmt: skip
    if config.stage not in export:
        raise UserError(f"{run}: is a '{config.stage}' run; expected control, motion or one of {', '.join(export)}")
    return export[config.stage](config, weights, output)


def _export_vae(config: RunConfig, weights: dict[str, Tensor], output: Path) -> list[Path]:
    """The scaling factor is 1 / standard deviation of the latents of 256 frames, as in Rombach et al. 2022, D.1; that of
    the start, where only the decoder learned. Of a run of the small VAE, that one."""
    if config.train.trainable == "tiny_vae":
        return [_export_tiny_vae(config, weights, output / "tiny_vae")]
    folder = Path(config.model.base_from or config.model.architecture) / "vae"
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder))
    fill(vae, weights, "networks.vae.")
    if config.train.trainable != "decoder":
        frames = [clip.load(0, ("frame",)).frame for clip in read_clips(config.data.train, config.data.split)[:256]]
        with torch.no_grad():
            latents = torch.cat([vae.encode(to_pixels(frame)[None]).latent_dist.mode() for frame in frames])
        vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    vae.half().save_pretrained(output / "vae")
    return [output / "vae"]


def _export_tiny_vae(config: RunConfig, weights: dict[str, Tensor], folder: Path) -> Path:
    tiny = AutoencoderTiny.from_config(AutoencoderTiny.load_config(Path(config.model.architecture) / "tiny_vae"))
    fill(tiny, weights, "networks.tiny_vae.")
    tiny.half().save_pretrained(folder)
    return folder


def _export_unet(config: RunConfig, weights: dict[str, Tensor], output: Path) -> list[Path]:
    from transformers import CLIPTextModel

    folder = Path(config.model.architecture)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
    fill(unet, weights, "unet.")
    unet.half().save_pretrained(output / "unet")
    tokenizer = make_base_tokenizer(config.model.base_from, read_clips(config.data.train, config.data.split))
    tokenizer.save_pretrained(output / "tokenizer")
    text_encoder = CLIPTextModel(text_config(folder, tokenizer))
    fill(text_encoder, weights, "text_encoder.")
    text_encoder.half().save_pretrained(output / "text_encoder")
    shutil.copytree(folder / "scheduler", output / "scheduler", dirs_exist_ok=True)
    if not (output / "vae").is_dir():
        shutil.copytree(Path(config.model.base) / "vae", output / "vae")
    control = _export_shared(config.model, weights, output)
    return [*(output / part for part in ("unet", "text_encoder", "tokenizer", "scheduler")), control]


def _export_shared(model: ModelConfig, weights: dict[str, Tensor], output: Path) -> Path:
    """The Meta ControlNet that learned beside the UNet: shared weights without a LoRA, for stage 0 to start from."""
    model = dataclasses.replace(model, base=str(output), tasks=[])
    metadata = {"stage": "control", "step": 0, **metadata_of(Assembly(model, load_backbone(model)))}
    shared = {name: tensor for name, tensor in weights.items() if name.startswith("control.")}
    return _export_checkpoint(metadata, shared, output / "control")


def _export_face(config: RunConfig, weights: dict[str, Tensor], output: Path) -> list[Path]:
    face = FaceEmbedder(FaceConfig(**read_json(Path(config.model.architecture) / "face" / "config.json")))
    fill(face, weights, "networks.face.")
    face.save_pretrained(output / "face", dtype=torch.float16)
    return [output / "face"]


def _export_checkpoint(metadata: dict, weights: dict[str, Tensor], folder: Path) -> Path:
    """A checkpoint to start from, not to resume: weights and metadata only, without the settings that a resumed run compares
    with its own, which name folders of the machine that trained it."""
    save_tensors({name: tensor.half() for name, tensor in weights.items()}, folder / "model.safetensors")
    write_json(folder / "manifest.json", {key: value for key, value in metadata.items() if key != "settings"})
    return folder


def make_base_tokenizer(base_from: str, clips: list[Clip]) -> CLIPTokenizer:
    """The tokenizer of the base that training goes on from, or, where that is empty, one for the words of the train set."""
    if base_from:
        return CLIPTokenizer.from_pretrained(Path(base_from) / "tokenizer")
    return base_tokenizer([clip.prompt for clip in clips])


def text_config(architecture: Path, tokenizer):
    """The text encoder's config, sized for the tokenizer."""
    from transformers import CLIPTextConfig

    config = CLIPTextConfig.from_pretrained(architecture / "text_encoder")
    config.vocab_size, config.max_position_embeddings = len(tokenizer), tokenizer.model_max_length
    return config
