"""The light annotators around their networks: what is cropped, what comes back, whom and what they do not see."""

import math

import numpy as np
import pytest

from meta_animator.annotators.base import Detection, detection_of
from meta_animator.annotators.blaze import annotator, face, hands, people
from meta_animator.annotators.blaze.boxes import make_anchors, merge
from meta_animator.annotators.blaze.mask import find_mask
from meta_animator.annotators.blaze.pose import Pose, axis_of, find_pose, refine
from meta_animator.annotators.blaze.regions import Region, upright
from meta_animator.annotators.blaze.wholebody import whole_body
from meta_animator.data import keypoints as kp
from tests.annotators.blaze_fakes import BLUE, GREEN, NEVER, RED, SURE, FakePeople, FakePose, middle, picture

TURNED = Region(150.3, 90.8, 120.0, 120.0, 0.6)


def make_pose(points=None, mask=None, radius=100.0):
    points = np.tile([100.0, 100.0, 0.0, 1.0], (33, 1)) if points is None else points
    region = upright(np.array([100.0, 100.0]), np.array([100.0, 100.0 - radius]), 1.25)
    mask = np.zeros((64, 64), np.float32) if mask is None else mask
    return Pose(points, 1.0, mask, region, axis_of(region))


@pytest.mark.parametrize("region", [TURNED, Region(140.0, 100.0, 60.0, 60.0, -2.5), Region(160.0, 80.0, 300.0, 300.0)])
def test_what_a_network_sees_in_a_crop_comes_back_to_its_place(region):
    x, y, area = middle(region.crop(picture((200, 300), [(155, 96, 9, RED)]), 128), RED)
    assert area > 0
    assert np.abs(region.place(np.array([[x, y]]))[0] - [155, 96]).max() < 0.1
    assert np.abs(region.shares(np.array([[155.0, 96.0]]))[0] - [x, y]).max() < 0.1 / region.width


def test_a_mask_is_pasted_with_its_pixels_as_areas():
    y, x = np.mgrid[:64, :64]
    disc = (np.hypot(x - 40, y - 25) < 9).astype(np.float32)
    rows, columns = np.nonzero(TURNED.paste(disc, (200, 300)) > 0.5)
    wanted = TURNED.place(np.array([[40.5, 25.5]]) / 64)[0] - 0.5
    assert np.abs([columns.mean() - wanted[0], rows.mean() - wanted[1]]).max() < 0.1
    assert len(rows) == pytest.approx(disc.sum() * (120 / 64) ** 2, rel=0.03)


def test_anchors_are_as_many_as_the_networks_answer_for():
    assert len(make_anchors(224, people.STRIDES)) == 2254
    anchors = make_anchors(128, face.DETECTOR_STRIDES)
    assert len(anchors) == 896
    assert anchors[[0, 2, 511, 512, 895]] * 128 == pytest.approx(np.array([[4, 4], [12, 4], [124, 124], [8, 8], [120, 120]]))


def test_overlapping_answers_become_their_weighted_mean():
    boxes = np.array([[0.0, 0, 10, 10], [50, 0, 60, 10], [1, 0, 11, 10]])
    first, second = merge(np.array([0.9, 0.6, 0.3]), boxes, np.arange(6.0).reshape(3, 1, 2))
    assert (first.score, second.score) == (0.9, 0.6)
    assert first.box == pytest.approx([0.25, 0, 10.25, 10]) and first.points[0] == pytest.approx([1, 2])
    assert second.box == pytest.approx(boxes[1])


def test_heatmaps_move_the_points_that_they_are_sure_of():
    heatmaps = np.zeros((64, 64, 3))
    heatmaps[20, 30:32, :2] = 0.4, 0.4  # unsure
    heatmaps[20, 30:32, 0] = 0.9, 0.3
    points = np.array([[31, 21], [31, 21], [-5, 90]]) / 64
    assert refine(points, heatmaps) * 64 == pytest.approx(np.array([[30.25, 20], [31, 21], [-5, 90]]))


def test_a_pose_is_where_its_network_saw_it():
    image = picture((200, 300), [(150, 100, 6, RED), (138, 60, 6, GREEN)])
    pose = find_pose(FakePose(), image, TURNED)
    assert np.abs(pose.points[0, :2] - [150, 100]).max() < 0.1 and np.abs(pose.axis - [[150, 100], [138, 60]]).max() < 0.1
    assert axis_of(upright(pose.axis[0], pose.axis[1], 1.25)) == pytest.approx(pose.axis)


@pytest.fixture
def detector(monkeypatch):
    """make(detecting network, pose network) -> a detector."""
    monkeypatch.setattr(people, "load_network", lambda network: network)
    return lambda seen, pose: people.BlazePeople({"pose_detection": seen, "pose_landmark_full": pose})


def test_small_people_are_looked_for_in_parts_of_the_picture(detector):
    spots = [(100, 200, 4, RED), (500, 150, 4, RED)]
    (found,) = detector(FakePeople(least=60), FakePose()).detect([picture((360, 640), spots)])
    assert sorted(np.rint(person.axis[0]).tolist() for person in found) == [[100, 200], [500, 150]]
    assert [person.axis[0, 1] - person.axis[1, 1] for person in found] == pytest.approx([16, 16], abs=2)


def test_one_look_is_enough_for_a_large_person(detector):
    seen = FakePeople()
    (found,) = detector(seen, FakePose()).detect([picture((360, 640), [(300, 180, 40, RED)])])
    assert len(found) == 1 and seen.asked == 1


def test_nobody_is_seen_without_a_pose_that_confirms(detector):
    large, small = picture((360, 640), [(300, 180, 40, RED)]), picture((360, 640), [(100, 200, 4, RED)])
    assert detector(FakePeople(), FakePose(present=0.4)).detect([large, large * 0]) == [[], []]
    doubtful = detector(FakePeople(least=60), FakePose(present=0.8)).detect([large, small])
    assert [len(found) for found in doubtful] == [1, 0]  # what is cut out of a picture looks like a person more easily


def test_somebody_of_whom_nothing_is_seen_is_nobody(detector):
    image = picture((360, 640), [(300, 180, 40, RED)])
    assert detector(FakePeople(), FakePose(visible=NEVER)).detect([image]) == [[]]


@pytest.mark.parametrize(
    "score, shifty, lying, seen", [(0.9, 8, True, 1), (0.5, 8, False, 0), (0.5, 0, True, 0), (0.5, 0, False, 1)]
)
def test_whom_the_detector_doubts_is_somebody_upright_who_looks_the_same_again(detector, score, shifty, lying, seen):
    image = picture((360, 640), [(300, 180, 40, RED), *([(390, 180, 9, GREEN)] if lying else [])])
    (found,) = detector(FakePeople(score=score), FakePose(shifty=shifty)).detect([image])
    assert len(found) == seen


def test_the_box_holds_the_points_and_what_of_the_mask_is_near_them():
    mask = np.zeros((64, 64), np.float32)
    mask[20:44, 16:48], mask[:4, :4] = 1, 1
    points = np.tile([100.0, 100.0, 0.0, 1.0], (33, 1))
    points[:, 1] = np.linspace(60, 140, 33)
    first, last = make_pose().region.place(np.array([[16.5, 20.5], [47.5, 43.5]]) / 64)
    box = people.box_of(make_pose(points, mask), (300, 300))
    assert first[0] < 100 - 30 and box == pytest.approx([100 - 30, first[1], 100 + 30 + 1, last[1] + 1])
    assert people.box_of(make_pose(points, mask), (130, 104)).tolist()[2:] == [104, 130]


@pytest.fixture
def blaze(monkeypatch):
    """A light annotator that sees no face and no hands."""
    monkeypatch.setattr(annotator, "load_network", lambda network: network)
    names = "face_detection_short_range", "face_landmark", "hand_recrop", "hand_landmark_full"
    made = annotator.Blaze({"pose_landmark_full": FakePose()} | dict.fromkeys(names))
    monkeypatch.setattr(annotator, "find_face", lambda *_: None)
    monkeypatch.setattr(annotator, "find_hands", lambda *_: (None, None))
    return made


def test_a_box_beside_somebody_gets_nothing_and_a_poor_one_of_somebody_the_same_as_a_good_one(blaze):
    image = picture((200, 300), [(150, 100, 10, RED), (150, 60, 6, GREEN), (150, 100, 30, BLUE)])
    boxes = [(120, 60, 180, 140), (110, 40, 210, 200), (60, 60, 138, 138)]
    given = [Detection(box=np.array(box, np.float64), score=1.0) for box in boxes]
    good, poor, beside, nobody = blaze.annotate([image] * 4, [*given, None], [{}] * 4)
    assert beside == {} and nobody == {}
    assert np.abs(good["keypoints"][kp.NOSE, :2] - [150, 100]).max() < 0.1
    assert np.abs(poor["keypoints"] - good["keypoints"]).max() < 0.3
    assert (good["mask"] ^ (image[..., BLUE] > 127)).mean() < 0.01


def test_pieces_of_a_mask_that_no_point_lies_on_are_not_the_person():
    mask = np.zeros((64, 64), np.float32)
    mask[20:44, 24:40], mask[50:60, 50:60] = 1, 1
    found = find_mask(make_pose(mask=mask), (250, 250))
    columns = np.flatnonzero(found.any(0))
    region = make_pose().region
    assert columns.max() < region.place(np.array([[45.0, 45.0]]) / 64)[0, 0] and found[100, 100]


def test_fingers_belong_to_the_mask():
    points = np.zeros((21, 3))
    points[:, 0], points[:, 1] = 180, 150
    points[[5, 9, 13, 17], 1] = 170  # a palm of 20 pixels
    points[12, 1], points[11, 1], points[10, 1] = 200, 190, 180
    mask = find_mask(make_pose(), (250, 250), (None, hands.Hand(points, 1.0)))
    rows, columns = np.nonzero(mask)
    assert mask[199, 180] and rows.max() <= 204 and columns.min() >= 176 and columns.max() <= 184


def head(yaw, scale=1.0):
    """A pose whose ears are those of a head turned by `yaw` degrees; depths `scale` times too large."""
    points = np.tile([100.0, 40.0, 0.0, 1.0], (33, 1))
    across, depth = 10 * math.cos(math.radians(yaw)), 10 * scale * math.sin(math.radians(yaw))
    points[7, [0, 2]], points[8, [0, 2]] = (100 + across, depth), (100 - across, -depth)
    return make_pose(points)


class Face:
    """Detects a face wherever it is asked, and a mesh of it around the middle of the crop."""

    def __init__(self, yaw=0.0, shift=0.0):
        self.yaw, self.shift, self.asked = yaw, shift, 0

    def detect(self, crop):
        self.asked += 1
        values, logits = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), NEVER, np.float32)
        anchor = make_anchors(128, face.DETECTOR_STRIDES)[400]
        points = np.array([(0.45, 0.5), (0.55, 0.5), *[(0.5, 0.55)] * 4]) - anchor
        points[:, 0] += self.shift
        values[0, 400, 4:], logits[0, 400] = points.ravel() * 128, SURE
        return [values, logits]

    def mesh(self, crop):
        points = np.full((468, 3), 96.0, np.float32)
        turned = math.radians(self.yaw)
        points[face.LEFT_SIDE], points[face.RIGHT_SIDE] = (
            (96 + side * 50 * math.cos(turned), 96, side * 50 * math.sin(turned)) for side in (1, -1)
        )
        return [points.reshape(1, -1), np.array([SURE])]

    @property
    def networks(self):
        return face.FaceNetworks(face.face_detector(self.detect), self.mesh)


IMAGE = np.zeros((200, 200, 3), np.uint8)


def test_a_head_seen_from_behind_has_no_face_even_where_networks_see_one():
    assert face.find_face(Face().networks, IMAGE, head(20)) is not None
    for yaw in (150, 180, -150):
        seen = Face()
        assert face.find_face(seen.networks, IMAGE, head(yaw)) is None and seen.asked == 0
        keypoints = whole_body(head(yaw), None, (None, None), (200, 200))
        assert keypoints[: kp.LEFT_SHOULDER, 2].tolist() == [0, 0, 0, 1, 1]


def test_the_face_of_somebody_else_is_not_taken():
    assert face.find_face(Face(shift=0.4).networks, IMAGE, head(0)) is None


@pytest.mark.parametrize("yaw, hidden", [(0, []), (60, []), (-84, [kp.RIGHT_EAR]), (92, [kp.LEFT_EYE, kp.LEFT_EAR])])
def test_the_far_side_of_a_profile_is_hidden(yaw, hidden):
    keypoints = whole_body(head(yaw), None, (None, None), (200, 200))
    assert np.flatnonzero(keypoints[:5, 2] == 0).tolist() == hidden


def test_a_mesh_knows_better_than_a_pose_how_far_a_head_is_turned():
    mesh = face.find_face(Face(yaw=30).networks, IMAGE, head(86))
    keypoints = whole_body(head(86), mesh, (None, None), (200, 200))
    assert (keypoints[:5, 2] > 0).all() and (keypoints[kp.FACE, 2] == 1).all()
    mesh = face.find_face(Face(yaw=-60).networks, IMAGE, head(0))
    assert whole_body(head(0), mesh, (None, None), (200, 200))[kp.RIGHT_EAR, 2] == 0


class Hands:
    """Sees a hand where green is: a cross of 21 points, 20 pixels of the picture wide, however the crop is turned."""

    def recrop(self, crop):
        return [np.array([128.0, 128, 128, 256])]

    def landmarks(self, crop):
        x, y, area = middle(crop, GREEN)
        size, reach = crop.shape[1], math.sqrt(area / math.pi) if area else 0.0
        points = np.tile(np.array([x, y, 0]) * size, (21, 1))
        points[1:3, 0] += [-reach, reach]
        points[3:5, 1] += [-reach, reach]
        return [points.astype(np.float32).reshape(1, -1), np.array([1.0 if area > 50 else 0.0])]


def arms(left, right):
    """A pose whose wrists are here, fingers pointing down; and networks that see hands."""
    points = np.tile([100.0, 60.0, 0.0, 1.0], (33, 1))
    for (wrist, little, index), at in ((hands.LEFT, left), (hands.RIGHT, right)):
        points[wrist, :2], points[[little, index], :2] = at, (at[0], at[1] + 14)
    seen = Hands()
    return make_pose(points), hands.HandNetworks(seen.recrop, seen.landmarks)


def test_hands_come_back_to_their_places_on_their_own_sides():
    image = picture((200, 200), [(40, 120, 10, GREEN), (160, 110, 10, GREEN)])
    pose, networks = arms(left=(160, 105), right=(40, 116))
    left, right = hands.find_hands(networks, image, pose)
    assert np.abs(left.points[0, :2] - [160, 110]).max() < 0.1 and np.abs(right.points[0, :2] - [40, 120]).max() < 0.1
    keypoints = whole_body(pose, None, (left, right), (200, 200))
    assert keypoints[91, :2] == pytest.approx([160, 110], abs=0.1) and keypoints[112, 2] == 1


def test_one_hand_is_not_both_and_a_far_one_is_not_this_one():
    image = picture((200, 200), [(60, 120, 10, GREEN)])
    pose, networks = arms(left=(66, 118), right=(61, 118))
    left, right = hands.find_hands(networks, image, pose)
    assert left is None and right is not None
    pose, networks = arms(left=(150, 60), right=(60, 98))
    assert hands.find_hands(networks, image, pose) == (None, None)
    pose, networks = arms(left=(150, 60), right=(61, 118))
    assert hands.find_hands(networks, image, pose)[1] is not None
    pose.points[hands.RIGHT[0], 3] = 0.05  # hidden
    assert hands.find_hands(networks, image, pose) == (None, None)


def test_points_have_the_places_of_coco_wholebody():
    points = np.stack([np.arange(33.0), 100 + np.arange(33.0), np.zeros(33), np.full(33, 0.9)], 1)
    points[7, 2] = points[8, 2] = 0.0
    points[[7, 8], 0] = 8, 7  # the left ear is image-right
    points[28, 0] = 250
    keypoints = whole_body(make_pose(points), None, (None, None), (200, 200))
    assert keypoints[: kp.BODY.stop, 1].tolist() == [100, 102, 105, 107, 108, *range(111, 117), *range(123, 129)]
    assert keypoints[kp.FEET, 1].tolist() == [131, 0, 129, 132, 0, 130]
    hidden = np.flatnonzero(keypoints[: kp.FEET.stop, 2] == 0).tolist()
    assert hidden == [kp.RIGHT_ANKLE, kp.LEFT_SMALL_TOE, kp.RIGHT_SMALL_TOE]  # one outside, two that nobody knows
    assert keypoints.dtype == np.float32 and not keypoints[kp.FACE.start :, 2].any()


def test_a_person_of_known_points_can_be_looked_for():
    keypoints = np.zeros((133, 3), np.float32)
    assert detection_of(keypoints) is None
    keypoints[[5, 6, 11, 12, 15]] = [(40, 50, 1), (60, 50, 1), (45, 100, 1), (55, 100, 1), (50, 170, 1)]
    person = detection_of(keypoints)
    assert person.box.tolist() == [40, 50, 61, 171] and person.axis.tolist() == [[50, 100], [50, 30]]
    keypoints[11, 2] = 0.1
    assert detection_of(keypoints).axis is None
