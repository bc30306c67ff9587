"""The puppets: exact layers, consistent keypoints, reproducible and distinct people."""

import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from meta_animator.data.layers import PARTS, Layers
from meta_animator.errors import UserError
from meta_animator.puppets.dataset import ensure_puppets
from meta_animator.puppets.rendering import (
    MOTIONS,
    Camera,
    Motion,
    backward_flow,
    make_camera,
    make_identity,
    make_motion,
    make_scene,
    render,
    render_clip,
)
from meta_animator.puppets.rendering.motion import Track
from meta_animator.puppets.rendering.shapes import Shape, ellipsoid, round_cone
from meta_animator.puppets.rendering.skeleton import rotation
from meta_animator.settings import PuppetsConfig

FACE, LEFT_HAND = slice(23, 91), slice(91, 112)
FULL_BODY = Camera(head_fraction=0.15, headroom=0.06, distance=4.0, pitch=0.0, offset=0.0)


def standing(yaw: float, seed: int = 0, **tracks: float) -> Layers:
    """A still person, facing the camera where yaw = 0, all of the body in the frame."""
    motion = Motion("still", 1.0, 0, {name: Track(value) for name, value in {"yaw": yaw, **tracks}.items()})
    return render(make_identity(seed), motion, make_scene(seed), FULL_BODY, 0.0, (128, 128))


@pytest.fixture(scope="module")
def samples() -> list[Layers]:
    return [
        render(make_identity(s), make_motion(s, MOTIONS[s % len(MOTIONS)]), make_scene(s), make_camera(s), 0.3 * s)
        for s in range(16)
    ]


def test_same_seed_same_picture_in_another_process():
    program = (
        "import zlib; from meta_animator.puppets.rendering import render_clip as r; c = r(5, 7, 2, size=(48, 32));"
        "print(zlib.crc32(c[1].frame.tobytes() + c[1].keypoints.tobytes()))"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    first, second = (render_clip(5, 7, 2, size=(48, 32)) for _ in range(2))
    assert np.array_equal(first[1].frame, second[1].frame)
    assert not np.array_equal(first[0].frame, first[1].frame)
    assert not np.array_equal(first[0].frame, render_clip(6, 7, 1, size=(48, 32))[0].frame)


def test_layers_keep_the_contract(samples: list[Layers]):
    for layers in samples:
        assert layers.frame.dtype == layers.parts.dtype == np.uint8
        assert layers.keypoints.dtype == layers.depth.dtype == layers.normal.dtype == np.float32
        assert layers.mask.dtype == bool and layers.mask.any() and not layers.mask.all()
        assert np.array_equal(layers.mask, layers.depth > 0)
        assert np.array_equal(layers.mask, layers.parts > 0)
        assert layers.depth.max() == 1.0 and layers.depth[layers.mask].min() == pytest.approx(0.1)
        assert layers.parts.max() < len(PARTS)


def test_normals_are_unit_and_face_the_camera(samples: list[Layers]):
    for layers in samples:
        normals = layers.normal[layers.mask]
        assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        assert (normals[:, 2] > -0.25).all() and normals[:, 2].mean() > 0.5
        assert not layers.normal[~layers.mask].any()


def test_normals_match_the_slope_of_the_depth(samples: list[Layers]):
    """Where the surface comes nearer to the right it faces left; where it comes nearer downwards it faces up."""
    for layers in samples:
        inner = cv2.erode(layers.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        down, right = np.gradient(layers.depth)
        for slope, normal in ((-right, layers.normal[..., 0]), (down, layers.normal[..., 1])):
            tilted = inner & (np.abs(normal) > 0.3)
            assert (np.sign(slope) == np.sign(normal))[tilted].mean() > 0.75


def test_visible_keypoints_lie_on_the_person(samples: list[Layers]):
    seen = 0
    for layers in samples:
        assert layers.keypoints.shape == (133, 3)
        assert set(np.unique(layers.keypoints[:, 2])) <= {0.0, 1.0}
        visible = layers.keypoints[layers.keypoints[:, 2] > 0]
        x, y = np.round(visible[:, :2]).astype(int).T
        near = cv2.dilate(layers.mask.astype(np.uint8), np.ones((3, 3), np.uint8))  # a point between pixel centres
        assert (near[y, x] > 0).all()
        seen += len(visible)
    assert seen > 60 * len(samples)


def test_an_elbow_shows_behind_its_own_forearm_and_not_behind_the_back():
    """As detectors have it: without it, a bent arm that points at the camera would not be drawn at all."""
    elbows = [7, 8]
    towards = standing(0.0, arm_raise_l=1.0, arm_raise_r=1.0, arm_twist_l=0.3, arm_twist_r=0.3, arm_elbow_l=1.6, arm_elbow_r=1.6)
    assert towards.keypoints[elbows, 2].all()
    assert standing(np.pi / 2).keypoints[elbows, 2].sum() == 1


def test_hand_and_face_points_lie_on_their_parts():
    layers = standing(0.0, arm_raise_l=1.4, arm_twist_l=1.57, arm_elbow_l=1.2)
    for points, part in ((FACE, "face_neck"), (LEFT_HAND, "left_hand")):
        names = {part, "lower_lip", "upper_lip"} if part == "face_neck" else {part, "left_lower_arm", "upper_clothing"}
        region = np.isin(layers.parts, [PARTS.index(name) for name in names]).astype(np.uint8)
        region = cv2.dilate(region, np.ones((3, 3), np.uint8))
        visible = layers.keypoints[points][layers.keypoints[points][:, 2] > 0]
        x, y = np.round(visible[:, :2]).astype(int).T
        assert len(visible) > 15
        assert region[y, x].mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_left_and_right_of_a_frontal_person(seed: int):
    layers = standing(0.0, seed, arm_raise_l=0.5, arm_raise_r=0.5)
    x, y = layers.keypoints[:, 0], layers.keypoints[:, 1]
    for left in (1, 3, 5, 7, 9, 11, 13, 15):  # the person's left is on the image's right
        assert x[left] > x[left + 1]
    assert x[91:112].mean() > x[112:133].mean()
    face = layers.keypoints[FACE]
    for row in (slice(0, 17), slice(17, 22), slice(22, 27), slice(31, 36), slice(48, 55), slice(60, 65)):
        assert (np.diff(face[row, 0]) > 0).all()  # iBUG rows run from image left to image right
    assert face[36, 0] < face[39, 0] < face[42, 0] < face[45, 0]
    assert y[0] < y[5] < y[11] < y[13] < y[15]
    assert face[17:27, 1].max() < face[36:48, 1].min() and face[30, 1] < face[51, 1] < face[57, 1] < face[8, 1]
    columns = {name: np.where(layers.parts == PARTS.index(name))[1].mean() for name in ("left_hand", "right_hand")}
    assert columns["left_hand"] > columns["right_hand"]


def test_the_face_is_seen_from_the_front_only():
    front, back = standing(0.0), standing(np.pi)
    assert front.keypoints[FACE, 2].mean() > 0.9
    assert back.keypoints[FACE, 2].mean() == 0 and back.keypoints[:3, 2].sum() == 0
    side = standing(np.pi / 2)  # looks to the image's right: the far eye is hidden
    assert side.keypoints[23 + 36 : 23 + 42, 2].sum() + side.keypoints[23 + 42 : 23 + 48, 2].sum() < 12
    lips = [PARTS.index("upper_lip"), PARTS.index("lower_lip")]
    assert np.isin(front.parts, lips).any() and not np.isin(back.parts, lips).any()


def test_points_outside_the_frame_are_not_visible():
    layers = render(
        make_identity(1), make_motion(1, "walk"), make_scene(1), Camera(
            head_fraction=0.3, headroom=0.06, distance=4.0, pitch=0.0, offset=0.0), 0.0,
    )  # fmt: skip
    outside = layers.keypoints[:, 1] > 127.5
    assert outside[15:23].all() and not layers.keypoints[outside, 2].any()


def test_identities_are_distinct_and_told_apart():
    identities = [make_identity(seed) for seed in range(2000)]
    assert len({identity.describe() for identity in identities}) > 1900
    motion, camera, scene = make_motion(0, "wave"), make_camera(0), make_scene(0)
    frames = [render(identity, motion, scene, camera, 0.0, (64, 64)).frame.astype(int) for identity in identities[:8]]
    for i in range(8):
        for j in range(i):
            assert np.abs(frames[i] - frames[j]).mean() > 2


def test_describe_uses_the_attributes():
    for seed in range(50):
        identity = make_identity(seed)
        words = identity.describe()
        assert identity.top.name in words and identity.sleeves in words and identity.figure in words
        assert ("glasses" in words) == (identity.face.glasses != "none")
    assert make_scene(3).describe().split()[0] in ("in", "on")


@pytest.mark.parametrize("size", [(96, 54), (40, 64)])
def test_any_size(size: tuple[int, int]):
    layers = render_clip(2, 2, 1, size=size)[0]
    assert layers.size == layers.mask.shape == layers.depth.shape == layers.parts.shape == size
    assert layers.normal.shape == (*size, 3)


def test_the_face_fills_a_sixth_of_the_frame_height():
    heads = []
    for seed in range(24):
        layers = render(make_identity(seed), make_motion(seed, "wave"), make_scene(seed), make_camera(seed), 0.0)
        rows = np.flatnonzero(np.isin(layers.parts, [PARTS.index("hair"), *map(PARTS.index, _FACE_PARTS)]).any(axis=1))
        face = layers.keypoints[FACE]
        heads.append((face[8, 1] - rows.min()) / 128)
    assert 1 / 6 < np.mean(heads) < 0.3


_FACE_PARTS = ("face_neck", "upper_lip", "lower_lip")


@pytest.mark.parametrize("kind", MOTIONS)
def test_motions_are_smooth_and_periodic(kind: str):
    motion = make_motion(11, kind)
    start, later, around = (motion.pose(time) for time in (0.2, 0.2 + 1e-4, 0.2 + motion.period))
    for name, value in start.items():
        assert abs(later[name] - value) < 5e-3
        turns = 2 * np.pi * motion.spin if name == "yaw" else 0.0
        assert around[name] - turns == pytest.approx(value, abs=1e-9)
    assert any(abs(motion.pose(0.5)[name] - value) > 0.02 for name, value in start.items())


def test_a_folder_of_puppets_is_made_once_and_not_mistaken_for_another(tmp_path):
    root = str(tmp_path / "puppets")
    config = PuppetsConfig(root=root, identities=1, frames=2, photos=1, driving_frames=2, height=32, width=32)
    ensure_puppets(config)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert stamps
    ensure_puppets(config)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    with pytest.raises(UserError, match=r"was made with identities 1, this run's data.puppets.identities is 3"):
        ensure_puppets(dataclasses.replace(config, identities=3))
    note = tmp_path / "puppets" / "puppets.json"
    made = json.loads(note.read_text())
    del made["camera_motion"]
    note.write_text(json.dumps(made))
    ensure_puppets(config)  # made before cameras could move, so by one that stands
    with pytest.raises(UserError, match=r"was made with camera_motion 0.0, this run's data.puppets.camera_motion is 0.5"):
        ensure_puppets(dataclasses.replace(config, camera_motion=0.5))


def test_unknown_motion_is_an_error():
    with pytest.raises(ValueError, match="fly"):
        make_motion(0, "fly")


@pytest.mark.parametrize(
    "shape",
    [
        ellipsoid((0.1, 0.2, -3), (0.3, 0.1, 0.5), rotation("x", 0.4)),
        round_cone((0.0, 0.0, -3), (0.3, 0.5, -2.5), 0.3, 0.1),
        round_cone((0.0, 0.0, -3), (0.1, 0.1, -2.0), 0.1, 0.4, np.eye(3), (0.7, 0.5)),
        round_cone((0.0, 0.0, -3), (0.5, 0.0, -3), 0.2, 0.2),
    ],
)
def test_ray_casting_agrees_with_the_shape_as_a_union_of_spheres(shape: Shape):
    rng = np.random.default_rng(0)
    rays = np.concatenate([rng.uniform(-0.3, 0.4, (400, 2)), np.full((400, 1), -1.0)], axis=1)
    steps = np.linspace(0, 1, 2000)
    inverse = np.linalg.inv(shape.matrix).T
    start, local = -shape.centre @ inverse, rays @ inverse
    centres = np.stack([np.zeros_like(steps), steps * shape.length, np.zeros_like(steps)], axis=1)
    radii = shape.r0 + steps * (shape.r1 - shape.r0)
    a, b = (local**2).sum(1)[:, None], local @ (start - centres).T
    root = b * b - a * (((start - centres) ** 2).sum(1) - radii**2)
    safe = np.sqrt(np.maximum(root, 0))
    near = np.where(root > 0, (-b - safe) / a, np.inf).min(axis=1)
    far = np.where(root > 0, (-b + safe) / a, -np.inf).max(axis=1)
    entered, left = shape.enter(np.zeros(3), rays), shape.leave(np.zeros(3), rays)
    clear = root.max(axis=1) > 1e-4  # grazing rays decide either way
    assert clear.sum() > 10 and (root.max(axis=1) < 0).any()
    assert np.allclose(entered[clear], near[clear], atol=2e-4) and np.allclose(left[clear], far[clear], atol=2e-4)
    assert not np.isfinite(entered[root.max(axis=1) < -1e-4]).any()
    normals = shape.normals(rays[clear] * entered[clear, None])
    assert np.allclose(np.linalg.norm(normals, axis=1), 1) and ((normals * rays[clear]).sum(axis=1) < 0.01).all()


def test_the_true_motion_takes_a_frame_to_the_next():
    """A person who turns about: along the flow hardly more than light and edges change, and the back hides what it should."""
    what = {"identity_seed": 3, "motion_seed": 4, "num_frames": 4, "size": (96, 96), "motion_kind": "turn"}
    clip, flow = render_clip(**what), backward_flow(**what)
    assert flow.shape == (3, 96, 96, 2) and flow.dtype == np.float32
    y, x = np.mgrid[:96, :96].astype(np.float32)
    for before, now, moved in zip(clip, clip[1:], flow, strict=False):
        seen = np.isfinite(moved[..., 0])
        assert not (seen & ~now.mask).any() and seen.sum() > 0.7 * now.mask.sum()
        there = cv2.remap(before.frame, x + np.nan_to_num(moved[..., 0]), y + np.nan_to_num(moved[..., 1]), cv2.INTER_LINEAR)
        along, still = (np.abs(now.frame[seen].astype(int) - old[seen]).mean() for old in (there, before.frame))
        assert along < 0.5 * still
