"""How good an embedded base model is, on puppets that it was not trained on."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.data.conditions import draw_condition
from meta_animator.data.keypoints import face_box, five_points
from meta_animator.data.layers import Layers
from meta_animator.data.samples import to_images, to_pixels
from meta_animator.diffusion.samplers import ddim
from meta_animator.evaluation.frames import frame_metrics
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.face import FaceEmbedder
from meta_animator.puppets.dataset import HELDOUT, describe
from meta_animator.puppets.rendering.motion import MOTIONS
from meta_animator.puppets.rendering.render import render_clip
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.settings import ModelConfig

TASK = "dwpose"


def judge_base(base: Path, people: int = 40, shown: int = 8, seed: int = 500) -> tuple[dict[str, Any], list[list[np.ndarray]]]:
    """({"vae": `frame_metrics`, "face": see `verification`, ...}, rows of pictures: truth, decoded, pose, from text, from text
    and pose) on `people` held-out puppets with two frames each, the first `shown` of them in the pictures.

    Raises UserError where a part of the base is missing.
    """
    metadata, weights = read_weights(base / "control")
    config = ModelConfig(base=str(base), tasks=[TASK], lora_rank=metadata["lora_rank"])
    models = Assembly(config, load_backbone(config)).eval()
    load_control(models, metadata, weights, str(base / "control"))
    backbone, names = models.backbone, [HELDOUT + seed + k for k in range(people)]
    pairs = [two_frames(person) for person in names]
    layers = [pair[0] for pair in pairs]
    truth = np.stack([layer.frame for layer in layers])
    pixels = torch.stack([to_pixels(frame) for frame in truth])[:, None]
    with torch.no_grad():
        decoded = _shown(torch.cat([backbone.decode(backbone.encode(part)) for part in pixels.split(8)]))
        poses = [draw_condition(TASK, layer) for layer in layers[:shown]]
        control = backbone.encode_condition(torch.stack([to_pixels(pose) for pose in poses])[:, None])
        prompts = [describe(person) for person in names[:shown]]
        from_text = _shown(backbone.decode(sample_base(models, TASK, prompts, control, strength=0.0, guidance=4.0)))
        posed = _shown(backbone.decode(sample_base(models, TASK, prompts, control, strength=1.0, guidance=2.0)))
    boxes = [face_box(layer.keypoints) for layer in layers]
    numbers = {
        "vae": frame_metrics(decoded, truth, np.stack([layer.mask for layer in layers]), boxes),
        "face": verification(FaceEmbedder.from_pretrained(base / "face").eval(), pairs),
        "posed": frame_metrics(posed, truth[:shown], np.stack([layer.mask for layer in layers[:shown]]), boxes[:shown]),
    }
    return numbers, [list(rows) for rows in (truth[:shown], decoded[:shown], poses, from_text, posed)]


@torch.no_grad()
def sample_base(
    models: Assembly, task: str, prompts: list[str], control: Tensor, strength: float, guidance: float, steps: int = 25
) -> Tensor:
    """Latents (b 1 c h w) from noise, for as many prompts and latents of a task's condition images (b 1 c h w)."""
    backbone = models.backbone
    denoiser = Denoiser(
        backbone=backbone, control=models.control, tasks={task: 1.0}, control_latents={task: control},
        context=backbone.embed_text(prompts), null_context=backbone.embed_text([""] * len(prompts)),
        controlnet_conditioning_scale=strength, guidance_scale=guidance,
    )  # fmt: skip
    x_T = torch.randn(control.shape, generator=torch.Generator().manual_seed(0)).to(control)
    return ddim(denoiser, x_T, backbone.process, backbone.process.sampling_timesteps(steps))


def _shown(pixels: Tensor) -> np.ndarray:
    """uint8 (b h w 3) of clips (b 1 3 h w) of one frame."""
    return to_images(pixels[:, 0])


@torch.no_grad()
def verification(embedder: FaceEmbedder, pairs: list[list[Layers]]) -> dict[str, float | int]:
    """Whether two faces are one person's, by cosine, at the threshold where both kinds of error are equally frequent.

    pairs: the frames of each person. Faces that do not show, or are too small for the embedder, are left out.
    """
    embeddings, owners = [], []
    for person, frames in enumerate(pairs):
        for layer in frames:
            points = five_points(layer.keypoints)
            if points is not None and bool(embedder.large_enough(landmarks := torch.from_numpy(points)[None])):
                embeddings.append(embedder.embed_face(to_pixels(layer.frame)[None], landmarks)[0])
                owners.append(person)
    same, other = [], []
    for a, b in combinations(range(len(owners)), 2):
        (same if owners[a] == owners[b] else other).append(float(embeddings[a] @ embeddings[b]))
    return {"accuracy": 1 - equal_error_rate(np.array(same), np.array(other)), "faces": len(owners), "same_pairs": len(same)}


def equal_error_rate(same: np.ndarray, other: np.ndarray) -> float:
    """Mean of false rejections and false acceptances, at the threshold where they are nearest to each other."""
    thresholds = np.sort(np.concatenate([same, other]))
    rejected = np.searchsorted(np.sort(same), thresholds, side="left") / len(same)
    accepted = 1 - np.searchsorted(np.sort(other), thresholds, side="left") / len(other)
    best = int(np.argmin(np.abs(rejected - accepted)))
    return float(rejected[best] + accepted[best]) / 2


def two_frames(person: int) -> list[Layers]:
    """Two frames of a person, a second apart in two motions of their own, with cameras of their own."""
    kinds = MOTIONS[person % len(MOTIONS)], MOTIONS[(person + 1) % len(MOTIONS)]
    return [render_clip(person, person + 7 * k, 2, 1, motion_kind=kind)[-1] for k, kind in enumerate(kinds)]
