"""Faces: alignment to a common template, and a small network that tells people apart.

Landmarks are (n, 5, 2): x, y in pixels with centres at integers, in the order left eye, right eye, nose tip, left mouth
corner, right mouth corner, where left is left in the image.
"""

import dataclasses
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.weights import copy_strict, load_tensors, save_tensors

# Where ArcFace puts the landmarks in a crop of 112 x 112 pixels (Deng et al. 2019; the values are InsightFace's).
ARCFACE_SIZE = 112
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
SAME_SIZE = 1e-3  # by how many crops a face may be larger than the crop and still count as of its size: rounding


def template(size: int) -> Tensor:
    """The landmarks of an aligned crop of size x size pixels, float32 (5, 2); its borders stay where they are."""
    return (torch.tensor(ARCFACE_TEMPLATE) + 0.5) * (size / ARCFACE_SIZE) - 0.5


def face_transform(landmarks: Tensor, size: int) -> Tensor:
    """The similarity from image pixels to crop pixels, float32 (n, 2, 3), without a gradient.

    Least squares over rotation, one scale and shift (Umeyama 1991); in the plane it has the closed form of a complex
    regression: with centred points p and q, the factor is sum(conj(p) q) / sum(|p|^2).
    """
    points = landmarks.detach().float()
    wanted = template(size).to(points.device)
    centre, wanted_centre = points.mean(1), wanted.mean(0)
    p, q = points - centre[:, None], wanted - wanted_centre
    spread = p.square().sum((1, 2)).clamp_min(1e-8)
    real = (p * q).sum((1, 2)) / spread
    imaginary = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(1) / spread
    linear = torch.stack([torch.stack([real, -imaginary], 1), torch.stack([imaginary, real], 1)], 1)
    shift = wanted_centre - _apply(linear, centre)
    return torch.cat([linear, shift[..., None]], 2)


def align_faces(images: Tensor, landmarks: Tensor, size: int = ARCFACE_SIZE, oversample: int = 1) -> Tensor:
    """Crops (n, 3, size, size) with the landmarks at the template, differentiable in the images (n, 3, h, w).

    Bilinear; 0 outside of the image. Each crop pixel is a mean of oversample^2 points, or of more where a face is so much
    larger than the crop that some of its pixels would be skipped, and receive no gradient; how many depends on that face alone.
    """
    largest = math.ceil(2 * max(images.shape[-2:]) / size)  # of a face that is a picture's size; landmarks may also coincide
    factors = (face_sizes(landmarks) / size - SAME_SIZE).ceil().clamp(oversample, max(oversample, largest)).long()
    crops = images.new_zeros((len(images), images.shape[1], size, size), dtype=torch.float32)
    for factor in factors.unique().tolist():
        chosen = (factors == factor).nonzero().squeeze(1)
        crops = crops.index_copy(0, chosen.to(crops.device, non_blocking=True), _align(images, landmarks, chosen, size, factor))
    return crops


def _align(images: Tensor, landmarks: Tensor, chosen: Tensor, size: int, oversample: int) -> Tensor:
    """Crops of the chosen (m,) images, each pixel a mean of oversample^2 points."""
    images, landmarks = images[chosen.to(images.device, non_blocking=True)], landmarks[chosen]
    transform = face_transform(landmarks, size * oversample)
    linear, shift = transform[..., :2], transform[..., 2]
    scale = linear[:, :, 0].square().sum(1).clamp_min(1e-12)
    back = linear.transpose(1, 2) / scale[:, None, None]
    axis = torch.arange(size * oversample, device=transform.device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    crop_pixels = torch.stack([x, y], -1).view(1, -1, 2)
    source = _apply(back[:, None], crop_pixels - shift[:, None])
    extent = torch.tensor([images.shape[-1], images.shape[-2]], device=source.device, dtype=torch.float32)
    grid = ((2 * source + 1) / extent - 1).view(-1, len(axis), len(axis), 2)
    crops = F.grid_sample(images.float(), grid.to(images.device, non_blocking=True), padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(crops, oversample) if oversample > 1 else crops


def face_sizes(landmarks: Tensor) -> Tensor:
    """Side of the square that an aligned crop covers, in image pixels: float32 (n,)."""
    linear = face_transform(landmarks, ARCFACE_SIZE)[..., 0]
    return ARCFACE_SIZE / linear.square().sum(1).sqrt().clamp_min(1e-8)


def large_enough(landmarks: Tensor, min_face_size: float) -> Tensor:
    """Which faces cover at least min_face_size image pixels a side: bool (n,)."""
    return face_sizes(landmarks) >= min_face_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceConfig:
    """The shape of a FaceEmbedder.

    channels       of the stages; each but the first halves the resolution
    embedding_dim  length of the embedding
    input_size     side of the aligned crop in pixels, divisible by 2 for each halving
    oversample     see `align_faces`, the least
    min_face_size  smallest face, in image pixels a side, that the network was trained to tell apart
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    embedding_dim: int = 128
    input_size: int = 32
    oversample: int = 2
    min_face_size: float = 12.0

    def __post_init__(self) -> None:
        whole = self.channels if isinstance(self.channels, list | tuple) else [None]
        if not all(type(n) is int for n in (*whole, self.embedding_dim, self.input_size, self.oversample)):
            raise UserError(f"face embedder: expected whole numbers and a list of them for channels, got {self}")
        if not isinstance(self.min_face_size, int | float):
            raise UserError(f"face embedder: min_face_size must be a number, got {self.min_face_size!r}")
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or min(self.channels) < 1 or self.embedding_dim < 1 or self.oversample < 1:
            raise UserError(f"face embedder: channels, embedding_dim and oversample must be at least 1, got {self}")
        halvings = 2 ** (len(self.channels) - 1)
        if self.input_size < halvings or self.input_size % halvings:
            raise UserError(f"face embedder: input_size must be divisible by {halvings}, got {self.input_size}")


class FaceEmbedder(nn.Module):
    """A small residual network from aligned crops to unit vectors; the cosine of two tells how alike two faces are."""

    def __init__(self, config: FaceConfig | None = None) -> None:
        super().__init__()
        self.config = config or FaceConfig()
        channels = self.config.channels
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        widths = zip((channels[0], *channels[:-1]), channels, strict=True)
        self.stages = nn.ModuleList(
            ResidualBlock(before, after, stride=1 if i == 0 else 2) for i, (before, after) in enumerate(widths)
        )
        side = self.config.input_size // 2 ** (len(channels) - 1)
        self.norm = _norm(channels[-1])
        self.head = nn.Linear(channels[-1] * side**2, self.config.embedding_dim)

    def forward(self, crops: Tensor) -> Tensor:
        """Aligned crops (n, 3, input_size, input_size) in [-1, 1] -> unit vectors (n, embedding_dim)."""
        x = self.stem(crops.to(self.stem.weight.dtype))
        for stage in self.stages:
            x = stage(x)
        return F.normalize(self.head(F.silu(self.norm(x)).flatten(1)), dim=1)

    def embed_face(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] and their landmarks (n, 5, 2) -> unit vectors (n, embedding_dim).

        Differentiable in the images.
        """
        return self(align_faces(images, landmarks, self.config.input_size, self.config.oversample))

    def large_enough(self, landmarks: Tensor) -> Tensor:
        """Which faces are large enough for this network: bool (n,) from landmarks (n, 5, 2)."""
        return large_enough(landmarks, self.config.min_face_size)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, the weights in `dtype` or their own."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors({k: v.to(dtype or v.dtype) for k, v in self.state_dict().items()}, folder / "model.safetensors")
        write_json(folder / "config.json", dataclasses.asdict(self.config))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "FaceEmbedder":
        """The network of a folder written by `save_pretrained`, in float32. Raises UserError if it does not fit."""
        folder = Path(folder)
        values = read_json(folder / "config.json")
        if not isinstance(values, dict):
            raise UserError(f"{folder / 'config.json'}: expected a mapping, got {str(values)[:40]}")
        known = {field.name for field in dataclasses.fields(FaceConfig)}
        if unknown := sorted(set(values) - known):
            raise UserError(
                f"{folder / 'config.json'}: unknown field {unknown[0]}; known are {', '.join(sorted(known))}"
            )
        try:
            config = FaceConfig(**values)
        except UserError as error:
            raise UserError(f"{folder / 'config.json'}: {error}") from error
        model = cls(config)
        copy_strict(model.state_dict(), load_tensors(folder / "model.safetensors"), f"face embedder {folder}")
        return model


class ResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions beside a shortcut (He et al. 2016, pre-activation)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(before), _norm(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride) if before != after or stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


def _apply(linear: Tensor, points: Tensor) -> Tensor:
    """Matrices (.., 2, 2) times vectors (.., 2), spelled out: a matrix product would lose bits to autocast and TF32."""
    return (linear * points[..., None, :]).sum(-1)


def _norm(channels: int) -> nn.GroupNorm:
    """Batch-free: an embedding must not depend on who else is in the batch."""
    return nn.GroupNorm(math.gcd(8, channels), channels)
