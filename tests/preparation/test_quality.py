"""What makes a frame of no use, each with its reason; what is fine is kept."""

import dataclasses

import cv2
import numpy as np
import pytest

from meta_animator.annotators.base import Detection
from meta_animator.data import keypoints as kp
from meta_animator.data.keypoints import BODY, FACE, face_box
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import crop_and_resize
from meta_animator.errors import UserError
from meta_animator.preparation import quality
from meta_animator.preparation.quality import Limits, judge, measure, parse_limits, sharpness
from meta_animator.preparation.views import view_of
from meta_animator.puppets.rendering import render_clip
from tests.data.people import standing_person

LIMITS = Limits(min_height=64)


@pytest.fixture(scope="module")
def dance() -> list[Layers]:
    return render_clip(1, 1, 4, 4, (256, 192), "dance")


@pytest.fixture(scope="module")
def turn() -> list[Layers]:
    """Once round."""
    return render_clip(0, 0, 12, 3, (128, 96), "turn")


def facts_of(layers: Layers, **changed) -> dict[str, float]:
    layers = dataclasses.replace(layers, **changed)
    known = {"keypoints": layers.keypoints, "mask": layers.mask}
    return measure(layers.frame, {name: layer for name, layer in known.items() if layer is not None})


def reason(layers: Layers, limits: Limits = LIMITS, **changed) -> str:
    return judge([facts_of(layers, **changed)], limits)[0]


def moved(frame: np.ndarray, pixels: int, along: int) -> np.ndarray:
    """As a camera sees what moves while the shutter is open."""
    return cv2.blur(frame, (pixels, 1) if along else (1, pixels))


def test_good_frames_are_kept_from_every_side(dance, turn):
    assert judge([facts_of(layers) for layers in (*dance, *turn)], LIMITS) == [""] * 16
    facts = facts_of(dance[0])
    assert facts["height"] == pytest.approx(256 * facts["share"]) and facts["seen"] > 0.85 and facts["head"] == facts["view"] == 1
    box = face_box(dance[0].keypoints)
    assert facts["face"] == pytest.approx(box[3] - box[1])


@pytest.mark.parametrize("along", [0, 1])
def test_motion_blur_is_seen_in_either_direction_and_so_is_bad_focus(dance, along):
    assert reason(dance[0], frame=moved(dance[0].frame, 17, along)) == quality.BLURRED
    assert reason(dance[0], frame=cv2.GaussianBlur(dance[0].frame, (0, 0), 4)) == quality.BLURRED
    assert reason(dance[0], frame=moved(dance[0].frame, 3, along)) == ""


def test_blurred_hands_or_a_blurred_background_do_not_matter_where_the_face_is_sharp(dance):
    layers = dance[0]
    blurred = cv2.GaussianBlur(layers.frame, (0, 0), 5)
    around = layers.frame.copy()
    around[~cv2.dilate(layers.mask.astype(np.uint8), np.ones((5, 5))).astype(bool)] = 0
    around = np.where(around.max(-1, keepdims=True) > 0, layers.frame, blurred)
    assert reason(layers, frame=around) == ""
    lower = layers.frame.copy()
    chin = round(face_box(layers.keypoints)[3]) + 2
    lower[chin:] = blurred[chin:]
    assert reason(layers, frame=lower) == ""
    share = cv2.GaussianBlur(layers.mask.astype(np.float32), (0, 0), 5)[..., None]
    still = (share * blurred + (1 - share) * layers.frame).astype(np.uint8)
    assert reason(layers, frame=still, keypoints=None) == quality.BLURRED, "a sharp background is not the person"


def test_sharpness_is_the_same_at_any_size_and_contrast(dance):
    x0, y0, x1, y1 = (round(value) for value in face_box(dance[0].keypoints))
    face = cv2.resize(dance[0].frame[y0:y1, x0:x1], (300, 400), interpolation=cv2.INTER_CUBIC)
    for soft in (0.1, 4, 12):
        large = cv2.GaussianBlur(face, (0, 0), soft)
        values = [sharpness(cv2.resize(large, None, fx=f, fy=f, interpolation=cv2.INTER_AREA), 64) for f in (1, 0.5, 0.2)]
        values.append(sharpness((large // 3 + 80).astype(np.uint8), 64))
        assert max(values) - min(values) < 0.06, (soft, values)
    assert sharpness(np.full((40, 40, 3), 7, np.uint8), 64) == 0


def test_a_frame_blurrier_than_the_film_usually_is_goes_and_a_soft_film_stays(dance):
    soft = [facts_of(layers, frame=cv2.GaussianBlur(layers.frame, (0, 0), 2.4)) for layers in dance]
    sharp = [facts_of(layers) for layers in dance]
    limits = dataclasses.replace(LIMITS, min_sharpness=0.1)
    assert judge(soft, limits) == [""] * 4
    assert judge([*sharp, *sharp, soft[0]], limits) == [""] * 8 + [quality.BLURRED]
    assert judge([*sharp, *sharp, soft[0]], dataclasses.replace(limits, blur_ratio=0.0)) == [""] * 9


def test_a_small_person_and_nobody(dance):
    small = crop_and_resize(dance[0], (0, 0, 192, 256), (64, 48))
    assert reason(small) == quality.SMALL and reason(small, Limits(min_height=48)) == ""
    assert reason(small, Limits(min_height=48, min_share=0.99)) == quality.SMALL
    nothing = {"mask": np.zeros_like(dance[0].mask), "keypoints": np.zeros((133, 3), np.float32)}
    assert reason(dance[0], **nothing) == quality.NO_PERSON
    box = Detection(box=np.array([-10.0, 20, 60, 90]), score=0.9)
    assert measure(dance[0].frame, {}, box)["height"] == 70


def test_a_head_that_is_cut_off_is_told_from_one_seen_from_behind(turn):
    """With and without a mask, by points outside of the picture and by points that are missing."""
    back = next(layers for layers in turn if view_of(layers.keypoints) == "back")
    hidden = back.keypoints.copy()
    hidden[[0, 1, 2, 3, 4], 2], hidden[FACE, 2] = 0, 0
    for mask in (back.mask, None):
        assert reason(back, keypoints=hidden, mask=mask) == ""
        assert reason(back, Limits(min_height=64, need_face=True), keypoints=hidden, mask=mask) == quality.NO_FACE
    for layers in (turn[0], back):
        neck = round(float(layers.keypoints[[5, 6], 1].mean()))
        cut = crop_and_resize(layers, (0, neck - 3, 96, 128), (128 - neck + 3, 96))
        assert reason(cut) == reason(cut, mask=None) == quality.NO_HEAD
        assert reason(cut, Limits(min_height=64, need_head=False)) == ""


def test_a_head_cut_through_the_eyes_is_no_head(turn):
    x0, y0, x1, y1 = face_box(turn[0].keypoints)
    eyes = int(turn[0].keypoints[[1, 2], 1].max()) + 2
    assert y0 < eyes < turn[0].keypoints[0, 1] < y1 and x0 < x1
    assert reason(crop_and_resize(turn[0], (0, eyes, 96, 128), (128 - eyes, 96))) == quality.NO_HEAD
    above = int(y0)
    assert reason(crop_and_resize(turn[0], (0, above, 96, 128), (128 - above, 96))) == ""


def test_legs_alone_or_a_hidden_body_are_mostly_outside(dance):
    points = dance[0].keypoints.copy()
    points[np.r_[5:17], 2] = 0  # the head alone is seen
    assert reason(dance[0], keypoints=points) == quality.OUTSIDE
    half = dance[0].keypoints.copy()
    half[np.r_[9:23], 2] = 0  # to the elbows
    assert reason(dance[0], keypoints=half) == ""
    assert facts_of(dance[0], keypoints=half)["seen"] == pytest.approx((half[BODY, 2] >= 0.3).mean())


def test_a_face_may_be_asked_for_and_its_size(dance):
    face = facts_of(dance[0])["face"]
    assert reason(dance[0], Limits(min_face=int(face) + 2)) == quality.SMALL_FACE
    assert reason(dance[0], Limits(min_face=int(face) - 2)) == ""


def test_views_follow_the_turn_of_a_puppet(turn):
    """Front, side, back, side, front; also lying down, upside down, and without hips."""
    views = [view_of(layers.keypoints) for layers in turn]
    changes = [view for k, view in enumerate(views) if k == 0 or view != views[k - 1]]
    assert changes[:4] == ["front", "side", "back", "side"]
    person = standing_person(200, 200)
    behind = person.copy()
    behind[1:23] = behind[[2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 20, 21, 22, 17, 18, 19]]
    for points, view in ((person, "front"), (behind, "back")):
        for turned in (points, points[:, [1, 0, 2]] * [-1, 1, 1] + [200, 0, 0], points * [-1, -1, 1] + [200, 200, 0]):
            assert view_of(turned) == view
    bust = person.copy()
    bust[7:23, 2] = 0
    assert view_of(bust) == "front"
    bust[5:7, 2] = 0
    assert view_of(bust) == "front", "by the face alone"
    assert view_of(np.zeros((133, 3))) == ""
    bust[kp.FACE, 1] = 5
    bust[5:7, 2] = 1
    assert view_of(bust) == "front", "a face without a height"


def test_limits_are_read_from_a_command_line():
    assert parse_limits(["min_height=60", "need_face=true"]) == Limits(min_height=60, need_face=True)
    assert parse_limits([]) == Limits()
    wrong = {
        "min_hight=3": "Did you mean min_height?", "min_height": "expected NAME=VALUE", "min_height=tall": "a whole number",
        "min_share=1.5": "expected 0 to 1, got 1.5", "min_face=-1": "expected at least 0",
    }  # fmt: skip
    for text, told in wrong.items():
        with pytest.raises(UserError, match=told.replace("?", "[?]")):
            parse_limits([text])


def test_every_reason_names_the_limits_that_undo_it(dance):
    """Each rejected frame is kept once those of its rule are at their loosest."""
    loosest = {"min_height": 0, "min_share": 0.0, "min_seen": 0.0, "need_head": False, "need_face": False, "min_face": 0}
    loosest |= {"min_sharpness": 0.0, "blur_ratio": 0.0}
    fine = facts_of(dance[0])
    bad = {
        quality.SMALL: {"height": 3.0}, quality.OUTSIDE: {"seen": 0.1}, quality.NO_HEAD: {"head": 0.0},
        quality.SMALL_FACE: {"face": 8.0}, quality.BLURRED: {"face_sharpness": 0.1},
    }  # fmt: skip
    strict = Limits(min_height=64, min_face=9)
    for why, facts in bad.items():
        assert judge([fine | facts], strict) == [why]
        undone = dataclasses.replace(strict, **{name: loosest[name] for name in quality.RULES[why][0]})
        assert judge([fine | facts], undone) == [""]
    assert set(quality.RULES) == {*bad, quality.NO_FACE}
