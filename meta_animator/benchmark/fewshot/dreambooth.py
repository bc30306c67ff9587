"""DreamBooth's way with LoRAs (Ruiz et al. 2023; Hu et al. 2022): the UNet's attention learns a person from photos under a word
of their own, without control. A rival of stage 2."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from meta_animator.data.crops import person_crop
from meta_animator.data.manifest import read_manifest
from meta_animator.data.samples import to_pixels
from meta_animator.data.transforms import crop_and_resize
from meta_animator.devices import compute_device
from meta_animator.diffusion.process import Noised
from meta_animator.diffusion.randomness import noise_for, rng, torch_generator
from meta_animator.diffusion.timesteps import training_timesteps
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import RunConfig

LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


def train_dreambooth(config: RunConfig, photos: Path, prompt: str, folder: Path, rank: int = 8) -> Path:
    """Train on all photos of a data set and write a LoRA that `model.base_loras` takes; returns its folder.

    config   of a stage 2: its base, size, steps, batch, LoRA rate and seed
    """
    device = compute_device()
    backbone, train, size = load_backbone(config.model).to(device), config.train, (config.data.height, config.data.width)
    clips = [clip for clip in read_manifest(photos) if clip.split == "train"]
    shown = [crop_and_resize(clip.load(0, ("frame",)), person_crop(clip, size), size).frame for clip in clips]
    latents = backbone.encode(torch.stack([to_pixels(frame) for frame in shown])[:, None].to(device))
    context = backbone.embed_text([prompt])
    torch.manual_seed(config.seed)
    backbone.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS, init_lora_weights="gaussian"))
    learned = [parameter for parameter in backbone.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=train.lora_learning_rate or train.learning_rate, weight_decay=train.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train.max_steps)
    for step in range(train.max_steps):
        draws = torch.arange(step * train.batch_size, (step + 1) * train.batch_size)
        picked = latents[rng(config.seed, "dreambooth", step).integers(len(latents), size=train.batch_size)]
        generators = [torch_generator(config.seed, "timestep", int(draw)) for draw in draws]
        t = training_timesteps(generators, backbone.process.timestep_bounds).to(device)
        noised = Noised.of(backbone.process, picked, noise_for(config.seed, draws, tuple(picked.shape[1:])).to(picked), t)
        prediction = backbone.predict(noised.x_t, t, context.expand(len(t), -1, -1))
        (prediction - noised.target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(learned, train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(backbone.unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder
