"""Write a trained part of the embedded Wan as WanVACEPipeline loads it, in half precision."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from einops import rearrange
from torch import Tensor, nn

from meta_animator.data.manifest import Clip
from meta_animator.data.samples import read_clips, to_pixels
from meta_animator.json_files import write_json
from meta_animator.puppets.base.wan_networks import wan_tokenizer_of
from meta_animator.puppets.base.wan_text import text_encoder_for
from meta_animator.settings import RunConfig
from meta_animator.weights import copy_strict

MEASURED = 256  # clips from which the mean and the deviation of each latent channel are taken
INDEX = {
    "_class_name": "WanVACEPipeline",
    "vae": ["diffusers", "AutoencoderKLWan"], "transformer": ["diffusers", "WanVACETransformer3DModel"],
    "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"], "transformer_2": [None, None], "boundary_ratio": None,
}  # fmt: skip


def export_wan_vae(config: RunConfig, weights: dict[str, Tensor], output: Path) -> list[Path]:
    """With the mean and the standard deviation of each latent channel over clips of the train set; those of the start, where only
    the decoder learned."""
    folder = Path(config.model.base_from or config.model.architecture) / "vae"
    vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(folder))
    fill(vae, weights, "networks.vae.")
    if config.train.trainable != "decoder":
        clips = read_clips(config.data.train, config.data.split)[:MEASURED]
        mean, std = latent_statistics(vae, clips, config.data.num_frames)
        vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.half().save_pretrained(output / "vae")
    return [output / "vae"]


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, clips: list[Clip], num_frames: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the latents of the first frames of clips."""
    latents = []
    for clip in clips:
        frames = torch.stack([to_pixels(clip.load(k, ("frame",)).frame) for k in range(num_frames)])
        mode = vae.encode(rearrange(frames, "f c h w -> 1 c f h w")).latent_dist.mode()
        latents.append(rearrange(mode, "1 c f h w -> c (f h w)"))
    together = torch.cat(latents, dim=1)
    return [round(float(x), 4) for x in together.mean(1)], [round(float(x), 4) for x in together.std(1)]


def export_wan(config: RunConfig, weights: dict[str, Tensor], output: Path) -> list[Path]:
    """Transformer, text encoder, tokenizer, scheduler, and what makes a pipeline of them and the VAE."""
    folder = Path(config.model.architecture)
    transformer = WanVACETransformer3DModel.from_config(WanVACETransformer3DModel.load_config(folder / "transformer"))
    fill(transformer, weights, "transformer.")
    transformer.half().save_pretrained(output / "transformer")
    tokenizer = wan_tokenizer_of(config.model, [clip.prompt for clip in read_clips(config.data.train, config.data.split)])
    tokenizer.save_pretrained(output / "tokenizer")
    text_encoder = text_encoder_for(folder, tokenizer)
    fill(text_encoder, weights, "text_encoder.")
    text_encoder.half().save_pretrained(output / "text_encoder")
    shutil.copytree(folder / "scheduler", output / "scheduler", dirs_exist_ok=True)
    if not (output / "vae").is_dir():
        shutil.copytree(Path(config.model.base) / "vae", output / "vae")
    write_json(output / "model_index.json", INDEX)
    return [output / part for part in ("transformer", "text_encoder", "tokenizer", "scheduler", "model_index.json")]


def fill(network: nn.Module, weights: dict[str, Tensor], prefix: str) -> None:
    """Copy the weights of one part of a run into its network. Raises UserError where one is missing or of another shape."""
    state = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    copy_strict(dict(network.named_parameters()), state, f"base model, {prefix}")
