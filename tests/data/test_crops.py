"""Crops: around the person, one box per clip, the face whole; the same in training, driving, reference and evaluation."""

import numpy as np
import pytest
import torch

from meta_animator.data.clips import Clip
from meta_animator.data.conditions import draw_condition
from meta_animator.data.crops import bucket_sizes, crop_notes, figure_crop, person_crop, random_crop, size_of, some_framings
from meta_animator.data.figures import figure_of_drawn, figure_of_masks, figure_of_points
from meta_animator.data.keypoint_clips import keypoint_clip
from meta_animator.data.keypoints import face_box, five_points
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import read_manifest
from meta_animator.data.samples import clip_samples, crop_of, load_frame, load_places, to_images
from meta_animator.data.transforms import crop_box, move_keypoints
from meta_animator.data.writer import DatasetWriter
from meta_animator.evaluation.animation import load_layers
from meta_animator.sampling.opening import crop_reference, open_driving, read_reference
from meta_animator.settings import DataConfig
from tests.data.people import standing_person

HEIGHT, WIDTH, SIDE = 320, 180, (64, 64)
SQUARE = DataConfig(height=64, width=64)


def person_at(x: float, y: float, tall: float) -> np.ndarray:
    """Somebody of that height in pixels, the middle of the top of whose picture is at x, y."""
    points = standing_person(100, 0)
    points[:, :2] = points[:, :2] * tall / 100 + (x, y)
    return points


def film(folder, points, size=(HEIGHT, WIDTH), **layers):
    rng = np.random.default_rng(0)
    frames = [Layers(frame=rng.integers(0, 255, (*size, 3), dtype=np.uint8), keypoints=p, **layers) for p in points]
    with DatasetWriter(folder) as writer:
        writer.add(id="walk", identity="anna", layers=frames, fps=8)
    return read_manifest(folder)[0]


@pytest.fixture
def squats(tmp_path):
    """A person who fills a portrait film, and goes down and up again: at 64 x 64 the middle cuts the face off."""
    return film(tmp_path / "squats", [person_at(90, 10 + down, 300 - down) for down in (0, 15, 30, 15, 0)])


def usable(points: np.ndarray, box, size) -> int:
    return sum(five_points(move_keypoints(one, box, size)) is not None for one in points)


def test_the_face_stays_usable_and_feet_are_cut_before_the_head(squats):
    points = np.stack([squats.load_keypoints(k) for k in range(5)])
    assert usable(points, crop_box(WIDTH, HEIGHT, *SIDE), SIDE) < 5, "this test needs a face that the middle cuts off"
    box = person_crop(squats, SIDE)
    assert usable(points, box, SIDE) == 5
    assert box[2] - box[0] == box[3] - box[1] == WIDTH, "the largest box of that shape"
    assert 0 < box[1] < min(face_box(one)[1] for one in points), "whole heads, forehead too; not the air above them"
    assert all(load_places(squats, k, SQUARE, crop_of(squats, 0, SQUARE, 0)).face_visible for k in range(5))


def test_no_better_placed_box_keeps_more_faces():
    """Against every whole-pixel place, for people who appear here and there."""
    rng = np.random.default_rng(1)
    for _ in range(25):
        points = np.stack([person_at(rng.uniform(0, 300), rng.uniform(-40, 60), rng.uniform(60, 150)) for _ in range(4)])
        box = figure_crop(figure_of_points(points, (120, 300)), (120, 300), SIDE)
        best = max(usable(points, (x, 0.0, x + 120.0, 120.0), SIDE) for x in np.arange(181.0))
        assert usable(points, box, SIDE) == best


def test_a_slip_of_the_estimator_does_not_move_the_box():
    points = np.stack([person_at(200, 0, 110) for _ in range(9)])
    steady = figure_crop(figure_of_points(points, (120, 300)), (120, 300), SIDE)
    points[4, :, 0] -= 60
    points[4, :, :2] *= 0.5
    assert figure_crop(figure_of_points(points, (120, 300)), (120, 300), SIDE) == steady


def test_a_picture_of_the_shape_asked_for_is_shown_whole():
    points = person_at(20, 0, 90)[None]
    assert figure_crop(figure_of_points(points, (128, 128)), (128, 128), SIDE) == (0.0, 0.0, 128.0, 128.0)


def test_random_crops_lie_in_the_box_and_show_the_whole_head(squats):
    config = DataConfig(height=64, width=64, random_crop=2.0)
    base, heads = person_crop(squats, SIDE), [face_box(squats.load_keypoints(k)) for k in range(5)]
    boxes = [random_crop(squats, SIDE, config, np.random.default_rng(k)) for k in range(100)]
    for box in boxes:
        assert all(box[k] <= head[k] + 1e-6 and head[k + 2] <= box[k + 2] + 1e-6 for head in heads for k in (0, 1))
        assert base[0] <= box[0] and base[1] <= box[1] and box[2] <= base[2] + 1e-9 and box[3] <= base[3] + 1e-9
        assert box[2] - box[0] == pytest.approx(box[3] - box[1])
    assert min(box[2] - box[0] for box in boxes) < 0.6 * WIDTH and len({box[:2] for box in boxes}) > 30


def test_without_a_face_random_crops_are_what_they_were(tmp_path):
    """Puppets seen from behind, or pictures of which nothing is known: (seed, clip, number) gives the box it gave."""
    clip = film(tmp_path / "unknown", [None] * 2, size=(128, 128))
    config = DataConfig(height=64, width=64, random_crop=0.5)
    u = np.random.default_rng(7).random(3)
    expected = crop_box(128, 128, 64, 64, center=(u[1] * 128, u[2] * 128), zoom=1 + 0.5 * u[0])
    assert random_crop(clip, SIDE, config, np.random.default_rng(7)) == expected


def test_without_keypoints_the_mask_or_the_drawn_pose_tells(tmp_path):
    mask = np.zeros((60, 200), bool)
    mask[10:50, 150:170] = True
    masked = film(tmp_path / "masked", [None] * 3, size=(60, 200), mask=mask)
    assert person_crop(masked, SIDE) == (130.0, 0.0, 190.0, 60.0)
    assert person_crop(film(tmp_path / "unknown", [None] * 3, size=(60, 200)), SIDE) == (70.0, 0.0, 130.0, 60.0)
    black = np.zeros((240, 400, 3), np.uint8)
    drawn = draw_condition("dwpose", Layers(frame=black, keypoints=person_at(320, 0, 230)))
    with DatasetWriter(tmp_path / "drawn") as writer:
        layers = [Layers(frame=black)] * 2
        writer.add(id="d", identity="d", layers=layers, fps=8, conditions={"dwpose": [np.zeros_like(drawn), drawn]})
    box = person_crop(read_manifest(tmp_path / "drawn")[0], SIDE)
    assert (box[0] + box[2]) / 2 == pytest.approx(280, abs=3) and box[3] - box[1] == 240, "as far right as there is picture"


def test_the_head_of_a_mask_or_a_drawn_pose_is_not_cut():
    tall = person_at(90, 10, 300)
    image = draw_condition("dwpose", Layers(frame=np.zeros((HEIGHT, WIDTH, 3), np.uint8), keypoints=tall))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:300, 60:120] = True
    for figure, top in ((figure_of_drawn([image]), face_box(tall)[1]), (figure_of_masks([mask]), 30)):
        box = figure_crop(figure, (HEIGHT, WIDTH), SIDE)
        assert top - 15 < box[1] <= top + 4, "the middle would begin at 70"


def test_a_margin_zooms_in_on_a_small_person_but_not_into_pixels(tmp_path):
    points = [person_at(300, 100, 150), person_at(310, 100, 150)]
    clip = film(tmp_path / "small", points, size=(360, 640))
    near = person_crop(clip, SIDE, margin=0.1)
    body = 1.2 * (0.94 - 0.12) * 150  # from brows to toes, with the margin
    assert near[3] - near[1] == pytest.approx(body, rel=0.1) and usable(np.stack(points), near, SIDE) == 2
    assert all(near[0] < p[:, 0].min() and p[:, 0].max() < near[2] for p in points)
    large = person_crop(clip, (320, 320), margin=0.1)
    assert large[2] - large[0] == pytest.approx(320), "a pixel of the source is at most one of the crop's"


def test_training_driving_reference_and_evaluation_show_the_same_part(squats):
    folder = str(squats.folder)
    trained = load_frame(squats, 0, "frame", SQUARE, crop_of(squats, 0, SQUARE, 0))
    driving = open_driving(folder, "", ["dwpose"], SIDE).layers(0)
    for shown in (driving, crop_reference(*read_reference(folder), SIDE), load_layers([squats], SIDE)[0]):
        assert np.array_equal(shown.frame, to_images(trained.pixels))
        np.testing.assert_array_equal(shown.keypoints, trained.layers.keypoints)


def test_what_one_box_cannot_show_is_said(tmp_path, squats):
    runs = film(tmp_path / "runs", [person_at(x, 0, 110) for x in (30, 150, 270)], size=(120, 300))
    note, parts = crop_notes(some_framings([squats, squats, runs], SQUARE), 0)
    assert "part of the person is outside of the crop in 2 of 3 clips, such as 'walk' at 64x64 (" in parts
    assert "faces are cut off in 1 of 3 clips, such as 'walk' at 64x64 (1 of 3 stay whole)" in note
    small = film(tmp_path / "small", [person_at(60, 30, 40)], size=(200, 200))
    assert "smaller than a third of the crop in 'walk'; data.person_margin" in crop_notes(some_framings([small], SQUARE), 0)[0]
    assert not crop_notes(some_framings([small], SQUARE), 0.2)
    tall = film(tmp_path / "tall", [person_at(30, 5, 150)], size=(200, 60))
    assert "part of the person is outside of the crop in 'walk' at 64x64 (" in crop_notes(some_framings([tall], SQUARE), 0)[0]
    unknown = film(tmp_path / "unknown", [None], size=(90, 60))
    assert "the middle of 'walk' is shown" in crop_notes(some_framings([unknown], SQUARE), 0)[0]


def test_buckets_have_the_area_and_each_clip_goes_to_the_nearest():
    sizes = bucket_sizes(512, 512, 64)
    assert sizes[0] == (512, 512) and {(448, 576), (576, 448), (384, 704), (704, 384)} < set(sizes)
    assert all(h % 64 == w % 64 == 0 and abs(h * w / 512**2 - 1) < 0.1 for h, w in sizes)
    config = DataConfig(height=512, width=512, aspect_buckets=64)
    about = {"folder": None, "id": "a", "identity": "a", "fps": 1, "num_frames": 1, "layers": {}}
    for have, size in (((1280, 720), (704, 384)), ((720, 1280), (384, 704)), ((600, 610), (512, 512)), ((800, 600), (576, 448))):
        assert size_of(Clip(height=have[0], width=have[1], **about), config) == size
        assert size_of(Clip(height=have[0], width=have[1], **about), DataConfig()) == (512, 512)


def test_a_face_over_the_edge_is_seen_or_not_whether_or_not_pixels_are_read(tmp_path):
    """In a picture that has the run's size already, which nothing crops."""
    person = standing_person(60, 64)
    person[:, 1] -= person[:11, 1].max()  # the head is above the picture
    with DatasetWriter(tmp_path) as writer:
        writer.add(id="a", layers=[Layers(frame=np.zeros((64, 64, 3), np.uint8), keypoints=person)], identity="p", fps=8)
    (clip,), config, whole = read_manifest(tmp_path), DataConfig(height=64, width=64), (0.0, 0.0, 64.0, 64.0)
    read = load_frame(clip, 0, "dwpose", config, whole).places
    for name, value in vars(load_places(clip, 0, config, whole)).items():
        assert torch.equal(getattr(read, name), value), name
    assert not read.face_visible


def test_a_clip_that_only_drives_is_no_sample(tmp_path):
    np.savez(tmp_path / "pose.npz", keypoints=np.stack([standing_person(60, 64)] * 5), width=64, height=64, fps=8.0)
    clip = keypoint_clip(tmp_path / "pose.npz")
    assert clip_samples(0, clip, DataConfig(), None) == clip_samples(0, clip, DataConfig(), 2) == []
