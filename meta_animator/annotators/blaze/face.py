"""BlazeFace and FaceMesh: 468 points of a face, found from the head of a pose."""

import dataclasses

import numpy as np

from meta_animator.annotators.blaze.boxes import BoxNetwork
from meta_animator.annotators.blaze.networks import Network, sigmoid
from meta_animator.annotators.blaze.pose import HEAD, LEFT_EYE, RIGHT_EYE, Pose
from meta_animator.annotators.blaze.regions import around, turn

DETECTOR_SIZE, DETECTOR_STRIDES, DETECTOR_POINTS = 128, (8, 16, 16, 16), 6
SIZE, POINTS = 192, 468
LEAST = 0.5  # of the detector's score and of the mesh's presence
HEAD_SCALE, FACE_SCALE, FACE_SHIFT = 3.0, 2.0, -0.1


@dataclasses.dataclass(frozen=True)
class FaceNetworks:
    detector: BoxNetwork
    mesh: Network


def face_detector(network: Network) -> BoxNetwork:
    return BoxNetwork(network, DETECTOR_SIZE, -1.0, DETECTOR_STRIDES, DETECTOR_POINTS)


def find_face(networks: FaceNetworks, image: np.ndarray, pose: Pose) -> np.ndarray | None:
    """The mesh's points (468, 3) in pixels, depth in the third; None where no face is seen."""
    head = pose.points[HEAD, :2]
    region = around(head, turn(pose.points[RIGHT_EYE, :2], pose.points[LEFT_EYE, :2])).square(HEAD_SCALE)
    found = networks.detector.find(image, region, LEAST)
    if not found:
        return None
    points = found[0].points
    region = around(points, turn(points[0], points[1])).square(FACE_SCALE, FACE_SHIFT)
    raw, presence = networks.mesh(region.crop(image, SIZE))[:2]
    if sigmoid(float(presence.reshape(-1)[0])) < LEAST:
        return None
    return region.place(raw.reshape(POINTS, 3).astype(np.float64) / SIZE)
