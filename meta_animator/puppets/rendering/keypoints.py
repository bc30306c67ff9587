"""The 133 COCO-WholeBody keypoints of a puppet, in three dimensions.

Order: 0-16 body (COCO), 17-22 feet, 23-90 face (68 iBUG points), 91-111 left hand, 112-132 right hand.
Left is the person's left.
"""

import numpy as np

from meta_animator.puppets.rendering.body import hand_points
from meta_animator.puppets.rendering.face import face_landmarks, head_shapes
from meta_animator.puppets.rendering.identity import Identity
from meta_animator.puppets.rendering.skeleton import SIDES, Skeleton

BODY_JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# how far, in body heights, a keypoint may lie under the visible surface: joints lie inside the limbs, and detectors also find an
# elbow behind its own forearm or hand, a wrist behind its own hand
_DEPTHS = {"shoulder": 0.07, "elbow": 0.17, "wrist": 0.07, "hip": 0.12, "knee": 0.07, "ankle": 0.05}
_SURFACE, _FINGER, _FOOT, _EAR = 0.010, 0.02, 0.04, 0.03


def keypoints_3d(identity: Identity, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """World positions (133, 3) and how deep each may lie under the visible surface (133,), both in metres."""
    joints, frames = skeleton.joints, skeleton.frames
    landmarks = joints["head"] + face_landmarks(identity) @ frames["head"].T
    ears = [joints["head"] + frames["head"] @ shape.centre for shape in head_shapes(identity)[3:5]]
    eyes = [landmarks[42:48].mean(axis=0), landmarks[36:42].mean(axis=0)]
    points = [landmarks[30], *eyes, *ears]
    depths = [_SURFACE] * 3 + [_EAR] * 2
    for joint in BODY_JOINTS:
        points += [joints[f"{joint}_{side}"] for side, _ in SIDES]
        depths += [_DEPTHS[joint]] * 2
    size = identity.height
    for side, sign in SIDES:
        toe, frame = joints[f"toe_{side}"], frames[f"foot_{side}"]
        # the big toe is on the inner side
        points += [toe + frame @ (x * sign * size, 0.0, z * size) for x, z in ((-0.010, 0.010), (0.012, 0.004))]
        points.append(joints[f"heel_{side}"])
        depths += [_FOOT] * 3
    hands = [hand_points(identity, skeleton, side, sign) for side, sign in SIDES]
    points += [*landmarks, *hands[0], *hands[1]]
    depths += [_SURFACE] * 68 + [_FINGER] * 42
    return np.array(points), np.array(depths) * size
