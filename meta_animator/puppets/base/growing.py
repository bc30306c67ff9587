"""The base of a base_unet run, and what a base_* stage cannot do."""

from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel

from meta_animator.data.manifest import Clip
from meta_animator.errors import UserError
from meta_animator.models.backbones.parts import load_part
from meta_animator.models.backbones.sd import StableDiffusion, read_scheduler
from meta_animator.puppets.base.export import make_base_tokenizer, text_config
from meta_animator.settings import ModelConfig, TrainConfig


def growing_base(model: ModelConfig, clips: list[Clip]) -> StableDiffusion:
    """The base of a base_unet run: the trained VAE of `model.base` with a UNet and a text encoder that are fresh, or those of
    `model.base_from`."""
    from transformers import CLIPTextModel

    folder, start = Path(model.architecture), Path(model.base_from)
    tokenizer = make_base_tokenizer(model.base_from, clips)
    if model.base_from:
        unet = load_part(UNet2DConditionModel, start / "unet")
        text_encoder = load_part(CLIPTextModel, start / "text_encoder")
    else:
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        text_encoder = CLIPTextModel(text_config(folder, tokenizer))
    vae = load_part(AutoencoderKL, Path(model.base) / "vae")
    return StableDiffusion(model, unet, vae, text_encoder, tokenizer, read_scheduler(folder))


def check_base_config(stage: str, model: ModelConfig, train: TrainConfig) -> None:
    """Raises UserError for settings that a base_* stage cannot follow."""
    if not model.architecture:
        raise UserError(f"model.architecture is empty: stage '{stage}' needs the folder with the config files")
    parts = {"base_vae": ("decoder", "tiny_vae"), "base_wan_vae": ("decoder",)}.get(stage, ())
    if train.trainable not in ("all", *parts):
        raise UserError(f"train.trainable={train.trainable}: stage '{stage}' has no such part")
    if train.trainable != "all" and not model.base_from:
        raise UserError(f"train.trainable={train.trainable}: name the base with its VAE, model.base_from")
