"""Who judges: a face embedder that was in no loss, and a detector of keypoints, both trained on people of their own."""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from meta_animator.data.manifest import Clip, read_manifest
from meta_animator.data.samples import to_pixels
from meta_animator.diffusion.randomness import rng
from meta_animator.weights import load_tensors, save_tensors

JOINTS = 17  # of the body, as COCO has them: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
VISIBLE = 0.3
SIDE = 64  # of the picture that the detector looks at
CELLS = 32  # of its maps, on a side
CHANNELS = (32, 48, 96, 128)


class PoseJudge(nn.Module):
    """Where the body's joints are: a small U-shaped network with a map for each joint (Newell et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        before = (12, *CHANNELS[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(before, CHANNELS, strict=True))
        self.up = nn.ModuleList(_block(b + a, a) for a, b in itertools.pairwise(CHANNELS))
        self.maps = nn.Conv2d(CHANNELS[0], JOINTS, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n 3 h w) in [-1, 1] -> logits (n, 17, 32, 32) of where each joint is."""
        small, kept = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True), []
        x = F.pixel_unshuffle(small, SIDE // CELLS)
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for block, beside in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), beside], 1))
        return self.maps(x)

    @torch.no_grad()
    def joints(self, images: Tensor) -> Tensor:
        """Where each joint most likely is: (n, 17, 2) x, y in shares of width and height. Finer than a cell: the mean over the
        likeliest cell and those around it."""
        chances = self(images).flatten(2).softmax(-1)
        best = chances.argmax(-1, keepdim=True)
        rows, columns = torch.arange(CELLS * CELLS) // CELLS, torch.arange(CELLS * CELLS) % CELLS
        near = ((rows - best // CELLS).abs() <= 1) & ((columns - best % CELLS).abs() <= 1)
        weights = chances * near / (chances * near).sum(-1, keepdim=True)
        return torch.stack([weights @ columns.float(), weights @ rows.float()], -1).add(0.5) / CELLS

    def save(self, folder: Path, facts: dict) -> None:
        save_tensors(dict(self.state_dict()), folder / "pose.safetensors")
        (folder / "pose.json").write_text(json.dumps(facts, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "PoseJudge":
        judge = cls()
        judge.load_state_dict(load_tensors(folder / "pose.safetensors"))
        return judge.eval()


def _block(inside: int, outside: int) -> nn.Module:
    layers = []
    for a in (inside, outside):
        layers += [nn.Conv2d(a, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.SiLU()]
    return nn.Sequential(*layers)


def train_pose_judge(people: Path, folder: Path, steps: int, batch: int = 32, seed: int = 0) -> float:
    """Train on a data set of puppets, blurred and with noise by turns as generated pictures are, and write it to `folder`.
    Returns its mean error on every tenth clip, which it has not seen, in shares of the picture's height."""
    clips = read_manifest(people)
    held, shown = clips[::10], [clip for k, clip in enumerate(clips) if k % 10]
    images, joints, seen = (torch.stack(part) for part in zip(*_examples(shown), strict=True))
    torch.manual_seed(seed)
    judge = PoseJudge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in tqdm(range(steps), desc="pose judge", unit="step", dynamic_ncols=True):
        random = rng(seed, "pose judge", step)
        picked = torch.from_numpy(random.integers(len(images), size=batch))
        logits = judge(_worse(images[picked].float() / 127.5 - 1, random)).flatten(2)
        place = (joints[picked] * CELLS).long().clamp(0, CELLS - 1)
        loss = F.cross_entropy(logits[seen[picked]], (place[..., 1] * CELLS + place[..., 0])[seen[picked]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    images, joints, seen = (torch.stack(part) for part in zip(*_examples(held), strict=True))
    error = float((judge.eval().joints(images.float() / 127.5 - 1) - joints).norm(dim=-1)[seen].mean())
    judge.save(folder, {"steps": steps, "clips": len(shown), "error_on_unseen": error})
    return error


def _examples(clips: list[Clip]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(picture uint8 (3 h w), joints (17, 2) in shares of width and height, which of them are seen) of all frames."""
    examples = []
    for clip in clips:
        for k in range(clip.num_frames):
            layers = clip.load(k, ("frame", "keypoints"))
            body = torch.from_numpy(np.asarray(layers.keypoints[:JOINTS], np.float32))
            where = (body[:, :2] + 0.5) / torch.tensor([clip.width, clip.height])
            picture = ((to_pixels(layers.frame) + 1) * 127.5).round().to(torch.uint8)
            examples.append((picture, where, body[:, 2] >= VISIBLE))
    return examples


def _worse(images: Tensor, random: np.random.Generator) -> Tensor:
    """Pictures with less detail, other brightness and noise, as far as chance has it."""
    side = images.shape[-1]
    small = int(side * random.uniform(0.3, 1))
    images = F.interpolate(F.interpolate(images, (small, small), mode="area"), images.shape[-2:], mode="bilinear")
    noise = torch.from_numpy(random.standard_normal(images.shape, np.float32))
    return (images * float(random.uniform(0.7, 1.2)) + float(random.uniform(0, 0.15)) * noise).clamp(-1, 1)


def pose_error(judge: PoseJudge, frames: np.ndarray, keypoints: list[np.ndarray | None]) -> list[float | None]:
    """Per frame uint8 (n h w 3) the mean distance of the detected joints from the true ones (133, 3), in shares of the frame's
    height, over the joints that are seen; None where none is."""
    height, width = frames.shape[1:3]
    found = judge.joints(torch.stack([to_pixels(frame) for frame in frames])).numpy() * [width, height] - 0.5
    errors: list[float | None] = []
    for ours, truth in zip(found, keypoints, strict=True):
        seen = np.zeros(JOINTS, bool) if truth is None else truth[:JOINTS, 2] >= VISIBLE
        gaps = None if not seen.any() else np.linalg.norm(ours[seen] - truth[:JOINTS, :2][seen], axis=1)
        errors.append(None if gaps is None else float(gaps.mean() / height))
    return errors
