"""Features of frames and clips whose distributions FID, FID-VID and FVD compare, by networks from files that people have.

metric   network                              file                                         licence of network / of its weights
fid      Inception v3 of 2015 (TensorFlow's)  weights-inception-2015-12-05-6726825d.pth    Apache-2.0 / Apache-2.0
fid_vid  3D ResNet-50 on Kinetics-400         resnet-50-kinetics.pth                       MIT / MIT (Hara et al. 2018)
fvd      I3D on Kinetics-400                  i3d_torchscript.pt (StyleGAN-V's)            Apache-2.0 / Apache-2.0 (DeepMind)

None of them is shipped here or fetched. A file may also be a TorchScript of the same network; Inception's is published, too.
I3D's is `i3d` in published.yaml; whoever names another file answers for it, and its sha256 is in the record.
"""

import dataclasses
import io
import warnings
import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from meta_animator import published
from meta_animator.errors import UserError
from meta_animator.evaluation.resnet3d import ResNet3D
from meta_animator.file_kinds import refuse_impostor
from meta_animator.published.entries import sha256_of
from meta_animator.torch_files import read_state
from meta_animator.weights import copy_strict

Metric: TypeAlias = Literal["fid", "fid_vid", "fvd"]

FILES: dict[Metric, tuple[tuple[str, str], ...]] = {  # names in torch's cache, and where the file is published
    "fid": (
        (
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        ),
        (
            "pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
        (
            "inception-2015-12-05.pt",
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        ),
    ),
    "fid_vid": (
        (
            "resnet-50-kinetics.pth",
            "https://github.com/yjh0410/YOWOF/releases/download/yowof-weight/resnet-50-kinetics.pth",
        ),
    ),
    "fvd": (("i3d_torchscript.pt", "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1"),),
}
PUBLISHED: dict[Metric, str] = {"fvd": "i3d"}
FRAMES_AT_ONCE = 32
SIDES: dict[Metric, int] = {"fid_vid": 112, "fvd": 224}  # of what the networks of films see, in pixels
KINETICS_MEAN = (114.7748, 107.7354, 99.4750)  # of red, green and blue, which 3D-ResNets-PyTorch subtracts
RESNET_FRAMES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """How films are cut for the networks of films.

    length    frames of a window
    step      frames from the start of one to the start of the next
    left_out  windows at the end that are not used
    repeats   how often each frame is shown: a film's rate is raised by so much
    """

    length: int = 16
    step: int = 1
    left_out: int = 0
    repeats: int = 1

    def starts(self, num_frames: int) -> range:
        """First frames of the windows; none where the film is too short."""
        count = max(num_frames - self.length + 1, 0)
        return range(0, count, self.step)[: max(len(range(0, count, self.step)) - self.left_out, 0)]


class FeatureNetwork:
    """A network from a file, for one metric, on a device. `sha256` names the file."""

    def __init__(self, metric: Metric, network: nn.Module, path: Path, *, script: bool, device: str = "cpu") -> None:
        self.metric, self.network, self.path, self.script = metric, network.eval().to(device), path, script
        self.device = device
        self.sha256 = sha256_of(path)

    @torch.no_grad()
    def frames(self, frames: np.ndarray) -> np.ndarray:
        """Of "fid": one feature per frame, float32 (n, d), from uint8 (n, h, w, 3), RGB."""
        options = {"return_features": True} if self.script else {}
        images = rearrange(torch.from_numpy(frames), "n h w c -> n c h w")
        features = []
        for some in images.split(FRAMES_AT_ONCE):
            given = self.network(some.to(self.device), **options)
            features.append(given[0] if isinstance(given, tuple) else given)
        return torch.cat(features).float().cpu().numpy()

    @torch.no_grad()
    def films(self, frames: np.ndarray, windows: Windows) -> np.ndarray:
        """Of "fid_vid" and "fvd": one feature per window of a film, float32 (k, d), from uint8 (n, h, w, 3), RGB; k may be 0.

        Frames are resized as DisCo does (tool/metrics/resize.py): bicubic, antialiased, in float. The 3D ResNet sees 16 frames
        at once, and a longer window has the mean of its parts; I3D sees the whole window, in [-1, 1], and gives its 400 logits.
        """
        starts = windows.starts(len(frames))
        if not starts:
            return np.zeros((0, 1), np.float32)
        shown = np.stack([_resized(frame, SIDES[self.metric]) for frame in frames])
        scaled = shown - np.float32(KINETICS_MEAN) if self.metric == "fid_vid" else shown / np.float32(127.5) - 1
        pixels = torch.from_numpy(scaled)
        features = []
        for start in starts:
            window = pixels[start : start + windows.length].repeat_interleave(windows.repeats, 0).to(self.device)
            features.append(self._window(rearrange(window, "f h w c -> 1 c f h w")))
        return torch.stack(features).float().cpu().numpy()

    def _window(self, window: Tensor) -> Tensor:
        """(1, c, f, h, w) -> (d,)."""
        if self.metric == "fvd":
            return self.network(window, rescale=False, resize=False, return_features=True)[0]
        if short := -window.shape[2] % RESNET_FRAMES:
            window = torch.cat([window, window[:, :, -1:].expand(-1, -1, short, -1, -1)], 2)
        return self.network(rearrange(window, "1 c (k f) h w -> k c f h w", f=RESNET_FRAMES)).mean(0)


def load_features(metric: Metric, path: str = "", weights: Path | None = None, device: str = "cpu") -> FeatureNetwork | str:
    """The network of `metric` in the file `path` or, where that is empty, in torch's cache, or, of what published.yaml lists, in
    the folder `weights` or this program's cache; without a file, a line that says what to put where.

    Raises UserError where `path` is missing or holds another network.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = Path(path) if path else next((folder / name for name, _ in FILES[metric] if (folder / name).is_file()), None)
    if found is None and metric in PUBLISHED and published.is_here(PUBLISHED[metric], weights):
        found = published.find(PUBLISHED[metric], weights, fetch=False)
    if found is None:
        name, source = FILES[metric][0]
        return f"{folder / name} is not there; put {source} there, or name its place with --{metric.replace('_', '-')}-weights"
    if not found.is_file():
        raise UserError(f"--{metric.replace('_', '-')}-weights {found}: no such file")
    refuse_impostor(found)
    if is_script(found):
        return FeatureNetwork(metric, _script(found), found, script=True, device=device)
    if metric == "fvd":
        raise UserError(f"{found}: holds weights without their network; expected a TorchScript, StyleGAN-V's i3d_torchscript.pt")
    network = _inception(found) if metric == "fid" else _resnet(found)
    return FeatureNetwork(metric, network, found, script=False, device=device)


def is_script(path: Path) -> bool:
    """Whether a file is a TorchScript: weights with the program that runs them."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _script(path: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the field's files are in it all the same
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise UserError(f"{path}: this TorchScript cannot be read ({str(error).splitlines()[0][:200]})") from error


def _inception(path: Path) -> nn.Module:
    """torch-fidelity's network, which resizes and computes as TensorFlow did for the first FIDs."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(f"{path}: FID by these weights needs one more package: pip install torch-fidelity") from error
    state = io.BytesIO()  # it loads what it is given as a pickle, with all that may be in one: it is given tensors alone
    torch.save(read_state(path), state)
    state.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:200]
        raise UserError(f"{path}: holds other weights than the Inception v3 of FID ({reason})") from error


def _resnet(path: Path) -> nn.Module:
    state = {name.removeprefix("module."): weight for name, weight in read_state(path).items()}
    state = {name: weight for name, weight in state.items() if not name.startswith("fc.")}
    network = ResNet3D(len(state["conv1.weight"]) if "conv1.weight" in state else 64)
    copy_strict(network.state_dict(), state, f"3D ResNet-50 {path}")
    return network


def _resized(frame: np.ndarray, side: int) -> np.ndarray:
    """float32 (side, side, 3), 0 to 255 and a little beyond."""
    channels = [Image.fromarray(np.ascontiguousarray(frame[..., c], np.float32)) for c in range(3)]
    return np.stack([np.asarray(channel.resize((side, side), Image.Resampling.BICUBIC)) for channel in channels], -1)
