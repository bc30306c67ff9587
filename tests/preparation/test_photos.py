"""Photos of one person: repeats are found, different ones are not; what a set lacks is said."""

import dataclasses
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from meta_animator.data.layers import Layers
from meta_animator.data.transforms import crop_and_resize
from meta_animator.preparation.photos import Look, advice, look_at, repeats
from meta_animator.puppets.rendering import render_clip
from tests.data.people import standing_person

SIZE = (192, 144)


@pytest.fixture(scope="module")
def photos() -> list[Layers]:
    """One person in one place, in six poses."""
    jobs = ((2, "wave"), (3, "dance"), (4, "turn"), (6, "dance"), (7, "walk"), (9, "sit"))
    return [render_clip(5, motion, 1, 12, SIZE, kind, camera_seed=5)[0] for motion, kind in jobs]


def look(layers: Layers, name: str = "a.jpg", points: bool = True) -> Look:
    known = {"keypoints": layers.keypoints, "mask": layers.mask} if points else {}
    return look_at(name, layers.frame, known)


def jpeg(layers: Layers, quality: int) -> Layers:
    buffer = io.BytesIO()
    Image.fromarray(layers.frame).save(buffer, "JPEG", quality=quality)
    return dataclasses.replace(layers, frame=np.asarray(Image.open(buffer).convert("RGB")))


def test_different_poses_in_one_place_are_no_repeats(photos):
    assert repeats([look(photo) for photo in photos]) == [None] * 6
    dance = render_clip(5, 3, 5, 6, SIZE, "dance")  # a sixth of a second apart, and more
    assert repeats([look(photo) for photo in dance]) == [None] * 5


@pytest.mark.parametrize("points", [True, False], ids=["keypoints", "pictures alone"])
def test_a_photo_saved_again_scaled_or_brightened_is_a_repeat(photos, points):
    first = photos[1]
    again = [jpeg(first, 40), crop_and_resize(first, (0, 0, 144, 192), (96, 72))]
    again.append(dataclasses.replace(first, frame=np.clip(first.frame * 1.2 + 6.0, 0, 255).astype(np.uint8)))
    for other in again:
        told = repeats([look(photo, points=points) for photo in (photos[0], first, photos[2], other)])
        assert told in ([None, None, None, 1], [None, 3, None, None])


def test_the_next_of_a_burst_and_another_framing_are_repeats_where_keypoints_tell(photos):
    first = photos[0]
    wide = Layers(
        frame=np.pad(first.frame, ((20, 30), (40, 10), (0, 0)), "reflect"),
        mask=np.pad(first.mask, ((20, 30), (40, 10))),
        keypoints=first.keypoints + np.float32([40, 20, 0]),
    )
    framed = crop_and_resize(wide, (0, 0, 194, 242), (180, 144))
    burst = render_clip(5, 2, 2, 60, SIZE, "wave", camera_seed=5)[1]
    assert repeats([look(first), look(framed)]) in ([None, 0], [1, None])
    assert repeats([look(first), look(burst)]) in ([None, 0], [1, None])


def test_the_same_pose_in_another_light_or_other_clothes_is_no_repeat(photos):
    other = dataclasses.replace(photos[0], frame=np.ascontiguousarray(255 - photos[0].frame[::-1]))
    assert repeats([look(photos[0]), look(other)]) == [None, None]


def test_of_repeats_the_sharpest_is_kept(photos):
    soft = dataclasses.replace(photos[0], frame=cv2.GaussianBlur(photos[0].frame, (0, 0), 1.2))
    assert repeats([look(soft), look(photos[0]), look(soft), look(photos[1])]) == [1, None, 1, None]


def test_a_good_set_needs_no_advice_and_each_fault_is_said():
    """By keypoints alone; every line is gone once the set has what it names."""
    rng = np.random.default_rng(0)

    def photo(name, view="front", tall=600, legs=True):
        points = standing_person(tall, 480)
        points[:, :2] += rng.normal(0, 0.04 * tall, (133, 1)) * [1, 0] * (np.arange(133) < 17)[:, None]
        if view == "back":
            points[1:23] = points[[2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 20, 21, 22, 17, 18, 19]]
            points[23:91, 2] = 0
        if view == "side":
            points[5:23, 0] = 240 + rng.normal(0, 3, 18)
        if not legs:
            points[13:23, 2] = 0
        return look_at(name, rng.integers(0, 255, (640, 480, 3), dtype=np.uint8), {"keypoints": points})

    good = [photo(f"{k}.jpg", view) for k, view in enumerate(("front", "front", "side", "back", "front"))]
    assert advice(good) == [] and advice([]) == []
    assert advice(good[:4]) == [
        "4 photos are little to learn from: 5 or more, from several sides and in several poses, do better"
    ]
    assert advice([*good, good[0]]) == ["0.jpg and 0.jpg are nearly the same: other poses, sides or places teach more"]
    front = [photo(f"{k}.jpg", tall=200, legs=False) for k in range(5)]
    behind, profile, face, legs = advice(front)
    assert "from behind" in behind and "profile" in profile and "legs" in legs
    assert face.startswith("the face is at most ") and "pixels high" in face
    assert advice([photo(f"{k}.jpg", "back") for k in range(5)])[-1] == "no photo shows the face: it will be made up"
