"""LPIPS (Zhang et al. 2018): how far apart two pictures look, by the features of a network for classifying them.

The package `lpips` brings the heads that were fitted to people's judgements; the trunk below them is torchvision's AlexNet or
VGG-16, trained on ImageNet, whose file is looked for in torch's cache, where torchvision itself would put it.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.torch_files import read_state
from meta_animator.weights import copy_strict

TRUNKS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}  # as torchvision names them
SOURCE = "https://download.pytorch.org/models"
FRAMES_AT_ONCE = 8
SMALLEST = 32  # pixels a side, for the trunk's last layers to see anything


class Lpips:
    """Distances of frames. Published LPIPS values are those of "alex", DisCo's of "vgg"."""

    def __init__(self, network: nn.Module, net: str, device: str = "cpu"):
        self.network, self.net, self.device = network.eval().requires_grad_(False).to(device), net, device

    def __call__(self, generated: np.ndarray, truth: np.ndarray, unscaled: bool = False) -> list[float]:
        """One distance per frame, 0 for equal ones, from uint8 (n, h, w, 3), RGB.

        unscaled   pixels are given to the network in [0, 1] instead of [-1, 1], as the DisCo family of papers does
        """
        return self._distances(generated, truth, unscaled).flatten().tolist()

    def maps(self, generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The distance at each pixel, float32 (n, h, w): each layer's brought to the frame's size, then their sum."""
        return self._distances(generated, truth, spatial=True).squeeze(1).numpy()

    @torch.no_grad()
    def _distances(self, generated: np.ndarray, truth: np.ndarray, unscaled: bool = False, spatial: bool = False) -> Tensor:
        """(n, 1, 1, 1), or (n, 1, h, w)."""
        if min(truth.shape[1:3]) < SMALLEST:
            size = f"{truth.shape[2]}x{truth.shape[1]}"
            raise UserError(f"LPIPS: frames of {size} pixels are too small; expected {SMALLEST} at least")
        self.network.spatial = spatial
        distances = []
        for start in range(0, len(truth), FRAMES_AT_ONCE):
            pair = (_pixels(frames[start : start + FRAMES_AT_ONCE]).to(self.device) for frames in (generated, truth))
            distances.append(self.network(*pair, normalize=not unscaled).cpu())
        return torch.cat(distances)


def _pixels(frames: np.ndarray) -> Tensor:
    return rearrange(torch.from_numpy(frames), "n h w c -> n c h w").float() / 255


def trunk_file(net: str) -> Path:
    """Where torchvision keeps the trunk of `net` ("alex" or "vgg") once it has been downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]


def load_lpips(net: str = "alex", trunk: str = "", device: str = "cpu") -> Lpips | None:
    """LPIPS with the trunk in the file `trunk` or, where that is empty, in torch's cache; without that file None, and a note.

    Raises UserError where `trunk` is missing or holds another network.
    """
    path = Path(trunk) if trunk else trunk_file(net)
    if not trunk and not path.is_file():
        print(
            f"note: LPIPS is off: {path} is not there; download {SOURCE}/{path.name} to that place, or name its place with "
            "--lpips-trunk"
        )
        return None
    state = read_state(path)
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # how lpips asks torchvision for a network is deprecated
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # its slices keep the numbers that layers have in torchvision's `features`: slice2.3.weight
    own = {f"features.{name.partition('.')[2]}": weight for name, weight in network.net.named_parameters()}
    features = {name: weight for name, weight in state.items() if name.startswith("features.")}
    copy_strict(own, features, f"LPIPS trunk {path}, for '{net}'")
    return Lpips(network, net, device)
