"""The light annotator of one person: keypoints and mask."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.blaze.face import FaceNetworks, face_detector, find_face
from meta_animator.annotators.blaze.hands import LEFT, RIGHT, HandNetworks, find_hand
from meta_animator.annotators.blaze.networks import load_network
from meta_animator.annotators.blaze.pose import Pose, find_pose, region_of
from meta_animator.annotators.blaze.wholebody import whole_body

PRESENT = 0.5
MASK = 0.5


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
        return [{} if person is None else self._annotate(frame, person) for frame, person in zip(frames, people, strict=True)]

    def _annotate(self, frame: np.ndarray, person: Detection) -> dict[str, np.ndarray]:
        pose = self._find_pose(frame, person)
        if pose is None:
            return {}
        hands = find_hand(self.hands, frame, pose, LEFT), find_hand(self.hands, frame, pose, RIGHT)
        face, size = find_face(self.face, frame, pose), frame.shape[:2]
        return {"keypoints": whole_body(pose, face, hands, size), "mask": pose.region.paste(pose.mask, size) > MASK}

    def _find_pose(self, frame: np.ndarray, person: Detection) -> Pose | None:
        pose = find_pose(self.pose, frame, region_of(person))
        return pose if pose.presence >= PRESENT else None
