"""Face embedders of other projects: the same answers in PyTorch, gradients to the pixels, clear words where they are missing."""

import numpy as np
import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.models.arcface import ArcFaceEmbedder, iresnet_from, load_face
from meta_animator.models.face import template
from tests.conversion import parity

onnx = pytest.importorskip("onnx")


def write_onnx(path, scales_itself: bool):
    """conv - prelu - flatten - linear - batch norm, after (x - 127.5) / 128 where the network scales its pixels itself."""
    random = np.random.default_rng(0)
    weights = {
        "mean": np.array([127.5], np.float32), "scale": np.array([1 / 128], np.float32),
        "w": random.standard_normal((4, 3, 7, 7)).astype(np.float32) / 10, "slope": np.full((4, 1, 1), 0.25, np.float32),
        "fc": random.standard_normal((8, 4 * 16 * 16)).astype(np.float32) / 30, "b": random.standard_normal(8).astype(np.float32),
    }  # fmt: skip
    node = onnx.helper.make_node
    nodes = [node("Sub", ["x", "mean"], ["c"]), node("Mul", ["c", "scale"], ["s"])] if scales_itself else []
    nodes += [
        node("Conv", ["s" if scales_itself else "x", "w"], ["y"], kernel_shape=[7, 7], strides=[7, 7]),
        node("PRelu", ["y", "slope"], ["p"]), node("Flatten", ["p"], ["f"], axis=1),
        node("Gemm", ["f", "fc", "b"], ["z"], transB=1),
    ]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "face", [value("x", onnx.TensorProto.FLOAT, ["n", 3, 112, 112])], [value("z", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(array, n) for n, array in weights.items() if scales_itself or n not in ("mean", "scale")],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)]), path)
    return weights


def by_hand(pixels: torch.Tensor, weights) -> torch.Tensor:
    w = {name: torch.from_numpy(value) for name, value in weights.items()}
    y = torch.nn.functional.conv2d(pixels, w["w"], stride=7)
    y = torch.where(y > 0, y, 0.25 * y).flatten(1)
    return torch.nn.functional.normalize(y @ w["fc"].T + w["b"], dim=1)


def aligned(count: int = 2):
    """Images whose aligned crop is the image itself, and their landmarks."""
    images = torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return images, template(112).expand(count, -1, -1)


@pytest.mark.parametrize("scales_itself", [True, False])
def test_an_onnx_network_answers_as_its_formula_and_has_gradients(tmp_path, scales_itself):
    weights = write_onnx(tmp_path / "face.onnx", scales_itself)
    embedder = load_face(str(tmp_path / "face.onnx"))
    images, landmarks = aligned()
    pixels = ((images + 1) * 127.5 - 127.5) / 128 if scales_itself else images
    torch.testing.assert_close(embedder.embed_face(images, landmarks), by_hand(pixels, weights), rtol=0, atol=1e-5)
    images.requires_grad_(True)
    embedder.embed_face(images, landmarks)[:, 0].sum().backward()
    assert images.grad.abs().max() > 0
    assert not any(p.requires_grad for p in embedder.parameters())


def test_an_iresnet_equals_arcfaces_own(tmp_path):
    """In float64, with their answer and weights (scripts/make_parity_fixtures.py); read as a trained file is."""
    tensors, layout, _ = parity.read("iresnet")
    state = {
        name: torch.tensor(0) if name.endswith("num_batches_tracked") else parity.maker.statistics(name, shape)
        for name, shape in layout.items()
    }
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "backbone.pth")
    embedder = load_face(str(tmp_path / "backbone.pth")).double().train()
    embedder.network.load_state_dict(state)  # without the rounding to float32
    crops = parity.maker.inputs("crops", 2, 3, 112, 112)
    with torch.no_grad():
        ours = embedder.network(crops)
        assert (ours - tensors["embedding"]).abs().max() <= 1e-8 * tensors["embedding"].abs().max()
        expected = torch.nn.functional.normalize(tensors["embedding"], dim=1)
        aligned_crops = embedder.embed_face(crops, template(112).expand(2, -1, -1))
    torch.testing.assert_close(aligned_crops, expected, rtol=0, atol=1e-3)  # aligning is done in float32


def test_small_faces_are_left_out():
    embedder = ArcFaceEmbedder(torch.nn.Identity())
    landmarks = torch.stack([template(112), template(31)])
    assert embedder.large_enough(landmarks).tolist() == [True, False]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"model.face is empty .*SFace.* or set loss.face_weight=0"):
        load_face("")
    with pytest.raises(UserError, match=r"no such file or folder, but loss.face_weight > 0; .*Apache-2.0"):
        load_face(str(tmp_path / "sface.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        load_face(str(tmp_path / "broken.onnx"))
    with pytest.raises(UserError, match="not an iResNet"):
        iresnet_from({"w": torch.zeros(1)}, "file")
