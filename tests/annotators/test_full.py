"""The full annotators on networks in miniature: known answers come back, and real files are really read."""

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("onnx")

from meta_animator.annotators import depth_anything, moge, parts, sam2
from meta_animator.annotators.base import Detection
from meta_animator.annotators.dwpose import DWPose
from meta_animator.annotators.sets import AnnotatorSet
from meta_animator.annotators.yolox import Yolox
from meta_animator.data import keypoints as kp
from meta_animator.data.layers import PARTS
from meta_animator.errors import UserError
from meta_animator.published import entries
from tests.annotators import full_models as mini


def person(*box: float) -> Detection:
    return Detection(box=np.array(box, np.float64), score=1.0)


def noise(count: int, height: int = 90, width: int = 60) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    mini.write_yolox(folder / "yolox_l.onnx")
    mini.write_dwpose(folder / "dw-ll_ucoco_384.onnx")
    mini.write_moge(folder / "moge-2-vitb-normal.onnx")
    mini.save_sam2(folder / "sam2.1-hiera-tiny")
    mini.save_depth_anything(folder / "Depth-Anything-V2-Small-hf")
    mini.save_segformer(folder / "segformer_b2_clothes")
    mini.save_sapiens2(folder / "sapiens2-seg-0.4b")
    return folder


@pytest.mark.parametrize(("height", "width"), [(128, 96), (64, 64), (32, 64)])
def test_people_are_found_where_they_are(models, height, width):
    """The square of 64 shows the frame at `scale`: a red patch is one cell of 8 pixels there."""
    scale = 64 / max(height, width)
    side = round(8 / scale)
    frame = np.full((height, width, 3), 90, np.uint8)
    middles = [(2.5 * side, 1.5 * side), (0.5 * side, 3.5 * side)]
    for x, y in middles:
        frame[int(y - side / 2) : int(y + side / 2), int(x - side / 2) : int(x + side / 2)] = (255, 0, 0)
    blue = frame.copy()[..., ::-1]
    found, nobody = Yolox({"yolox": models / "yolox_l.onnx"}).detect([frame, np.ascontiguousarray(blue)])
    assert nobody == [] and len(found) == 2 and found[0].score == pytest.approx(0.9, abs=1e-3)
    half = np.array(mini.YOLOX_BOX) / scale / 2
    expected = [np.clip([*(middle - half), *(middle + half)], 0, [width, height] * 2) for middle in map(np.array, middles)]
    np.testing.assert_allclose(sorted(map(tuple, (f.box for f in found))), sorted(map(tuple, expected)), atol=1e-3)


def test_people_of_an_export_that_has_suppressed_doubles_itself(tmp_path):
    found = [[8, 8, 16, 32, 0.5], [20, 4, 80, 60, 0.8], [21, 4, 78, 60, 0.7], [0, 0, 9, 9, 0.2], [5, 5, 5, 9, 0.9]]
    network = Yolox({"yolox": mini.write_yolox_with_nms(tmp_path / "nms.onnx", found)})
    (people,) = network.detect([np.zeros((64, 128, 3), np.uint8)])
    assert [one.score for one in people] == pytest.approx([0.8, 0.5])  # the double, the faint and the empty one are left out
    np.testing.assert_allclose([one.box for one in people], [[40, 8, 128, 64], [16, 16, 32, 64]])


@pytest.mark.parametrize("batch", ["n", 1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_points_come_back_through_the_crop(tmp_path, batch, scale):
    """The miniature finds the reddest pixel of its crop, which is the box, a quarter larger, at `scale` pixels a pixel."""
    network = DWPose({"dwpose": mini.write_dwpose(tmp_path / "pose.onnx", batch)})
    height, width = (side * scale for side in mini.POSE_SIZE)
    frames, people, dots = noise(3, 120, 100), [], [(41, 37), (50, 61), (47, 44)]
    for frame, (x, y) in zip(frames, dots, strict=True):
        frame[:] = (0, 80, 200)
        frame[y, x] = (255, 0, 0)
        x0, y0 = x - 9 * scale, y - 20 * scale
        middle = np.array([x0 + width / 2, y0 + height / 2])
        half = np.array([0.2 * width, height / 2 / 1.25])  # narrower than the network's crop: its height counts
        people.append(person(*(middle - half), *(middle + half)))
    answers = network.annotate(frames, [people[0], None, people[2]], [{}] * 3)
    assert answers[1] == {}
    for answer, dot in ((answers[0], dots[0]), (answers[2], dots[2])):
        points = answer["keypoints"]
        assert points.shape == (133, 3) and points.dtype == np.float32
        np.testing.assert_allclose(points[:, :2], np.tile(dot, (133, 1)), atol=0.1)
        np.testing.assert_allclose(points[:, 2], (np.arange(133) + 1) / 133, atol=1e-5)


def test_points_outside_the_picture_are_not_seen(models):
    frame = np.zeros((100, 100, 3), np.uint8)
    network = DWPose({"dwpose": models / "dw-ll_ucoco_384.onnx"})
    there, half_out = person(20, 20, 60, 90), person(-80, 0, 40, 90)
    inside, outside = (network.annotate([frame], [one], [{}])[0]["keypoints"] for one in (there, half_out))
    assert (inside[-1, :2] >= 0).all() and (outside[:, 0] < 0).all() and (outside[:, 2] == 0).all()


def test_a_network_of_another_kind_is_refused(models, tmp_path):
    with pytest.raises(UserError, match=r"yolox_l\.onnx: expected a whole-body pose network .* gives output"):
        DWPose({"dwpose": models / "yolox_l.onnx"})
    with pytest.raises(UserError, match=r"expected 133 points"):
        few = DWPose({"dwpose": mini.write_dwpose(tmp_path / "few.onnx", points=17)})
        few.annotate(noise(1), [person(0, 0, 60, 90)], [{}])
    (tmp_path / "cut.onnx").write_bytes((models / "yolox_l.onnx").read_bytes()[:500])
    with pytest.raises(UserError, match=r"cut\.onnx: cannot be read as an ONNX network"):
        Yolox({"yolox": tmp_path / "cut.onnx"})


def test_normals_are_turned_into_our_frame(models):
    """A picture whose colours are normals of MoGe's frame: to the right, upwards (its y is down), towards the camera (-z)."""
    theirs = {(1, 0, 0): (1, 0, 0), (0, -1, 0): (0, 1, 0), (0, 0, -1): (0, 0, 1)}
    frame = np.zeros((60, 40, 3), np.uint8)
    for row, normal in enumerate(theirs):
        frame[20 * row : 20 * row + 20] = np.round((np.array(normal) + 1) / 2 * 255)
    frame[:, 30:] = 0  # no surface
    mask = np.zeros((60, 40), bool)
    mask[:, 10:] = True
    network = moge.MoGe({"moge2": models / "moge-2-vitb-normal.onnx"})
    answers = network.annotate([frame] * 3, [person(0, 0, 40, 60)] * 2 + [None], [{"mask": mask}, {}, {"mask": mask}])
    assert answers[1:] == [{}, {}]
    normal = answers[0]["normal"]
    assert normal.dtype == np.float32 and not normal[:, :10].any() and not normal[:, 32:].any()
    for row, ours in enumerate(theirs.values()):
        np.testing.assert_allclose(normal[20 * row + 10, 20], ours, atol=0.01)


def test_nearness_is_the_persons_own():
    """A ramp on the person, a wall behind that is nearer than all of it, and one wild pixel."""
    mask = np.zeros((40, 200), bool)
    mask[:, 50:150] = True
    values = np.where(mask, np.arange(200)[None] * 0.5 + 7, 500.0)
    values[3, 60] = 1e6
    depth = depth_anything.to_nearness(values, mask)
    assert depth.dtype == np.float32 and not depth[~mask].any()
    expected = 0.1 + 0.9 * np.linspace(0, 1, 100)
    np.testing.assert_allclose(depth[0, 50:150], expected, atol=0.02)
    np.testing.assert_allclose(depth_anything.to_nearness(-3 + 0.01 * values, mask), depth, atol=1e-4)


def test_depth_is_read_and_needs_a_mask(models, tmp_path):
    folder = models / "Depth-Anything-V2-Small-hf"
    network = depth_anything.DepthAnything({"depth_anything": folder})
    frames, mask = noise(3), np.zeros((90, 60), bool)
    mask[20:70, 10:50] = True
    there = [person(10, 20, 50, 70)] * 3
    answers = network.annotate(frames, there, [{"mask": mask}, {}, {"mask": mask}])
    assert answers[1] == {}
    depth = answers[0]["depth"]
    assert depth.shape == mask.shape and not depth[~mask].any() and depth[mask].min() >= 0.1 and depth.max() <= 1
    again = network.annotate([frames[0], frames[2]], there[:2], [{"mask": mask}] * 2)
    np.testing.assert_allclose(again[0]["depth"], depth, atol=1e-4)
    broken = mini.save(network.network, tmp_path / "broken")
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    weights.pop("head.conv1.weight")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"weights .*broken: 1 weights are missing, the first is head\.conv1\.weight"):
        depth_anything.DepthAnything({"depth_anything": broken})


def test_masks_follow_the_person_as_the_library_does(models, monkeypatch):
    """Frame by frame they are what the library's own way through a whole film gives, from the box in its first frame."""
    network = sam2.Sam2({"sam2": models / "sam2.1-hiera-tiny"})
    frames, box = noise(5, 64, 48), (8.0, 8.0, 40.0, 56.0)
    monkeypatch.setattr(sam2, "AGAIN", 0.0)
    people = [person(*box), person(*box), person(*box), None, person(*box)]
    answers = network.annotate(frames, people, [{}] * 5)
    with torch.inference_mode():
        session = network.processor.init_video_session(video=frames[:3])
        network.processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=1, input_boxes=[[list(box)]])
        whole = [answer.pred_masks for answer in network.network.propagate_in_video_iterator(session, start_frame_idx=0)]
    expected = [network.processor.post_process_masks([logits], [(64, 48)])[0].reshape(64, 48).numpy() for logits in whole]
    assert any(0 < mask.mean() < 1 for mask in expected)
    for answer, mask in zip(answers[:3], expected, strict=True):
        assert (answer["mask"] == mask).mean() > 0.999 if mask.any() else answer == {}
    alone = network.annotate(frames[4:], people[4:], [{}])
    assert answers[3] == {} and np.array_equal(alone[0].get("mask"), answers[4].get("mask"))


def test_a_mask_that_left_its_box_is_begun_anew():
    mask = np.zeros((100, 100), bool)
    mask[10:40, 10:30] = True
    assert sam2.agrees(mask, np.array([8, 8, 32, 44])) and not sam2.agrees(mask, np.array([50, 50, 90, 95]))
    assert not sam2.agrees(np.zeros_like(mask), np.array([8, 8, 32, 44]))


@pytest.mark.parametrize(("kind", "name"), [(parts.SegFormer, "segformer_b2_clothes"), (parts.Sapiens2, "sapiens2-seg-0.4b")])
def test_parts_are_those_of_the_person(models, kind, name):
    network = kind({kind.name: models / name})
    frame, mask = noise(1)[0], np.zeros((90, 60), bool)
    mask[20:70, 10:50] = True
    (answer,) = network.annotate([frame], [person(10, 20, 50, 70)], [{"mask": mask}])
    found = answer["parts"]
    assert found.dtype == np.uint8 and found.shape == mask.shape and found[mask].any() and not found[~mask].any()


def test_parts_of_a_network_with_other_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected 18 labels, it has 3"):
        parts.SegFormer({"segformer": mini.save_segformer(tmp_path / "three", labels=3)})


def test_limbs_are_divided_at_their_joints_whatever_side_was_said():
    """An arm that hangs straight down at x = 20 and a leg at x = 60, both said to be right, are the left ones."""
    points = np.zeros((133, 3), np.float32)
    places = {kp.LEFT_SHOULDER: (20, 10), kp.LEFT_ELBOW: (20, 40), kp.LEFT_WRIST: (20, 70), kp.LEFT_HAND.start + 12: (20, 90),
              kp.LEFT_HIP: (60, 10), kp.LEFT_KNEE: (60, 50), kp.LEFT_ANKLE: (60, 90)}  # fmt: skip
    for point, place in places.items():
        points[point] = (*place, 0.9)
    said = np.zeros((100, 80), np.uint8)
    said[10:95, 17:24], said[10:95, 57:64] = PARTS.index("right_lower_arm"), PARTS.index("right_lower_leg")
    said[5:10, 17:24] = PARTS.index("hair")
    divided = parts.divide_limbs(said, points)
    at = {(y, x): PARTS[divided[y, x]] for y, x in ((7, 20), (20, 20), (60, 20), (85, 20), (30, 60), (80, 60), (50, 40))}
    assert list(at.values()) == [
        "hair", "left_upper_arm", "left_lower_arm", "left_hand", "left_upper_leg", "left_lower_leg", "background",
    ]  # fmt: skip
    assert np.array_equal(parts.divide_limbs(said, np.zeros((133, 3), np.float32)), said)


def test_the_full_set_gives_what_nine_tasks_need(models, tmp_path, monkeypatch):
    listing = yaml.safe_load(entries.LIST.read_text())
    for entry in (entry for entry in listing.values() if "files" in entry):  # others are whole repositories
        entry["files"] = {path: {} for path in entry["files"]}  # no sha256: the miniatures take the places of the real ones
    monkeypatch.setattr(entries, "LIST", tmp_path / "list.yaml")
    entries.LIST.write_text(yaml.safe_dump(listing))
    chosen = AnnotatorSet("full,parts=segformer", weights=models, fetch=False)
    assert any("segformer" in note for note in chosen.licence_notes) and any("dwpose" in note for note in chosen.licence_notes)
    frames = noise(2, 64, 64)
    frames[0][8:16, 8:16] = (255, 0, 0)
    people = [found[0] if found else None for found in chosen.detect(frames)]
    answers = chosen.annotate(frames, people)
    assert answers[1] == {} or people[1] is not None
    assert set(answers[0]) == {"keypoints", "mask", "depth", "normal", "parts"}
    assert AnnotatorSet("full").missing.keys() == {"parts"} and "parts=segformer" in AnnotatorSet("full").missing["parts"]
