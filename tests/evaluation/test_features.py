"""Features of clips: how films are cut, what the networks of each metric are given, and which files are taken for them."""

import sys

import numpy as np
import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.evaluation.features import KINETICS_MEAN, Windows, load_features
from meta_animator.evaluation.protocols import PROTOCOLS
from meta_animator.evaluation.resnet3d import ResNet3D
from tests.evaluation.stand_ins import ClipMeans, FilmMeans, PictureMeans, save_script

LEVELS = np.arange(20, dtype=np.uint8)
FILM = np.broadcast_to(LEVELS[:, None, None, None] * 10, (20, 8, 8, 3)).copy()  # frame k is all 10 k


def test_windows_of_the_protocols():
    """A film of 20 frames: five windows of 16 from every frame on, of which the historical one leaves out the last."""
    assert list(Windows().starts(20)) == [0, 1, 2, 3, 4] and list(Windows().starts(15)) == []
    assert list(PROTOCOLS["tiktok-disco-historical"].windows.starts(20)) == [0, 1, 2, 3]
    assert list(Windows(length=4, step=6).starts(20)) == [0, 6, 12]


def test_i3d_sees_whole_windows_in_minus_one_to_one(tmp_path):
    network = load_features("fvd", str(save_script(FilmMeans(), tmp_path / "i3d.pt")))
    features = network.films(FILM, Windows(length=16, step=2))
    assert features.shape == (3, 6)
    for k, start in enumerate((0, 2, 4)):
        assert features[k, :3] == pytest.approx(10 * (start + 7.5) / 127.5 - 1, abs=1e-5)
        assert features[k, 3:] == pytest.approx(10 * (start + 15) / 127.5 - 1, abs=1e-5)
    assert len(network.films(FILM[:15], Windows())) == 0


def test_the_3d_resnet_sees_16_frames_at_once_less_the_mean_of_kinetics(tmp_path):
    """Of 4 frames shown eight times each, two parts of 16 with a mean of both; of 4 shown five times, the last goes on."""
    network = load_features("fid_vid", str(save_script(ClipMeans(), tmp_path / "resnet.pt")))
    features = network.films(FILM[:4], Windows(length=4, repeats=8))
    assert features.shape == (1, 4) and features[0, 3] == 16
    assert features[0, :3] == pytest.approx(15 - np.array(KINETICS_MEAN), abs=1e-4)
    longer = network.films(FILM[:4], Windows(length=4, repeats=5))
    parts = np.array([0] * 5 + [10] * 5 + [20] * 5 + [30] * 17).mean()
    assert longer[0, :3] == pytest.approx(parts - np.array(KINETICS_MEAN), abs=1e-4)


def test_frames_come_to_inception_as_bytes(tmp_path):
    network = load_features("fid", str(save_script(PictureMeans(), tmp_path / "inception.pt")))
    assert network.frames(FILM).tolist() == [[10.0 * k] * 3 for k in range(20)]
    assert len(network.sha256) == 64


def test_published_weights_of_the_3d_resnet_are_loaded_by_name(tmp_path):
    """As they are published, below state_dict and `module.`, with a last layer that is not needed."""
    torch.manual_seed(0)
    network = ResNet3D(width=2).eval()
    state = {f"module.{name}": weight for name, weight in network.state_dict().items()} | {"module.fc.weight": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "resnet-50-kinetics.pth")
    features = load_features("fid_vid", str(tmp_path / "resnet-50-kinetics.pth")).films(FILM, Windows(step=4))
    clip = torch.from_numpy(FILM[4:] - np.float32(KINETICS_MEAN)).permute(3, 0, 1, 2)[None]
    whole = torch.nn.functional.interpolate(clip, (16, 112, 112))  # frames of one colour: however they are resized
    assert features.shape == (2, 64) and features[1] == pytest.approx(network(whole)[0].detach().numpy(), abs=1e-4)
    del state["module.layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"3D ResNet-50 .*: 1 weight.* layer1\.0\.conv1\.weight"):
        load_features("fid_vid", str(tmp_path / "part.pth"))


def test_what_is_not_there_or_another_file_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("META_ANIMATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    line = load_features("fvd")
    assert isinstance(line, str) and "i3d_torchscript.pt is not there" in line and "--fvd-weights" in line and "\n" not in line
    (tmp_path / "models").mkdir()
    save_script(FilmMeans(), tmp_path / "models" / "i3d_torchscript.pt")
    assert load_features("fvd", weights=tmp_path / "models").path == tmp_path / "models" / "i3d_torchscript.pt"
    (tmp_path / "checkpoints").mkdir()
    save_script(FilmMeans(), tmp_path / "checkpoints" / "i3d_torchscript.pt")
    assert load_features("fvd").metric == "fvd"
    torch.save({"conv": torch.zeros(1)}, tmp_path / "i3d_pretrained_400.pt")
    with pytest.raises(UserError, match="holds weights without their network; expected a TorchScript"):
        load_features("fvd", str(tmp_path / "i3d_pretrained_400.pt"))
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match="needs one more package: pip install torch-fidelity"):
        load_features("fid", str(tmp_path / "i3d_pretrained_400.pt"))
    with pytest.raises(UserError, match=r"--fid-vid-weights .*: no such file"):
        load_features("fid_vid", str(tmp_path / "none.pth"))
