"""Face embedders that other projects trained on photos of people: ArcFace-class networks on crops of 112 x 112 pixels.

file                      network                                          licence of code / of the weights it was published with
SFace `.onnx`             face_recognition_sface_2021dec.onnx (OpenCV Zoo)   Apache-2.0 / Apache-2.0; the default to suggest
ArcFace `.onnx`           such as antelopev2's glintr100.onnx               MIT / research only (InsightFace)
iResNet `.pth`            arcface_torch's backbone.pth, 18 to 200 layers     MIT / research only (InsightFace)

None of them is shipped here: whoever names a file answers for its licence.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.models.face import ARCFACE_SIZE, FaceEmbedder, align_faces, large_enough
from meta_animator.torch_files import read_state
from meta_animator.weights import copy_strict

MIN_FACE_SIZE = 32.0  # image pixels a side; a smaller face would be blown up more than threefold
ADVICE = (
    "the permissive choice is SFace, face_recognition_sface_2021dec.onnx of the OpenCV Zoo (Apache-2.0); "
    "or set loss.face_weight=0"
)


def load_face(path: str) -> nn.Module:
    """The embedder that `model.face` names: a folder of ours, an .onnx file or an iResNet's .pth; frozen.

    It offers `embed_face(images, landmarks)`, unit vectors, differentiable in the images, and `large_enough(landmarks)`.
    Raises UserError where there is none.
    """
    if not path:
        raise UserError(f"model.face is empty but loss.face_weight > 0: name a face embedder; {ADVICE}")
    if Path(path).is_dir():
        embedder = FaceEmbedder.from_pretrained(path)
    elif not Path(path).is_file():
        raise UserError(f"model.face {path}: no such file or folder, but loss.face_weight > 0; {ADVICE}")
    elif Path(path).suffix == ".onnx":
        embedder = ArcFaceEmbedder(*_from_onnx(Path(path)))
    else:
        embedder = ArcFaceEmbedder(iresnet_from(read_state(path), f"model.face {path}"))
    return embedder.requires_grad_(False).eval()


class ArcFaceEmbedder(nn.Module):
    """A network on aligned crops (n, 3, 112, 112), RGB.

    bytes_in   whether it wants pixels in [0, 255]; otherwise in [-1, 1]
    """

    def __init__(self, network: nn.Module, bytes_in: bool = False) -> None:
        super().__init__()
        self.network, self.bytes_in = network, bytes_in

    def embed_face(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] and their landmarks (n, 5, 2) -> unit vectors (n, d)."""
        dtype = next((p.dtype for p in self.network.parameters()), torch.float32)
        crops = align_faces(images, landmarks, ARCFACE_SIZE).to(dtype)
        with torch.autocast(crops.device.type, enabled=False):
            return F.normalize(self.network((crops + 1) * 127.5 if self.bytes_in else crops).flatten(1), dim=1)

    def large_enough(self, landmarks: Tensor) -> Tensor:
        """Which faces are large enough: bool (n,) from landmarks (n, 5, 2)."""
        return large_enough(landmarks, MIN_FACE_SIZE)

    def train(self, mode: bool = True) -> "ArcFaceEmbedder":
        """Always in evaluation: its batch statistics are those of people, not of a batch."""
        return super().train(False)


def _from_onnx(path: Path) -> tuple[nn.Module, bool]:
    """(network, whether it wants [0, 255]), in PyTorch, with gradients. As InsightFace tells them apart: a graph that begins
    with a subtraction and a product scales its pixels itself."""
    try:
        import onnx
        from onnx2torch import convert
    except ImportError as error:
        raise UserError(f"model.face {path}: reading .onnx needs two more packages: pip install onnx onnx2torch") from error
    try:
        model = onnx.load(path)
        first = {node.op_type for node in model.graph.node[:8]}
        return convert(model), {"Sub", "Mul"} <= first
    except Exception as error:  # what these packages raise has no common ancestor
        raise UserError(f"model.face {path}: cannot be read ({str(error).splitlines()[0][:200]})") from error


def iresnet_from(state: Mapping[str, Tensor], what: str) -> "IResNet":
    """The iResNet that a state dict belongs to; its depth is read from the names."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found = [re.match(r"layer(\d)\.(\d+)\.", name) for name in state]
    depths = [1 + max((int(m[2]) for m in found if m and int(m[1]) == k), default=-1) for k in range(1, 5)]
    if min(depths) < 1 or "fc.weight" not in state:
        raise UserError(f"{what}: not an iResNet of arcface_torch (conv1, layer1 to layer4, fc, features)")
    network = IResNet(depths, embedding_dim=state["fc.weight"].shape[0])
    copy_strict(network.state_dict(), state, what)
    return network


class IResNet(nn.Module):
    """The residual network of ArcFace (Deng et al. 2019, 3.1), under the names of InsightFace's arcface_torch.

    depths   blocks in each of the four stages: 18 layers (2, 2, 2, 2), 34 (3, 4, 6, 3), 50 (3, 4, 14, 3), 100 (3, 13, 30, 3)
    """

    def __init__(self, depths: list[int], embedding_dim: int = 512) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        before = 64
        for k, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
            blocks = [IResBlock(before if i == 0 else channels, channels, stride=2 if i == 0 else 1) for i in range(depth)]
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
            before = channels
        self.bn2 = nn.BatchNorm2d(512)
        self.fc, self.features = nn.Linear(512 * 7 * 7, embedding_dim), nn.BatchNorm1d(embedding_dim)

    def forward(self, crops: Tensor) -> Tensor:
        """Aligned crops (n, 3, 112, 112) in [-1, 1] -> (n, embedding_dim), not normalised."""
        x = self.prelu(self.bn1(self.conv1(crops)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class IResBlock(nn.Module):
    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, channels, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(channels), nn.PReLU(channels)
        self.conv2, self.bn3 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.downsample = None
        if stride > 1 or before != channels:
            self.downsample = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))
