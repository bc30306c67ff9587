"""The light set with its real networks, on puppets; skipped where their files are not (nothing is fetched for it)."""

import numpy as np
import pytest

from meta_animator.annotators.base import detection_of
from meta_animator.annotators.sets import AnnotatorSet
from meta_animator.data import keypoints as kp
from meta_animator.errors import UserError
from meta_animator.puppets.rendering import Camera, Motion, make_identity, make_scene, render
from meta_animator.puppets.rendering.motion import Track

FULL_BODY = Camera(head_fraction=0.15, headroom=0.06, distance=4.0, pitch=0.0, offset=0.0)
SIZE = 256


@pytest.fixture(scope="module")
def light():
    pytest.importorskip("ai_edge_litert")
    try:
        return AnnotatorSet("light", fetch=False).load()
    except UserError as error:
        pytest.skip(f"without the networks of the light set ({error})")


def puppet(yaw, seed=2):
    motion = Motion("still", 1.0, 0, {"yaw": Track(yaw)})
    return render(make_identity(seed), motion, make_scene(seed), FULL_BODY, 0.0, (SIZE, SIZE))


@pytest.fixture(scope="module")
def front():
    return puppet(0.0)


def annotate(light, frame):
    (people,) = light.detect([frame])
    assert len(people) == 1
    (answer,) = light.annotate([frame], people)
    return people[0], answer


def body_error(found, true):
    """Median distance of the body's points that both see, as a share of the person's height."""
    both = (found[kp.BODY, 2] >= kp.VISIBLE) & (true[kp.BODY, 2] >= kp.VISIBLE)
    assert both.sum() >= 10
    seen = true[: kp.FEET.stop][true[: kp.FEET.stop, 2] >= kp.VISIBLE]
    return np.median(np.hypot(*(found - true)[kp.BODY, :2][both].T)) / np.ptp(seen[:, 1])


@pytest.mark.parametrize("yaw, face", [(0.0, True), (np.pi, False)])
def test_a_puppet_is_seen_from_both_sides_and_has_a_face_on_one(light, yaw, face):
    truth = puppet(yaw)
    person, answer = annotate(light, truth.frame)
    keypoints, mask = answer["keypoints"], answer["mask"]
    assert keypoints.dtype == np.float32 and mask.dtype == bool and mask.shape == truth.mask.shape
    assert body_error(keypoints, truth.keypoints) < 0.025
    assert (mask & truth.mask).sum() / (mask | truth.mask).sum() > 0.93
    assert (kp.five_points(keypoints) is not None) == face and (keypoints[kp.NOSE, 2] > 0) == face
    rows, columns = np.nonzero(truth.mask)
    true_box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(person.box - true_box).max() < 0.06 * SIZE
    if face:
        error = np.hypot(*(kp.five_points(keypoints) - kp.five_points(truth.keypoints)).T)
        assert error.max() < 0.02 * SIZE


def test_a_mirrored_picture_gets_mirrored_points(light, front):
    _, answer = annotate(light, front.frame)
    _, mirrored = annotate(light, np.ascontiguousarray(front.frame[:, ::-1]))
    again = kp.flip_keypoints(mirrored["keypoints"], SIZE)
    both = (answer["keypoints"][:91, 2] > 0) & (again[:91, 2] > 0)
    assert both.sum() > 80 and np.hypot(*(answer["keypoints"] - again)[:91, :2][both].T).max() < 0.04 * SIZE


def test_an_answer_depends_on_the_frame_and_the_person_alone(light, front):
    (people,) = light.detect([front.frame])
    (alone,) = light.annotate([front.frame], people)
    behind = puppet(np.pi).frame
    after = light.annotate([behind, front.frame, behind], [people[0]] * 3)[1]
    assert all(np.array_equal(after[layer], alone[layer]) for layer in light.layers)


def test_a_frame_is_annotated_by_what_its_neighbour_showed(light, front):
    _, answer = annotate(light, front.frame)
    moved = np.roll(front.frame, 10, 1)
    (near,) = light.annotate([moved], [detection_of(answer["keypoints"])])
    assert body_error(near["keypoints"] - [10, 0, 0], front.keypoints) < 0.025


def test_two_small_puppets_are_two_people_and_a_place_without_any_is_empty(light, front):
    scene = np.full((640, 1120, 3), 150, np.uint8)
    small = front.frame[::2, ::2]
    for left in (100, 800):
        scene[300 : 300 + SIZE // 2, left : left + SIZE // 2] = small
    empty = np.full((640, 1120, 3), 150, np.uint8)
    found, nobody = light.detect([scene, empty])
    assert nobody == []
    middles = sorted((person.box[0] + person.box[2]) / 2 for person in found)
    assert middles == pytest.approx([164, 864], abs=8)
    answers = light.annotate([scene, scene], sorted(found, key=lambda person: person.box[0]))
    for answer, left in zip(answers, (100, 800), strict=True):
        own = (answer["keypoints"] - [left, 300, 0]) * [2, 2, 1]
        assert body_error(own, front.keypoints) < 0.03


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (900, 2), (40, 40)])
def test_pictures_of_any_size_are_looked_at(light, front, size):
    frame = np.ascontiguousarray(np.resize(front.frame, (*size, 3)))
    (people,) = light.detect([frame])
    given = [*people, detection_of(front.keypoints)]
    for answer in light.annotate([frame] * len(given), given):
        assert all(len(value) in (size[0], kp.NUM_KEYPOINTS) for value in answer.values())
