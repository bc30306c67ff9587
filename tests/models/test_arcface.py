"""Face embedders of other projects: the same answers in PyTorch, gradients to the pixels, clear words where they are missing."""

import numpy as np
import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.models.arcface import ArcFaceEmbedder, iresnet_from, load_face
from meta_animator.models.face import template
from tests.conversion import parity

onnx = pytest.importorskip("onnx")


WIDTH = 64  # of the embeddings
SCALES = {  # how a network brings [0, 255] to about [-1, 1]
    "": [], "Sub Mul": [("Sub", 127.5), ("Mul", 1 / 128)], "Sub Div": [("Sub", 127.5), ("Div", 128.0)],
    "Mul Sub": [("Mul", 1 / 128), ("Sub", 127.5 / 128)],
}  # fmt: skip


def write_onnx(path, scaling=(), end=(), width=WIDTH, side=112, outputs=("z",)):
    """conv - prelu - flatten - linear, after the (operation, constant) pairs of `scaling` and before the nodes of `end`."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((4, 3, 7, 7)).astype(np.float32) / 10, "slope": np.full((4, 1, 1), 0.25, np.float32),
        "fc": random.standard_normal((width, 4 * (side // 7) ** 2)).astype(np.float32) / 30,
        "b": random.standard_normal(width).astype(np.float32),
    }  # fmt: skip
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    shape = {"shape": np.array([1, -1], np.int64)} if "shape" in {name for n in end for name in n.input} else {}
    constants = {f"c{k}": np.array([number], np.float32) for k, (_, number) in enumerate(scaling)} | shape
    places = ["x", *(f"x{k}" for k in range(len(scaling)))]
    nodes = [node(operation, [places[k], f"c{k}"], [places[k + 1]]) for k, (operation, _) in enumerate(scaling)]
    nodes += [
        node("Conv", [places[-1], "w"], ["y"], kernel_shape=[7, 7], strides=[7, 7]), node("PRelu", ["y", "slope"], ["p"]),
        node("Flatten", ["p"], ["f"], axis=1), node("Gemm", ["f", "fc", "b"], ["z"], transB=1), *end,
    ]  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes, "face", [value("x", onnx.TensorProto.FLOAT, ["n", 3, side, side])],
        [value(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, n) for n, array in {**weights, **constants}.items()],
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


@pytest.mark.parametrize("scaling", SCALES)
def test_an_onnx_network_answers_as_its_formula_and_has_gradients(tmp_path, scaling):
    weights = write_onnx(tmp_path / "face.onnx", SCALES[scaling])
    embedder = load_face(str(tmp_path / "face.onnx"))
    images, landmarks = aligned()
    pixels = ((images + 1) * 127.5 - 127.5) / 128 if scaling else images
    torch.testing.assert_close(embedder.embed_face(images, landmarks), by_hand(pixels, weights), rtol=0, atol=1e-5)
    images.requires_grad_(True)
    embedder.embed_face(images, landmarks)[:, 0].sum().backward()
    assert images.grad.abs().max() > 0
    assert not any(p.requires_grad for p in embedder.parameters())


def test_an_iresnet_equals_arcfaces_own(tmp_path):
    """In float64, with their answer and weights (scripts/dev/make_parity_fixtures.py); read as a trained file is."""
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
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text('{"channels": 3}')
    with pytest.raises(UserError, match=r"config\.json: .*expected whole numbers and a list of them for channels"):
        load_face(str(tmp_path / "ours"))
    with pytest.raises(UserError, match="not an iResNet"):
        iresnet_from({"w": torch.zeros(1)}, "file")


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("makes -1 of pixel value 0 and 509 of 255; expected a network for", {"scaling": [("Sub", 0.5), ("Div", 0.5)]}),
        (r"fails on two crops of 112 x 112 pixels \(.*expected \(2, d\)", {"side": 96}),
        (r"makes \(2, 3\) of two crops", {"width": 3}),
        (r"makes \(2, 4, 16, 16\) of two crops", {"outputs": ["p"]}),
        ("has 2 outputs; expected", {"outputs": ["z", "f"]}),
        (r"makes \(1, 128\) of two crops", {"end": [("Reshape", ["z", "shape"], ["r"])], "outputs": ["r"]}),
        ("its embeddings are not finite", {"end": [("Sqrt", ["z"], ["r"])], "outputs": ["r"]}),
    ],
)
def test_networks_of_another_kind_are_refused_at_load(tmp_path, match, changes):
    nodes = [onnx.helper.make_node(*node) for node in changes.get("end", ())]
    write_onnx(tmp_path / "face.onnx", **changes | {"end": nodes})
    with pytest.raises(UserError, match=match) as caught:
        load_face(str(tmp_path / "face.onnx"))
    assert "\n" not in str(caught.value)


def test_a_difference_behind_the_first_layer_is_no_scaling(tmp_path):
    """PReLU written out as a subtraction and a product."""
    end = [("Abs", ["z"], ["a"]), ("Sub", ["z", "a"], ["d"]), ("Mul", ["d", "d"], ["r"])]
    write_onnx(tmp_path / "face.onnx", end=[onnx.helper.make_node(*node) for node in end], outputs=["r"])
    assert not load_face(str(tmp_path / "face.onnx")).bytes_in
