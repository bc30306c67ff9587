"""Forward kinematics: identity and joint angles to joint positions and bone frames.

World: x to the image's right, y up, z towards the camera, metres, the floor at y = 0. A person at rest looks along +z,
so the person's left is +x. A bone's frame is a rotation (3, 3) whose columns are the bone's axes; limbs run along -y.
"""

import dataclasses

import numpy as np

from meta_animator.puppets.rendering.identity import Identity

SIDES = (("l", 1.0), ("r", -1.0))


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """`joints`: name to position (3,); `frames`: bone name to rotation (3, 3); `curl`: bend of a side's fingers."""

    joints: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]
    curl: dict[str, float]


def rotation(axis: str, angle: float) -> np.ndarray:
    """The right-handed rotation (3, 3) by `angle` radians about the axis "x", "y" or "z"."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


def solve(identity: Identity, pose: dict[str, float]) -> Skeleton:
    """Place the puppet so that its lower foot stands on the floor.

    With planted feet (1, else 0) they are flat and a fixed width apart, and x and z place the middle of the ankles.
    """
    height = identity.height
    joints: dict[str, np.ndarray] = {"pelvis": np.zeros(3)}
    frames = {"pelvis": rotation("y", pose["yaw"]) @ rotation("z", pose["pelvis_roll"])}
    _place_trunk(identity, pose, joints, frames)
    for side, sign in SIDES:
        _place_arm(identity, pose, side, sign, joints, frames)
        _place_leg(identity, pose, side, sign, joints, frames)
    sole = 0.022 * height
    lowest = min(joints[f"{name}_{side}"][1] for side, _ in SIDES for name in ("heel", "toe")) - sole
    curl = {side: pose[f"arm_curl_{side}"] for side, _ in SIDES}
    feet = pose["planted"] * 0.5 * (joints["ankle_l"] + joints["ankle_r"])
    shift = np.array([pose["x"] - feet[0], -lowest, pose["z"] - feet[2]])
    return Skeleton({name: point + shift for name, point in joints.items()}, frames, curl)


def _place_trunk(identity: Identity, pose: dict[str, float], joints: dict, frames: dict) -> None:
    height, head = identity.height, identity.head_ratio * identity.height
    bend = rotation("y", pose["chest_twist"]) @ rotation("z", -pose["chest_roll"]) @ rotation("x", pose["chest_pitch"])
    # the chest leans against the pelvis' roll, so that the shoulders stay about level
    frames["chest"] = frames["pelvis"] @ rotation("z", -pose["pelvis_roll"]) @ bend
    nod = rotation("y", pose["head_yaw"]) @ rotation("x", pose["head_pitch"]) @ rotation("z", pose["head_roll"])
    frames["head"] = frames["chest"] @ nod
    joints["waist"] = joints["pelvis"] + frames["pelvis"] @ (0, 0.085 * height, 0)
    trunk = height * (1 - identity.leg_ratio - 0.085 - 0.040) - head
    joints["neck"] = joints["waist"] + frames["chest"] @ (0, trunk, 0)
    joints["head"] = joints["neck"] + frames["head"] @ (0, 0.040 * height + 0.5 * head, 0.008 * height)


def _place_arm(identity: Identity, pose: dict, side: str, sign: float, joints: dict, frames: dict) -> None:
    height = identity.height
    angle = {name: pose[f"arm_{name}_{side}"] for name in ("raise", "swing", "twist", "elbow", "wrist", "turn")}
    upper = rotation("z", angle["raise"]) @ rotation("x", -angle["swing"]) @ rotation("y", angle["twist"])
    fore = upper @ rotation("x", -angle["elbow"])
    hand = fore @ rotation("x", angle["wrist"]) @ rotation("y", angle["turn"])
    flip = np.diag([sign, 1.0, 1.0])
    for name, local in (("upper_arm", upper), ("forearm", fore), ("hand", hand)):
        frames[f"{name}_{side}"] = frames["chest"] @ flip @ local @ flip
    lift = 0.02 * height * np.sin(np.clip(angle["raise"] - 0.6, 0, 1.5))
    joints[f"shoulder_{side}"] = joints["neck"] + frames["chest"] @ (
        sign * identity.shoulder_ratio * height, lift - 0.022 * height, 0)  # fmt: skip
    joints[f"elbow_{side}"] = joints[f"shoulder_{side}"] - 0.160 * height * frames[f"upper_arm_{side}"][:, 1]
    joints[f"wrist_{side}"] = joints[f"elbow_{side}"] - 0.140 * height * frames[f"forearm_{side}"][:, 1]


def _place_leg(identity: Identity, pose: dict, side: str, sign: float, joints: dict, frames: dict) -> None:
    height = identity.height
    bone = 0.5 * (identity.leg_ratio - 0.045) * height
    swing, spread, knee = (pose[f"leg_{name}_{side}"] for name in ("swing", "spread", "knee"))
    if pose["planted"]:
        spread = np.arcsin(2 * np.sin(spread) / (np.cos(swing) + np.cos(swing - knee)))
    thigh = rotation("z", spread) @ rotation("x", -swing)
    shin = thigh @ rotation("x", knee)
    foot = thigh @ rotation("x", swing - 0.2 * min(swing, 0.5)) @ rotation("y", 0.18)  # soles stay about level
    if pose["planted"]:
        foot = rotation("y", 0.18)
    flip = np.diag([sign, 1.0, 1.0])
    for name, local in (("thigh", thigh), ("shin", shin), ("foot", foot)):
        frames[f"{name}_{side}"] = frames["pelvis"] @ flip @ local @ flip
    joints[f"hip_{side}"] = joints["pelvis"] + frames["pelvis"] @ (sign * identity.hip_ratio * height, 0, 0)
    joints[f"knee_{side}"] = joints[f"hip_{side}"] - bone * frames[f"thigh_{side}"][:, 1]
    joints[f"ankle_{side}"] = joints[f"knee_{side}"] - bone * frames[f"shin_{side}"][:, 1]
    joints[f"heel_{side}"] = joints[f"ankle_{side}"] + frames[f"foot_{side}"] @ (0, -0.023 * height, -0.022 * height)
    joints[f"toe_{side}"] = joints[f"ankle_{side}"] + frames[f"foot_{side}"] @ (0, -0.023 * height, 0.085 * height)
