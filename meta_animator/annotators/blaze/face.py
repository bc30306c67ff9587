"""BlazeFace and FaceMesh: 468 points of a face, found from the head of a pose; and what of a head is turned away."""

import dataclasses
import math

import numpy as np

from meta_animator.annotators.blaze import pose as blaze_pose
from meta_animator.annotators.blaze.boxes import BoxNetwork
from meta_animator.annotators.blaze.networks import Network, sigmoid
from meta_animator.annotators.blaze.pose import HEAD, LEFT_EYE, RIGHT_EYE, Pose
from meta_animator.annotators.blaze.regions import around, turn

DETECTOR_SIZE, DETECTOR_STRIDES, DETECTOR_POINTS = 128, (8, 16, 16, 16), 6
SIZE, POINTS = 192, 468
NOSE, LEFT_SIDE, RIGHT_SIDE = 1, 454, 234  # of the mesh
LEAST = 0.5  # of the detector's score and of the mesh's presence
HEAD_SCALE, FACE_SCALE, FACE_SHIFT = 3.0, 2.0, -0.1
NOSE_GAP = 0.15  # of the pose's radius: a face whose nose is farther from the pose's is another person's

# How far a head is turned, in degrees, by the depths of the ears. Those of a pose are too large, so that its angles are true
# only about 0, 90 and 180; those of a mesh are right.
AWAY, FAR_EYE, FAR_EAR, FAR_EAR_OF_MESH = 100.0, 87.0, 80.0, 45.0


@dataclasses.dataclass(frozen=True)
class FaceNetworks:
    detector: BoxNetwork
    mesh: Network


def face_detector(network: Network) -> BoxNetwork:
    return BoxNetwork(network, DETECTOR_SIZE, -1.0, DETECTOR_STRIDES, DETECTOR_POINTS)


def find_face(networks: FaceNetworks, image: np.ndarray, pose: Pose) -> np.ndarray | None:
    """The mesh's points (468, 3) in pixels, depth in the third; None where no face is seen, or the head is turned away."""
    if abs(yaw_of_pose(pose)) > AWAY:
        return None
    head = pose.points[HEAD, :2]
    region = around(head, turn(pose.points[RIGHT_EYE, :2], pose.points[LEFT_EYE, :2])).square(HEAD_SCALE)
    for found in networks.detector.find(image, region, LEAST):
        points = found.points  # the right eye, the left one, and others
        region = around(points, turn(points[0], points[1])).square(FACE_SCALE, FACE_SHIFT)
        raw, presence = networks.mesh(region.crop(image, SIZE))[:2]
        mesh = region.place(raw.reshape(POINTS, 3).astype(np.float64) / SIZE)
        gap = float(np.hypot(*(mesh[NOSE, :2] - pose.points[blaze_pose.NOSE, :2])))
        if sigmoid(presence.reshape(-1)[0]) >= LEAST and gap <= NOSE_GAP * pose.radius:
            return mesh
    return None


def yaw(left: np.ndarray, right: np.ndarray, angle: float = 0.0) -> float:
    """Degrees by which a head is turned: 0 towards the camera, +90 its right side to it, beyond 90 away. From x, y and depth of
    its left and right side; `angle` is by how much it is tilted in the picture."""
    x, y, depth = left[:3] - right[:3]
    return math.degrees(math.atan2(depth, x * math.cos(angle) + y * math.sin(angle)))


def yaw_of_pose(pose: Pose) -> float:
    return yaw(pose.points[blaze_pose.LEFT_EAR], pose.points[blaze_pose.RIGHT_EAR], pose.region.angle)


def hidden_of_head(pose: Pose, mesh: np.ndarray | None) -> set[int]:
    """Which of the pose's nose, eyes and ears the head itself hides. The network tells all, with certainty, from any side."""
    turned = yaw_of_pose(pose)
    if mesh is None and abs(turned) > AWAY:
        return {blaze_pose.NOSE, LEFT_EYE, RIGHT_EYE}
    if mesh is not None:
        turned = yaw(mesh[LEFT_SIDE], mesh[RIGHT_SIDE], pose.region.angle)
    left = turned > 0  # is the far side
    hidden = set()
    if abs(turned) > (FAR_EAR if mesh is None else FAR_EAR_OF_MESH):
        hidden.add(blaze_pose.LEFT_EAR if left else blaze_pose.RIGHT_EAR)
    if mesh is None and abs(turned) > FAR_EYE:
        hidden.add(LEFT_EYE if left else RIGHT_EYE)
    return hidden
