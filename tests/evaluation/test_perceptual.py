"""LPIPS with a trunk from a local file: a random one here, as published ones cannot be had without a network."""

import warnings

import numpy as np
import pytest
import torch
import torchvision

from meta_animator.errors import UserError
from meta_animator.evaluation.frames import frame_metrics, frame_scores
from meta_animator.evaluation.perceptual import TRUNKS, load_lpips

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """A file as torchvision's, with its classifier's names but not its 57 million weights."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torchvision.models.alexnet(weights=None)
    path = tmp_path_factory.mktemp("hub") / "checkpoints" / TRUNKS["alex"]
    path.parent.mkdir()
    small = {n: torch.zeros(1) if n.startswith("classifier.") else w for n, w in network.state_dict().items()}
    torch.save(small, path)
    return path


def by_hand(trunk, x, y):
    """The published formula with the file's own layers: unit-length features, squared differences, the heads' weights."""
    import lpips

    heads = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    features = torchvision.models.alexnet(weights=None).features
    features.load_state_dict({n[9:]: w for n, w in torch.load(trunk).items() if n.startswith("features.")})
    total, taken = 0.0, [1, 4, 7, 9, 11]
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    for index in taken:
        a, b = (features[: index + 1](((2 * p - 1 - mean) / deviation).permute(2, 0, 1)[None]) for p in (x, y))
        a, b = (v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (a, b))
        weights = heads.lins[taken.index(index)].model[-1].weight
        total += float(((a - b).square() * weights).sum(1).mean())
    return total


@torch.no_grad()
def test_the_distance_is_the_formula_with_the_trunk_of_the_file(trunk):
    lpips, other = load_lpips("alex", str(trunk)), FRAMES[::-1].copy()
    distances = lpips(FRAMES, other)
    assert distances[1] == 0 and distances[0] == pytest.approx(distances[2], rel=1e-4)
    x, y = (torch.from_numpy(f[0]).float() / 255 for f in (FRAMES, other))
    assert distances[0] == pytest.approx(by_hand(trunk, x, y), rel=1e-4) and distances[0] > 1e-3
    assert lpips(FRAMES, other, unscaled=True)[0] == pytest.approx(by_hand(trunk, (x + 1) / 2, (y + 1) / 2), rel=1e-4)
    assert frame_metrics(FRAMES, other, lpips=lpips)["lpips"] == pytest.approx(np.mean(distances))
    assert "lpips" not in frame_metrics(FRAMES, other)
    with pytest.raises(UserError, match="LPIPS: frames of 16x64 pixels are too small"):
        lpips(FRAMES[:, :, :16], FRAMES[:, :, :16])


def test_a_region_has_the_mean_of_the_map_in_it(trunk):
    """Where nothing differs nothing is far, and the frame's own distance stays as it is."""
    lpips, other = load_lpips("alex", str(trunk)), FRAMES.copy()
    other[:, :, :16] = 255 - other[:, :, :16]
    masks = np.zeros(FRAMES.shape[:3], bool)
    masks[:, :, :16] = True
    scores = frame_scores(other, FRAMES, masks, lpips=lpips)
    assert scores["lpips"] == pytest.approx(lpips(other, FRAMES))
    assert scores["person_lpips"][0] > 3 * scores["background_lpips"][0] > 0
    whole = frame_scores(other, FRAMES, np.ones_like(masks), lpips=lpips)
    assert whole["person_lpips"] == pytest.approx(lpips.maps(other, FRAMES).mean((1, 2)))
    assert whole["background_lpips"] == [None] * 3
    assert whole["person_lpips"] == pytest.approx(scores["lpips"], rel=0.2)  # bringing a map to the frame's size moves its mean


def test_the_trunk_is_found_in_torchs_cache_or_lpips_is_off_with_a_note(trunk, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(trunk.parents[1]))
    assert load_lpips("alex") is not None and not capsys.readouterr().out
    assert load_lpips("vgg") is None
    said = capsys.readouterr().out
    assert said.startswith("note: LPIPS is off") and said.count("\n") == 1 and TRUNKS["vgg"] in said
    with pytest.raises(UserError, match="no such file"):
        load_lpips("vgg", str(tmp_path / "none.pth"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"LPIPS trunk .*, for 'alex': 9 weights are missing, the first is features\.0\.bias"):
        load_lpips("alex", str(tmp_path / "other.pth"))
