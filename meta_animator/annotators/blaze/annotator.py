"""The light annotator of one person: keypoints and mask."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.blaze.face import FaceNetworks, face_detector, find_face
from meta_animator.annotators.blaze.hands import HandNetworks, find_hands
from meta_animator.annotators.blaze.mask import find_mask
from meta_animator.annotators.blaze.networks import load_network
from meta_animator.annotators.blaze.pose import Pose, look_for, region_of
from meta_animator.annotators.blaze.wholebody import whole_body

INSIDE = 0.3  # share of the found person's box (or of the given one, if that is smaller) that both have


class Blaze(Annotator):
    """Pose, face, both hands and mask of a person, frame by frame."""

    name = "blaze"
    gives = ("keypoints", "mask")

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files   of pose_landmark_full, face_detection_short_range, face_landmark, hand_recrop and hand_landmark_full
        device  is not used: the networks are made for a CPU
        """
        networks = {name: load_network(path) for name, path in files.items()}
        self.pose = networks["pose_landmark_full"]
        self.face = FaceNetworks(face_detector(networks["face_detection_short_range"]), networks["face_landmark"])
        self.hands = HandNetworks(networks["hand_recrop"], networks["hand_landmark_full"])

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        pairs = zip(frames, people, strict=True)
        return [{} if person is None else self._annotate(frame, person) for frame, person in pairs]

    def _annotate(self, frame: np.ndarray, person: Detection) -> dict[str, np.ndarray]:
        pose = look_for(self.pose, frame, region_of(person))
        if pose is None or not is_of(pose, person):
            return {}
        size = frame.shape[:2]
        face, hands = find_face(self.face, frame, pose), find_hands(self.hands, frame, pose)
        return {"keypoints": whole_body(pose, face, hands, size), "mask": find_mask(pose, size, hands)}


def is_of(pose: Pose, person: Detection) -> bool:
    """Whether a pose is of the person who was asked for, and not of somebody near whom a box with nobody lies."""
    seen = pose.seen
    low, high = seen.min(0), seen.max(0)
    shared = np.clip(np.minimum(high, person.box[2:]) - np.maximum(low, person.box[:2]), 0, None).prod()
    smaller = min((high - low).prod(), (person.box[2:] - person.box[:2]).prod())
    return bool(shared >= INSIDE * smaller)
