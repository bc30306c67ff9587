"""Networks of the full annotators in miniature, in the files that the real ones come in: ONNX graphs whose answers follow from
the picture in a known way, and transformers' classes with random weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

YOLOX_SIDE, POSE_SIZE = 64, (64, 48)
YOLOX_BOX = (16.0, 24.0)  # width and height of every box that the miniature sees
RED = (255 - 123.675) / 58.395  # what a pixel of pure red becomes in DWPose's first channel


def write_onnx(path: Path, inputs: Mapping[str, tuple], outputs: Sequence[str], constants: Mapping, nodes: Sequence) -> Path:
    """`inputs` {name: (type, shape)}; `nodes` (operation, inputs, output, attributes)."""
    graph = make_graph(
        [make_node(kind, names, [output], **more) for kind, names, output, more in nodes], "miniature",
        [make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = make_model(graph, opset_imports=[make_opsetid("", 17)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def write_yolox(path: Path) -> Path:
    """Sees a person in each cell of 8 pixels that is pure red; answers for 64 + 16 + 4 cells, two classes."""
    constants = {
        "red": np.array([-1, -1, 1], np.float32).reshape(1, 3, 1, 1) / 255,  # of BGR
        "column": np.array([1, 64, 1], np.int64), "others": np.zeros((1, 20, 1), np.float32),
        "place": np.tile(np.array([0.5, 0.5, *np.log(np.array(YOLOX_BOX) / 8)], np.float32), (1, 84, 1)),
        "classes": np.tile(np.array([0.9, 0.1], np.float32), (1, 84, 1)),
    }  # fmt: skip
    nodes = [
        ("Conv", ["images", "red"], "redness", {}), ("Relu", ["redness"], "seen", {}),
        ("AveragePool", ["seen"], "cells", {"kernel_shape": [8, 8], "strides": [8, 8]}),
        ("Reshape", ["cells", "column"], "near", {}), ("Concat", ["near", "others"], "there", {"axis": 1}),
        ("Concat", ["place", "there", "classes"], "output", {"axis": 2}),
    ]  # fmt: skip
    images = {"images": (TensorProto.FLOAT, [1, 3, YOLOX_SIDE, YOLOX_SIDE])}
    return write_onnx(path, images, ["output"], constants, nodes)


def write_yolox_with_nms(path: Path, found: Sequence[Sequence[float]]) -> Path:
    """An export that ends with non-maximum suppression: answers x0, y0, x1, y1, score, in pixels of its square, and labels."""
    constants = {
        "found": np.array([found], np.float32), "none": np.float32(0), "all": np.array([0, 1, 2, 3], np.int64),
    }  # fmt: skip
    nodes = [
        ("ReduceSum", ["images", "all"], "sum", {"keepdims": 0}), ("Mul", ["sum", "none"], "nothing", {}),
        ("Add", ["found", "nothing"], "dets", {}), ("Add", ["nothing", "nothing"], "labels", {}),
    ]  # fmt: skip
    images = {"images": (TensorProto.FLOAT, [1, 3, YOLOX_SIDE, YOLOX_SIDE])}
    return write_onnx(path, images, ["dets", "labels"], constants, nodes)


def write_dwpose(path: Path, batch: int | str = "n", points: int = 133) -> Path:
    """Finds all points where the picture is reddest; point k has the score (k + 1) / `points` in pure red."""
    height, width = POSE_SIZE
    weights = (np.arange(points, dtype=np.float32) + 1) / points / RED

    def bins(side: int) -> np.ndarray:
        return np.kron(np.eye(side, dtype=np.float32), np.array([[1, 0.9]], np.float32))

    constants = {
        "start": np.array([0], np.int64), "end": np.array([1], np.int64), "axis": np.array([1], np.int64),
        "weights": weights.reshape(1, points, 1), "bx": bins(width), "by": bins(height),
    }  # fmt: skip
    nodes = [("Slice", ["input", "start", "end", "axis"], "red", {})]
    for name, across in (("x", 2), ("y", 3)):
        nodes += [
            ("ReduceMax", ["red"], f"{name}_profile", {"axes": [across], "keepdims": 0}),
            ("MatMul", [f"{name}_profile", f"b{name}"], f"{name}_bins", {}),
            ("Mul", ["weights", f"{name}_bins"], f"simcc_{name}", {}),
        ]
    return write_onnx(path, {"input": (TensorProto.FLOAT, [batch, 3, height, width])}, ["simcc_x", "simcc_y"], constants, nodes)


def write_moge(path: Path) -> Path:
    """Gives as normals what the picture says in colours, 2 c - 1, and sees a surface where it is not black."""
    constants = {"two": np.float32(2), "one": np.float32(1), "none": np.float32(0)}
    nodes = [
        ("Cast", ["num_tokens"], "tokens", {"to": TensorProto.FLOAT}), ("Mul", ["tokens", "none"], "nothing", {}),
        ("Transpose", ["image"], "last", {"perm": [0, 2, 3, 1]}), ("Mul", ["last", "two"], "doubled", {}),
        ("Sub", ["doubled", "one"], "signed", {}), ("Add", ["signed", "nothing"], "normal", {}),
        ("ReduceMax", ["last"], "brightest", {"axes": [3], "keepdims": 0}), ("Add", ["brightest", "brightest"], "mask", {}),
    ]  # fmt: skip
    inputs = {"image": (TensorProto.FLOAT, ["n", 3, "h", "w"]), "num_tokens": (TensorProto.INT64, [])}
    return write_onnx(path, inputs, ["normal", "mask"], constants, nodes)


def save(network: torch.nn.Module, folder: Path) -> Path:
    network.save_pretrained(folder)
    return folder


def save_sam2(folder: Path) -> Path:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    stages = {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1] * 4, "blocks_per_stage": [1, 1, 2, 1]}
    windows = {"window_size_per_stage": [4] * 4, "window_positional_embedding_background_size": [4, 4]}
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "global_attention_blocks": [3],
        "image_size": [128, 128], **stages, **windows,
    }  # fmt: skip
    vision = {
        "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 128,
    }  # fmt: skip
    memory = {
        "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1, "memory_attention_rope_feat_sizes": [8, 8],
        "memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 128, "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1,
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision, image_size=128, prompt_encoder_config={"hidden_size": 128, "image_size": 128, "patch_size": 16},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}, **memory,
    )  # fmt: skip
    torch.manual_seed(4)
    network = Sam2VideoModel(config)
    with torch.no_grad():  # wide enough that its masks are neither empty nor full
        for name, weight in network.named_parameters():
            scale = "norm" in name and name.endswith("weight")
            weight.copy_(torch.ones_like(weight) if scale else 0.1 * torch.randn_like(weight))
        network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5)  # it always sees something
    return save(network, folder)


def save_depth_anything(folder: Path) -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    return save(DepthAnythingForDepthEstimation(config), folder)


def save_segformer(folder: Path, labels: int = 18) -> Path:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_labels=labels, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16
    )
    torch.manual_seed(0)
    return save(SegformerForSemanticSegmentation(config), folder)


def save_sapiens2(folder: Path) -> Path:
    from transformers import Sapiens2Config, Sapiens2ForSemanticSegmentation

    config = Sapiens2Config(
        num_labels=29, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, image_size=[64, 48],
        layer_types=["full_attention"] * 2, head_config={"upsample_out_channels": [8, 8], "conv_out_channels": [8]},
    )  # fmt: skip
    torch.manual_seed(0)
    return save(Sapiens2ForSemanticSegmentation(config), folder)
