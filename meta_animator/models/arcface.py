"""Face embedders that other projects trained on photos of people: ArcFace-class networks on crops of 112 x 112 pixels.

file                      network                                          licence of code / of the weights it was published with
SFace `.onnx`             face_recognition_sface_2021dec.onnx (OpenCV Zoo)   Apache-2.0 / Apache-2.0; the default to suggest
ArcFace `.onnx`           such as antelopev2's glintr100.onnx               MIT / research only (InsightFace)
iResNet `.pth`            arcface_torch's backbone.pth, 18 to 200 layers     MIT / research only (InsightFace)

None of them is shipped here: whoever names a file answers for its licence.
"""

import operator
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.file_kinds import refuse_impostor
from meta_animator.models.face import ARCFACE_SIZE, FaceEmbedder, align_faces, large_enough
from meta_animator.torch_files import read_state
from meta_animator.weights import copy_strict

MIN_DIMENSIONS = 64  # of an embedding; SFace's has 128, ArcFace's 512
SCALING = ("Sub", "Add", "Mul", "Div", "Identity", "Cast")
MIN_FACE_SIZE = 32.0  # image pixels a side; a smaller face would be blown up more than threefold
ADVICE = (
    "the permissive choice is SFace, face_recognition_sface_2021dec.onnx of the OpenCV Zoo (Apache-2.0); "
    "or set loss.face_weight=0"
)


def load_face(path: str, named: str = "") -> nn.Module:
    """The embedder that `model.face` names, or the option `named`: a folder of ours, an .onnx file or an iResNet's .pth; frozen.

    It offers `embed_face(images, landmarks)`, unit vectors, differentiable in the images, and `large_enough(landmarks)`.
    Raises UserError where there is none.
    """
    if not path:
        raise UserError(f"model.face is empty but loss.face_weight > 0: name a face embedder; {ADVICE}")
    if Path(path).is_dir():
        embedder = FaceEmbedder.from_pretrained(path)
    elif not Path(path).is_file():
        why = "" if named else ", but loss.face_weight > 0"
        raise UserError(f"{named or 'model.face'} {path}: no such file or folder{why}; {ADVICE}")
    elif Path(path).suffix == ".onnx":
        network, bytes_in = _from_onnx(Path(path))
        _check_network(network, bytes_in, f"{named or 'model.face'} {path}")
        embedder = ArcFaceEmbedder(network, bytes_in)
    else:
        embedder = ArcFaceEmbedder(iresnet_from(read_state(path), f"{named or 'model.face'} {path}"))
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
    """(network, whether it wants [0, 255]), in PyTorch, with gradients."""
    refuse_impostor(path, "model.face ")
    try:
        import onnx
        from onnx2torch import convert
    except ImportError as error:
        raise UserError(f"model.face {path}: reading .onnx needs two packages: pip install onnx onnx2torch") from error
    try:
        model = onnx.load(path)
        network, ends = convert(model), _scaled(model.graph)
    except Exception as error:  # what these packages raise has no common ancestor
        raise UserError(f"model.face {path}: cannot be read ({_first_line(error)})") from error
    return network, _wants_bytes(*ends, f"model.face {path}")


def _scaled(graph) -> tuple[float, float]:
    """What an ONNX graph makes of the pixel values 0 and 255 before its first layer: it may begin with sums and products with
    constants, that is, scale its pixels itself."""
    from onnx.numpy_helper import to_array

    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    made = [(node.output[0], a) for node in graph.node if node.op_type == "Constant" for a in node.attribute]
    constants |= {name: to_array(attribute.t) for name, attribute in made if attribute.name == "value"}
    name, low, high = next(value.name for value in graph.input if value.name not in constants), 0.0, 255.0
    while len(after := [node for node in graph.node if name in node.input]) == 1 and after[0].op_type in SCALING:
        (node,) = after
        if not all(operand == name or operand in constants for operand in node.input):
            break
        low, high = (_apply(node.op_type, [v if n == name else constants[n].mean() for n in node.input]) for v in (low, high))
        name = node.output[0]
    return low, high


def _apply(operation: str, operands: list[float]) -> float:
    functions = {"Sub": operator.sub, "Add": operator.add, "Mul": operator.mul, "Div": operator.truediv}
    return float(functions[operation](*operands)) if operation in functions else operands[0]


def _wants_bytes(low: float, high: float, what: str) -> bool:
    """Whether a network that makes `low` of the value 0 and `high` of 255 wants pixels in [0, 255]; otherwise in [-1, 1].
    Raises UserError where it wants another range."""
    if (low, high) == (0.0, 255.0):
        return False
    if 1 <= high - low <= 10 or low < -50:  # brought to about [-1, 1], or centred alone
        return True
    raise UserError(
        f"{what}: makes {low:.3g} of pixel value 0 and {high:.3g} of 255; expected a network for [-1, 1], which leaves its "
        "pixels as they are, or for [0, 255], which brings them to about [-1, 1]"
    )


@torch.no_grad()
def _check_network(network: nn.Module, bytes_in: bool, what: str) -> None:
    """Raises UserError unless two crops become two embeddings."""
    crops = torch.linspace(-1, 1, 2 * 3 * ARCFACE_SIZE**2).view(2, 3, ARCFACE_SIZE, ARCFACE_SIZE)
    wanted = f"expected (2, d) with d >= {MIN_DIMENSIONS}"
    try:
        answer = network.eval()((crops + 1) * 127.5 if bytes_in else crops)
    except Exception as error:  # converted graphs raise whatever their operators raise
        raise UserError(f"{what}: fails on two crops of 112 x 112 pixels ({_first_line(error)}); {wanted}") from error
    if not isinstance(answer, Tensor):
        raise UserError(f"{what}: has {len(answer)} outputs; {wanted} of two crops, and nothing else")
    if answer.ndim != 2 or len(answer) != 2 or answer.shape[1] < MIN_DIMENSIONS:
        raise UserError(f"{what}: makes {tuple(answer.shape)} of two crops of 112 x 112 pixels; {wanted}")
    if not answer.isfinite().all():
        raise UserError(f"{what}: its embeddings are not finite; is it damaged?")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


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
