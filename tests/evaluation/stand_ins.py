"""Small networks in the place of published ones, as TorchScript files; and people who see what they are told."""

import types
import warnings

import numpy as np
import torch
from torch import Tensor, nn


class FilmMeans(nn.Module):
    """Called as StyleGAN-V's I3D is: the mean and the last frame's mean of each colour, of (b, 3, f, h, w)."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        if rescale or resize or not return_features:
            raise RuntimeError("called otherwise than FVD is")
        return torch.cat([x.mean((2, 3, 4)), x[:, :, -1].mean((2, 3))], 1)


class ClipMeans(nn.Module):
    """As a 3D ResNet: the mean of each colour and its number of frames."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3, 4)), torch.full((x.shape[0], 1), float(x.shape[2]))], 1)


class PictureMeans(nn.Module):
    """As NVIDIA's Inception: the mean of each colour of bytes (n, 3, h, w)."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8 and return_features
        return x.float().mean((2, 3))


def save_script(network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(path))
    return path


class Seer:
    """Annotators that see in every frame the pose given for its first byte."""

    versions = types.MappingProxyType({"keypoints": "seer 1"})

    def __init__(self, poses):
        self.poses = poses

    def detect(self, frames):
        return [[int(frame.flat[0])] for frame in frames]

    def annotate(self, frames, people, only=None):
        return [{"keypoints": self.poses[one]} if one in self.poses else {} for one in people]


class ByColour:
    """A face embedder: the angle of the vector is the picture's mean red."""

    def large_enough(self, landmarks):
        return torch.ones(len(landmarks), dtype=torch.bool)

    def embed_face(self, images, landmarks):
        angle = (images[:, 0].mean((1, 2)) + 1) / 2 * np.pi / 2
        return torch.stack([angle.cos(), angle.sin()], 1)
