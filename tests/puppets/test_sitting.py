"""Sitting: planted feet, joints within limits, and a seat that belongs to the scene."""

import dataclasses

import numpy as np
import pytest

from meta_animator.data.layers import Layers
from meta_animator.puppets.rendering import Camera, Identity, Motion, make_identity, make_motion, make_scene, render
from meta_animator.puppets.rendering.motion import Track
from meta_animator.puppets.rendering.seat import build_seat
from meta_animator.puppets.rendering.skeleton import Skeleton, solve

CAMERA = Camera(head_fraction=0.15, headroom=0.06, distance=4.0, pitch=0.05, offset=0.0)
SEEDS = range(6)


def period(identity: Identity, motion: Motion, steps: int = 24) -> list[Skeleton]:
    return [solve(identity, motion.pose(k * motion.period / steps)) for k in range(steps)]


def down(motion: Motion) -> float:
    """A time at which the person sits."""
    return float(np.mod(np.pi - motion.start, 2 * np.pi)) * motion.period / (2 * np.pi)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_feet_stay_where_they_are(seed: int):
    skeletons = period(make_identity(seed), make_motion(seed, "sit"))
    for joint in ("ankle_l", "ankle_r", "heel_l", "toe_r"):
        places = np.array([skeleton.joints[joint] for skeleton in skeletons])
        assert np.ptp(places, axis=0).max() < 0.01
    assert skeletons[0].joints["ankle_l"][1] == pytest.approx(skeletons[0].joints["ankle_r"][1])


@pytest.mark.parametrize("seed", SEEDS)
def test_hips_go_down_to_the_height_of_the_knees_and_up_again(seed: int):
    identity, motion = make_identity(seed), make_motion(seed, "sit")
    for time in np.linspace(0, motion.period, 24):
        pose = motion.pose(time)
        for side in "lr":
            assert 0 <= pose[f"leg_knee_{side}"] < 1.8 and -0.1 < pose[f"leg_swing_{side}"] < 1.7
            assert abs(pose[f"leg_swing_{side}"] - pose[f"leg_knee_{side}"]) < 0.4  # shins stay about upright
    above = [s.joints["pelvis"][1] - s.joints["knee_l"][1] for s in period(identity, motion)]
    assert min(above) < 0.08 and max(above) > 0.19 * identity.height


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seat_is_under_the_person_and_stays(seed: int):
    identity, motion, seat = make_identity(seed), make_motion(seed, "sit"), make_scene(seed).seat
    pieces = build_seat(seat, identity, motion)
    corners = np.concatenate([piece.shape.boxes() for piece in pieces])
    pelvis = solve(identity, motion.pose(down(motion))).joints["pelvis"]
    assert (corners.min(axis=0) < pelvis)[[0, 2]].all() and (corners.max(axis=0) > pelvis)[[0, 2]].all()
    assert 0.02 < pelvis[1] - corners[:, 1].max() < 0.13 and corners[:, 1].min() > -0.02
    assert not build_seat(seat, identity, make_motion(seed, "walk"))


def seen(seed: int, yaw: float, without_seat: bool = False) -> Layers:
    """A sitting person turned by `yaw`, on the seat or in the air."""
    motion = make_motion(seed, "sit")
    motion = dataclasses.replace(motion, tracks=motion.tracks | {"yaw": Track(yaw)})
    if without_seat:
        motion = dataclasses.replace(motion, kind="none")
    return render(make_identity(seed), motion, make_scene(seed), CAMERA, down(motion))


def test_the_seat_is_visible_but_not_part_of_the_person():
    with_seat, without = seen(0, 1.2), seen(0, 1.2, without_seat=True)
    changed = (with_seat.frame != without.frame).any(axis=2)
    assert (changed & ~with_seat.mask).sum() > 60
    assert not (with_seat.mask & ~without.mask).any()
    for layer in (with_seat.parts, with_seat.depth, with_seat.normal):
        assert not layer[~with_seat.mask].any()


def test_the_seat_covers_a_person_seen_from_behind():
    with_seat, without = seen(2, np.pi), seen(2, np.pi, without_seat=True)
    covered = without.mask & ~with_seat.mask
    assert covered.sum() > 60
    assert np.array_equal(with_seat.parts[with_seat.mask], without.parts[with_seat.mask])
    hidden = (without.keypoints[:, 2] > 0) & (with_seat.keypoints[:, 2] == 0)
    assert hidden.any()
    x, y = np.round(with_seat.keypoints[with_seat.keypoints[:, 2] > 0, :2]).astype(int).T
    assert not covered[y, x].any()


def test_motions_that_are_drawn_by_seed_alone_are_those_on_foot():
    kinds = [make_motion(seed).kind for seed in range(12)]
    assert kinds == [
        "dance", "wave", "turn", "turn", "dance", "walk", "dance", "walk", "dance", "wave", "dance", "walk",
    ]  # fmt: skip
