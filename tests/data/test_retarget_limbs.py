"""Motion limb by limb on another person: puppets of other proportions are the truth."""

import numpy as np
import pytest

from meta_animator.data import keypoints as kp
from meta_animator.data.retarget import fit_keypoints, fit_limbs
from meta_animator.data.retarget.heads import USUAL_FACE, find_head
from meta_animator.data.retarget.proportions import BODY_BONES, NAMES, bone_lengths, measure
from meta_animator.errors import UserError
from meta_animator.puppets.rendering.camera import make_camera, place
from meta_animator.puppets.rendering.identity import make_identity
from meta_animator.puppets.rendering.keypoints import keypoints_3d
from meta_animator.puppets.rendering.motion import make_motion
from meta_animator.puppets.rendering.skeleton import solve
from tests.data.people import standing_person

ANKLES = [kp.LEFT_ANKLE, kp.RIGHT_ANKLE]


def puppet(identity, motion, kind, count=24, size=(512, 512)):
    """(count, 133, 3) keypoints, all seen, at 12 frames per second through one camera for all puppets."""
    who, moves = make_identity(identity), make_motion(motion, kind)
    view = place(make_camera(0), make_identity(0), size)
    world = [keypoints_3d(who, solve(who, moves.pose(k / 12)))[0] for k in range(count)]
    pixels = np.stack([view.project(view.to_camera(points)) for points in world])
    return np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1).astype(np.float32)


def squatting(count=48, height=400, width=600):
    """Somebody who stands with both feet, sways sideways and squats, thighs coming towards the camera."""
    clip = np.repeat(standing_person(height, width)[None], count, axis=0)
    down = 20 * (1 - np.cos(2 * np.pi * np.arange(count) / 24))
    upper = [*range(0, 13), *range(23, 133)]
    clip[:, upper, 1] += down[:, None]
    clip[:, upper, 0] += 12 * np.sin(2 * np.pi * np.arange(count) / 24)[:, None]
    clip[:, [13, 14], 1] += down[:, None] / 2
    return clip


def with_bones(points, arms=1.0, legs=1.0, thighs=1.0):
    """A standing person whose arms, legs and thighs alone are so many times as long, on the same floor."""
    other = points.copy()
    for side in (0, 1):
        lower = [13 + side, 15 + side, *range(17 + 3 * side, 20 + 3 * side)]
        other[..., lower, :2] += ((thighs - 1) * (points[..., 13 + side, :2] - points[..., 11 + side, :2]))[..., None, :]
    points = other.copy()
    for side in (0, 1):
        shoulder, elbow, wrist, hip, knee, ankle = (start + side for start in (5, 7, 9, 11, 13, 15))
        hand, foot = (kp.LEFT_HAND, kp.RIGHT_HAND)[side], slice(17 + 3 * side, 20 + 3 * side)
        for (root, middle, end), rest, factor in (((shoulder, elbow, wrist), hand, arms), ((hip, knee, ankle), foot, legs)):
            ends = other[..., end, :2].copy()
            for joint in (middle, end):
                other[..., joint, :2] = other[..., root, :2] + factor * (points[..., joint, :2] - points[..., root, :2])
            other[..., rest, :2] += (other[..., end, :2] - ends)[..., None, :]
    other[..., 1] -= other[..., ANKLES, 1].max() - points[..., ANKLES, 1].max()
    return other


@pytest.mark.parametrize("kind", ["wave", "dance", "walk", "sit", "turn"])
def test_a_puppets_motion_on_another_is_that_ones_own_motion(kind):
    """Puppets who move the same joints by the same angles: what is carried over is what the other does, wherever they are."""
    ours, whole = [], []
    for driver, person in ((0, 2), (2, 3), (5, 1)):
        truth, driving = puppet(person, 7, kind), puppet(driver, 7, kind)
        photos = np.concatenate([puppet(person, 3, other, 4) for other in ("turn", "wave", "sit")])
        for fitted, errors in ((fit_limbs(driving, truth[0], photos, fps=12), ours), (fit_keypoints(driving, truth[0]), whole)):
            off = (fitted - truth)[:, kp.BODY, :2]
            errors.append(np.linalg.norm(off - np.median(off, axis=(0, 1)), axis=-1).mean() / measure(truth).height)
    assert np.mean(ours) < 0.011 and np.mean(ours) < np.mean(whole), (ours, whole)


def test_no_limb_is_stretched_from_landscape_to_portrait():
    """A driver with long arms held out to both sides, small in a wide picture, on somebody large in an upright one."""
    driving = with_bones(squatting(height=360, width=1280), arms=1.25)
    for side, sign in ((0, 1), (1, -1)):
        for joint in (7 + side, 9 + side):  # arms to the sides, slowly
            swing = np.linspace(0.2, 1.57, len(driving))
            reach = np.linalg.norm(driving[:, joint, :2] - driving[:, 5 + side, :2], axis=1)
            driving[:, joint, 0] = driving[:, 5 + side, 0] + sign * reach * np.sin(swing)
            driving[:, joint, 1] = driving[:, 5 + side, 1] + reach * np.cos(swing)
    reference = standing_person(1000, 640)
    fitted = fit_limbs(driving, reference, fps=24)
    lengths, own = bone_lengths(fitted)[:, :BODY_BONES], bone_lengths(reference[None])[0, :BODY_BONES]
    assert (lengths.max(0) / own < 1.05).all() and (lengths.max(0) / own > 0.95).all()
    arms = [np.linalg.norm(fitted[:, a, :2] - fitted[:, b, :2], axis=1) for a, b in ((5, 7), (6, 8), (7, 9), (8, 10))]
    assert all(np.ptp(arm) < 0.03 * arm.mean() for arm in arms), "arms that turn in the picture plane keep their length"
    assert np.allclose(arms[0], arms[1], rtol=0.01) and np.allclose(arms[2], arms[3], rtol=0.01)


def test_feet_that_stand_neither_slide_nor_sink():
    """On longer thighs and shorter shins, with hips that lean to one side, tremble and go down."""
    driving, reference = squatting(), with_bones(standing_person(300, 200), legs=0.85, thighs=1.3)
    time, upper = np.arange(48), [*range(0, 13), *range(23, 133)]
    driving[:, upper, 0] += 10 * (time > 8)[:, None] + 2 * np.sin(7 * time)[:, None]
    fitted = fit_limbs(driving, reference, fps=24)
    ankles = fitted[:, ANKLES, :2]
    assert np.abs(np.diff(ankles.mean(1)[:, 0])).max() < 0.3 and np.ptp(ankles.mean(1)[:, 0]) < 0.01 * 300
    lower = ankles[..., 1].max(1)
    assert np.ptp(lower) < 0.5 and lower.mean() == pytest.approx(reference[ANKLES, 1].max(), abs=0.5)
    assert ankles[..., 0].mean() == pytest.approx(reference[ANKLES, 0].mean(), abs=1), "on the reference's place"
    assert np.ptp(fitted[:, kp.NOSE, 1]) > 20, "the squat itself stays"


def test_who_steps_about_is_placed_by_the_hips():
    driving = np.repeat(standing_person(400, 600)[None], 48, axis=0)
    step = 40 * (1 - np.cos(2 * np.pi * np.arange(48) / 16))
    driving[:, [15, 17, 18, 19], 0] += step[:, None]
    fitted, reference = fit_limbs(driving, standing_person(400, 300), fps=24), standing_person(400, 300)
    assert np.median(fitted[:, 11:13, 0].mean(1)) == pytest.approx(reference[11:13, 0].mean(), abs=2)


def test_a_jump_leaves_the_floor():
    driving = np.repeat(standing_person(400, 600)[None], 24, axis=0)
    driving[8:16, :, 1] -= 60 * np.sin(np.linspace(0, np.pi, 8))[:, None]
    fitted = fit_limbs(driving, with_bones(standing_person(400, 300), legs=0.9), fps=24)
    lower = fitted[:, ANKLES, 1].max(1)
    assert np.ptp(lower[:6]) < 1 and lower[0] - lower.min() == pytest.approx(60 * 0.9, rel=0.12)


def test_wild_points_do_not_stretch_a_limb():
    """Elbows and knees that are elsewhere for three frames at a time, too long to be taken for slips."""
    driving, reference = squatting(), standing_person(300, 200)
    for start, joint in ((5, 7), (20, 8), (30, 13), (40, 14)):
        driving[start : start + 3, joint, :2] += (90, 60)
    lengths = bone_lengths(fit_limbs(driving, reference, fps=24))[:, :BODY_BONES].max(0)
    assert (lengths / bone_lengths(reference[None])[0, :BODY_BONES] < 1.08).all()


def test_knees_that_are_found_too_high_or_too_low_do_not_change_the_legs():
    driving = np.repeat(standing_person(400, 300)[None], 48, axis=0)
    legs = {}
    for off in (0, 10):
        driving[:, [13, 14], 1] += np.where(np.arange(48) // 12 % 2, off, -off)[:, None]
        legs[off] = (measure(driving).share("thigh") + measure(driving).share("shin")) * measure(driving).height
    assert legs[10] == pytest.approx(legs[0], rel=0.04)


def test_shoulders_seen_from_the_side_are_not_taken_for_narrow():
    """The first photo shows the person turned, standing as the driver stands; two others from the front."""
    person = standing_person(300, 200)
    turned = person.copy()
    turned[:, 0] = 100 + 0.8 * (person[:, 0] - 100)
    width = bone_lengths(fit_limbs(squatting(), turned, np.stack([person, person]), fps=24))[0, 0]
    assert width > 0.955 * bone_lengths(person[None])[0, 0]


def test_who_only_sits_does_not_get_standing_thighs():
    """Thighs that point at the camera in every frame are short in the picture, whoever's they are."""
    driving = squatting()
    driving[:, [13, 14], 1] = driving[:, [11, 12], 1] + 25  # thighs of 72 pixels, seen from the front
    driving[:, 15:23, 1] -= 72 - 25
    fitted = fit_limbs(driving, standing_person(400, 600), fps=24)
    thighs = np.linalg.norm(fitted[:, 11, :2] - fitted[:, 13, :2], axis=1)
    assert thighs.max() < 45


def test_half_a_body_and_a_whole_one():
    whole, legs = squatting(), [*range(11, 23)]
    half = standing_person(400, 300)
    half[legs, 2] = 0
    fitted = fit_limbs(whole, half, fps=24)
    assert np.array_equal(fitted[..., 2] >= 0.3, whole[..., 2] >= 0.3), "the legs go on below the picture"
    lengths = bone_lengths(fitted)[0]
    assert lengths[NAMES.index("shin")] == pytest.approx(bone_lengths(whole)[0, NAMES.index("shin")], rel=0.2)
    shoulders = np.median(fitted[:, 5:7, :2].mean(1), axis=0)
    assert np.abs(shoulders - half[5:7, :2].mean(0)).max() < 4
    cut = whole.copy()
    cut[:, legs, 2] = 0
    fitted = fit_limbs(cut, standing_person(400, 300), fps=24)
    assert np.isfinite(fitted).all() and np.abs(np.median(fitted[:, 5:7, 1]) - half[5, 1]) < 4
    assert not (fitted[:, legs, 2] >= 0.3).any()


def test_joints_outside_of_the_picture_stay_outside():
    driving, reference = squatting(), standing_person(400, 600) - np.array([0, 60, 0], np.float32)
    for joint in (7, 8, 9, 10):  # arms straight up
        driving[:, joint, 1] = 2 * driving[:, 5, 1] - driving[:, joint, 1]
    fitted = fit_limbs(driving, reference, fps=24)
    arms = bone_lengths(fitted)[:, [NAMES.index("upper_arm"), NAMES.index("forearm")]].sum(1)
    assert fitted[0, kp.LEFT_WRIST, 1] < -40 and arms[0] == pytest.approx(bone_lengths(driving[:1])[0, [2, 3]].sum(), rel=0.03)


def test_a_joint_that_is_hidden_for_a_while_does_not_move_the_rest():
    driving, reference = squatting(), with_bones(standing_person(300, 200), arms=1.2)
    hidden = driving.copy()
    hidden[12:36, [kp.LEFT_ELBOW, kp.RIGHT_SHOULDER, kp.LEFT_HIP], 2] = 0
    hidden[12:36, [kp.LEFT_ELBOW, kp.RIGHT_SHOULDER, kp.LEFT_HIP], :2] = 0
    fitted, expected = (fit_limbs(clip, reference, fps=24) for clip in (hidden, driving))
    seen = fitted[..., 2] >= 0.3
    assert np.linalg.norm((fitted - expected)[seen][:, :2], axis=1).max() < 0.03 * 300
    assert not seen[12:36, kp.LEFT_ELBOW].any()


def face_of(points):
    face = points[..., kp.FACE, :2].astype(np.float64)
    return (face - face[..., 30:31, :]) / np.linalg.norm(face[..., 27:28, :] - face[..., 33:34, :], axis=-1, keepdims=True)


def test_the_face_keeps_its_own_shape_and_takes_the_motion():
    """A broad face driven by a narrow one: it stays broad, while mouth and lids move as the driver's do."""
    reference, driving = standing_person(800, 600), squatting(height=400)
    middle = reference[kp.FACE, 0].mean()
    for part in (kp.FACE, slice(1, 3)):
        reference[part, 0] = middle + 1.4 * (reference[part, 0] - middle)
    moving = np.sin(np.linspace(0, np.pi, 48)) ** 2
    lower = [kp.FACE.start + k for k in (*range(55, 60), 65, 66, 67)]
    driving[:, lower, 1] += 6 * moving[:, None]
    lids = [kp.FACE.start + k for k in (37, 38, 43, 44)]
    driving[:, lids, 1] += 2 * moving[:, None] ** 8
    driving[:, [kp.FACE.start + k for k in range(17, 27)], 1] -= 9 * (moving > 0.6)[:, None]
    fitted = fit_limbs(driving, reference, fps=24)
    assert np.abs(face_of(fitted[0]) - face_of(reference)).max() < 0.06
    scale = np.ptp(reference[kp.FACE, 1]) / np.ptp(driving[0, kp.FACE, 1])
    opening = np.linalg.norm(fitted[:, 23 + 62, :2] - fitted[:, 23 + 66, :2], axis=1)
    assert np.abs((fitted[0] - fitted[0, 0])[1:3, :2] - (reference - reference[0])[1:3, :2]).max() < 2, "the eyes"
    assert opening.argmax() in (23, 24) and np.ptp(opening) > 0.8 * scale * 6
    assert np.abs(face_of(fitted)[:, :17] - face_of(reference)[:17]).max() < 0.06, "the jaw"


def turn_head(points, yaw, nod=0.0):
    """The usual face on a person (..., 133, 3), turned by `yaw` radians, nodding by `nod` about the ears; and eyes and ears."""
    unit = np.ptp(points[..., 1]) / 2000
    ears = USUAL_FACE[[0, 16]].mean(0)
    down = np.array([[1, 0, 0], [0, np.cos(nod), np.sin(nod)], [0, -np.sin(nod), np.cos(nod)]])
    head = np.concatenate([USUAL_FACE, [USUAL_FACE[42:48].mean(0), USUAL_FACE[36:42].mean(0), (75, -35, -100), (-75, -35, -100)]])
    head = (np.concatenate([head, np.zeros((1, 3))]) - ears) @ down.T + ears
    flat = np.stack([head[:, 0] * np.cos(yaw) + head[:, 2] * np.sin(yaw), head[:, 1]], axis=-1) * unit
    points[..., [*range(23, 91), 1, 2, 3, 4, 0], :2] = points[..., :1, :2] + flat
    return points


@pytest.mark.parametrize("yaw", [-0.7, 0.4])
def test_who_always_looks_aside_has_no_smaller_head_for_it(yaw):
    driving = turn_head(squatting(), yaw)
    truth = turn_head(np.repeat(standing_person(800, 600)[None], 1, axis=0), yaw)[0]
    reference = turn_head(standing_person(800, 600), 0.0)
    reference[kp.FACE.start + 8, 2] = 0  # without the chin, only eyes and ears are left to measure by, or the whole face
    fitted = fit_limbs(driving, reference, fps=24)[0]
    head = [*range(1, 5), *range(23, 91)]
    assert np.abs((fitted - fitted[0])[head, :2] - (truth - truth[0])[head, :2]).max() < 5


def test_who_looks_down_all_the_time_has_no_shorter_neck():
    driving = turn_head(squatting(), 0.0, nod=0.6)
    fitted = fit_limbs(driving, turn_head(standing_person(800, 600), 0.0), fps=24)
    hang = [clip[:, 0, :2] - clip[:, 5:7, :2].mean(1) for clip in (fitted, driving)]
    assert driving[0, 0, 1] > squatting()[0, 0, 1] + 7 and np.abs(hang[0] - 2 * hang[1]).max() < 3


def test_estimates_on_the_back_of_a_head_make_no_face():
    front = standing_person(800, 600)[None]
    back = front * [-1, 1, 1]
    assert find_head(front, np.ones(1)) is not None and find_head(back, np.ones(1)) is None


def test_a_puppets_face_stays_its_own_while_the_head_turns():
    """Of puppets with other faces, whose heads turn alike: points around the nose meet those of the one who is shown."""
    ours, scaled = [], []
    for kind, driver, person in (("dance", 0, 2), ("wave", 2, 3), ("turn", 2, 3), ("walk", 5, 1)):
        truth, driving = puppet(person, 7, kind), puppet(driver, 7, kind)
        photos = np.concatenate([puppet(person, 3, other, 4) for other in ("turn", "wave", "sit")])
        for known, errors in ((1, ours), (0, scaled)):
            photos[:, kp.FACE, 2] *= known
            reference = photos[0] if not known else truth[0]
            fitted = fit_limbs(driving, reference, photos, fps=12)
            faces = [clip[:, kp.FACE, :2] - clip[:, kp.FACE][:, 30:31, :2] for clip in (fitted, truth)]
            errors.append(np.linalg.norm(faces[0] - faces[1], axis=-1).mean() / np.ptp(faces[1][..., 1], axis=1).mean())
    assert np.mean(ours) < 0.03 and np.mean(ours) < 0.45 * np.mean(scaled), (ours, scaled)


def test_a_reference_without_a_face_takes_the_drivers_at_its_own_size():
    reference, driving = standing_person(800, 600), squatting(height=400)
    reference[kp.FACE, 2] = 0
    fitted = fit_limbs(driving, reference, fps=24)
    assert np.abs(face_of(fitted[0]) - face_of(driving[0])).max() < 0.02
    assert np.ptp(fitted[0, kp.FACE, 0]) == pytest.approx(np.ptp(driving[0, kp.FACE, 0]) * 2, rel=0.05)


def test_lengths_come_from_all_photos_of_the_person():
    """In the first photo the legs are hidden and the arms point at the camera; others show them, each at its own size."""
    person = with_bones(standing_person(600, 400), arms=1.2, legs=0.9)
    first = person.copy()
    first[11:23, 2] = 0
    for joint in (7, 8, 9, 10):
        root = 5 + (joint - 5) % 2
        first[joint, :2] = person[root, :2] + 0.3 * (person[joint, :2] - person[root, :2])
    photos = np.stack([first, person * [0.5, 0.5, 1], person * [1.7, 1.7, 1], person])
    fitted = bone_lengths(fit_limbs(squatting(), first, photos.astype(np.float32), fps=24)).max(0)
    wanted = bone_lengths(person[None])[0]
    assert fitted[:6] == pytest.approx(wanted[:6], rel=0.06)


def test_who_comes_near_grows_as_a_whole():
    driving = np.repeat(standing_person(400, 600)[None], 96, axis=0)
    driving[..., :2] = (driving[..., :2] - (300, 400)) * np.linspace(0.8, 1.2, 96)[:, None, None] + (300, 400)
    lengths = bone_lengths(fit_limbs(driving, with_bones(standing_person(300, 300), legs=1.1), fps=24))[:, :BODY_BONES]
    growth = lengths[-1] / lengths[0]
    assert growth.mean() > 1.46 and np.ptp(growth) < 0.04 * growth.mean()


def test_gaps_and_short_clips_do_no_harm():
    """Whatever is missing, places stay finite, scores of long gaps stay low, and nobody is thrown far out."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 40):
        for share in (0.1, 0.5):
            driving = squatting()[:count]
            driving[rng.random(driving.shape[:2]) < share] = np.nan
            fitted = fit_limbs(driving, standing_person(300, 300), standing_person(300, 300)[None], fps=24)
            assert np.isfinite(fitted).all()
            assert np.abs(fitted[fitted[..., 2] >= 0.3][:, :2] - 150).max() < 300


def test_too_little_to_go_by_is_said():
    driving, nobody = squatting(), standing_person(400, 600) * [1, 1, 0]
    with pytest.raises(UserError, match="the reference photo shows no person"):
        fit_limbs(driving, nobody)
    only_feet = standing_person(400, 600)
    only_feet[[*range(0, 15), *range(23, 133)], 2] = 0
    with pytest.raises(UserError, match="the reference photo shows too little of the person"):
        fit_limbs(driving, only_feet)
    with pytest.raises(UserError, match="the driving motion shows too little of a person"):
        fit_limbs(np.repeat(only_feet[None], 4, axis=0), standing_person(400, 600))
