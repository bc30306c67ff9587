"""How good an embedded Wan is, on puppets that it was not trained on."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from einops import rearrange
from torch import Tensor

from meta_animator.data.conditions import draw_condition
from meta_animator.data.layers import Layers
from meta_animator.data.samples import to_images, to_pixels
from meta_animator.models.backbones.parts import load_part
from meta_animator.puppets.base.wan_networks import GrowingWan, growing_wan
from meta_animator.puppets.base.wan_transformer import sample
from meta_animator.puppets.dataset import HELDOUT, describe
from meta_animator.puppets.rendering.motion import MOTIONS
from meta_animator.puppets.rendering.render import render_clip
from meta_animator.settings import TASKS, ModelConfig

SIZE, FRAMES, FPS = (64, 64), 13, 12
TASK = "dwpose"


def judge_wan_vae(
    folder: Path, people: int = 24, seed: int = 700, shown: int = 6
) -> tuple[dict[str, float], list[list[np.ndarray]]]:  # fmt: skip
    """(PSNR in dB, of the mean squared error over all people: {"photo", "first frame", "later frames", their "... person",
    each Meta-Task, "all tasks", "grey"}, rows of pictures: frames and the same decoded, of the first `shown`) of the VAE in
    `folder`/vae, on clips of held-out people."""
    vae = load_part(AutoencoderKLWan, folder / "vae")
    clips = held_out_clips(people, seed)
    errors: dict[str, list[Tensor]] = {}
    rows: list[list[np.ndarray]] = []
    for number, layers in enumerate(clips):
        person = torch.stack([torch.from_numpy(layer.mask) for layer in layers])
        frames = torch.stack([to_pixels(layer.frame) for layer in layers])
        decoded = through(vae, frames)
        middle = through(vae, frames[6:7])
        note(errors, "first frame", decoded[:1], frames[:1], person[:1])
        note(errors, "later frames", decoded[1:], frames[1:], person[1:])
        note(errors, "photo", middle, frames[6:7], person[6:7])
        task = TASKS[number % len(TASKS)]
        images = torch.stack([to_pixels(draw_condition(task, layer)) for layer in layers])
        again = through(vae, images)
        for name in (task, "all tasks"):
            errors.setdefault(name, []).append((again - images).square().flatten())
        if number < shown:
            rows += [list(to_images(x[::3])) for x in (frames, decoded, images, again)]
    grey = through(vae, torch.zeros(FRAMES, 3, *SIZE))
    errors["grey"] = [grey.square().flatten()]
    return {name: decibels(torch.cat(parts)) for name, parts in errors.items()}, rows


def held_out_clips(people: int, seed: int) -> list[list[Layers]]:
    """A clip of each of so many people who are in no train set, each in a motion and before a camera of their own."""
    names = [HELDOUT + seed + k for k in range(people)]
    return [render_clip(name, name, FRAMES, FPS, SIZE, motion_kind=MOTIONS[name % len(MOTIONS)]) for name in names]


@torch.no_grad()
def through(vae: AutoencoderKLWan, pixels: Tensor) -> Tensor:
    """A clip (f 3 H W), encoded to the posterior's mode and decoded."""
    mode = vae.encode(rearrange(pixels, "f c h w -> 1 c f h w")).latent_dist.mode()
    return rearrange(vae.decode(mode).sample, "1 c f h w -> f c h w")


def note(errors: dict[str, list[Tensor]], name: str, shown: Tensor, truth: Tensor, person: Tensor) -> None:
    """Add the squared errors of frames (f 3 H W) to those of `name`, and those on the person (f H W) to "`name` person"."""
    squared = (shown - truth).square()
    errors.setdefault(name, []).append(squared.flatten())
    errors.setdefault(f"{name} person", []).append(squared.movedim(1, -1)[person].flatten())


def decibels(squared: Tensor) -> float:
    """PSNR of squared errors of values in [-1, 1]."""
    return float(10 * torch.log10(4 / squared.mean()))


def judge_wan(
    folder: Path, people: int = 8, seed: int = 700, shown: int = 4, steps: int = 20
) -> tuple[dict[str, float], list[list[np.ndarray]]]:  # fmt: skip
    """({"posed person": PSNR in dB over the person of clips made from held-out people's text and poses, "shuffled person": from
    their text and the poses of someone else, "posed", "shuffled": over the frame}, rows of pictures: truth, pose, from text and
    pose, from text alone, of the first `shown`) of the Wan in `folder`."""
    networks = growing_wan(ModelConfig(base=str(folder), base_from=str(folder), architecture=str(folder)), []).eval()
    clips = held_out_clips(people, seed)
    prompts = [describe(HELDOUT + seed + k) for k in range(people)]
    truth = torch.stack([torch.stack([to_pixels(layer.frame) for layer in layers]) for layers in clips])
    poses = torch.stack([torch.stack([to_pixels(draw_condition(TASK, layer)) for layer in layers]) for layers in clips])
    masks = torch.stack([torch.stack([torch.from_numpy(layer.mask) for layer in layers]) for layers in clips])
    grey = networks.encode(torch.zeros(1, FRAMES, 3, *SIZE))
    context = torch.cat([networks.context_of(networks.encode(pose[None]), grey) for pose in poses])
    made = {
        "posed": in_parts(networks, prompts, context, 1.0, steps),
        "shuffled": in_parts(networks, prompts, context.roll(1, 0), 1.0, steps),
        "text": in_parts(networks, prompts[:shown], context[:shown], 0.0, steps),
    }
    errors: dict[str, list[Tensor]] = {}
    for name in ("posed", "shuffled"):
        note(errors, name, made[name].flatten(0, 1), truth.flatten(0, 1), masks.flatten(0, 1))
    rows = [list(to_images(x[k, ::3])) for k in range(shown) for x in (truth, poses, made["posed"], made["text"])]
    return {name: decibels(torch.cat(parts)) for name, parts in errors.items()}, rows


@torch.no_grad()
def in_parts(networks: GrowingWan, prompts: list[str], context: Tensor, strength: float, steps: int) -> Tensor:
    """Clips (b f 3 H W) from noise, four at a time."""
    made = []
    for first in range(0, len(prompts), 4):
        part = slice(first, first + 4)
        made.append(networks.decode(sample(networks, prompts[part], context[part], strength, steps=steps)))
    return torch.cat(made)
