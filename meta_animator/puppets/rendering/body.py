"""The solid body: identity and skeleton to painted primitives."""

import dataclasses
from collections.abc import Callable

import numpy as np

from meta_animator.data.layers import PARTS
from meta_animator.puppets.rendering.face import head_shapes, paint_face
from meta_animator.puppets.rendering.hair import hair_pieces
from meta_animator.puppets.rendering.identity import Colour, Garment, Identity
from meta_animator.puppets.rendering.shapes import Shape, ellipsoid, round_cone
from meta_animator.puppets.rendering.skeleton import SIDES, Skeleton

Paint = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Keep = Callable[[np.ndarray], np.ndarray]
HAND_LENGTH = 0.126  # of the body's height; larger than life, like the head: they are few pixels
FINGERS = ("thumb", "index", "middle", "ring", "little")


@dataclasses.dataclass(frozen=True)
class Primitive:
    """A shape in world coordinates and its texture.

    `paint` maps points q (n, 3) to colours (n, 3) in [0, 1] and part labels (n,); `keep` to the points (n,) that exist
    (the rest is cut away: sleeves and skirts are open). q is p - origin in the axes `frame`: it moves with the body.
    """

    shape: Shape
    frame: np.ndarray
    origin: np.ndarray
    paint: Paint
    keep: Keep | None = None

    def local(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) in the texture's coordinates."""
        return (points - self.origin) @ self.frame


def build(identity: Identity, skeleton: Skeleton) -> list[Primitive]:
    """All primitives of a puppet in world coordinates."""
    parts = _head(identity, skeleton) + _trunk(identity, skeleton)
    for side, sign in SIDES:
        parts += _arm(identity, skeleton, side) + _hand(identity, skeleton, side, sign) + _leg(identity, skeleton, side)
    return parts + _skirt(identity, skeleton)


def hand_points(identity: Identity, skeleton: Skeleton, side: str, sign: float) -> np.ndarray:
    """The 21 hand keypoints (21, 3) in world coordinates: wrist, then 4 from base to tip per finger."""
    size, curl = HAND_LENGTH * identity.height, skeleton.curl[side]
    points = [np.zeros(3)]
    for index, finger in enumerate(FINGERS):
        if finger == "thumb":
            base, direction, length = np.array([0, -0.12, 0.17]), np.array([-0.35 - 0.3 * curl, -0.75, 0.62]), 0.46
        else:
            spread = (0.0, 0.21, 0.07, -0.07, -0.20)[index]
            base = np.array([0, -0.50, spread])
            direction = np.array([-np.sin(curl), -np.cos(curl), 0.55 * spread * np.cos(curl)])
            length = (0.0, 0.44, 0.49, 0.45, 0.36)[index]
        direction = direction / np.linalg.norm(direction)
        points += [base + direction * length * step for step in (0.0, 0.4, 0.7, 1.0)]
    local = size * np.array(points) * (sign, 1.0, 1.0)
    return skeleton.joints[f"wrist_{side}"] + local @ skeleton.frames[f"hand_{side}"].T


def flat(colour: Colour | np.ndarray, part: str) -> Paint:
    """One colour, one label."""
    rgb, label = np.asarray(colour), PARTS.index(part)

    def paint(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(rgb, (len(q), 1)), np.full(len(q), label, dtype=np.uint8)

    return paint


def cloth(garment: Garment, part: str, middle: float = 0.0) -> Paint:
    """A garment's pattern on (x, y) of the texture coordinates; `middle` is the y of an emblem or colour change."""
    base, accent, label = np.asarray(garment.colour), np.asarray(garment.accent), PARTS.index(part)

    def paint(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = q[:, 0] / garment.scale, (q[:, 1] - middle) / garment.scale
        tile = np.stack([x, y]) - np.round(np.stack([x, y]))
        marks = {
            "plain": np.zeros(len(q)),
            "striped": tile[1] > 0.0,
            "pinstriped": np.abs(tile[0]) < 0.16,
            "checked": 0.5 * (tile[0] > 0) + 0.5 * (tile[1] > 0),
            "dotted": np.hypot(*tile) < 0.30,
            "two-tone": y < 0,
            "emblem": (np.hypot(x, y - 0.2) < 0.85) & (q[:, 2] > 0),
        }
        amount = marks[garment.pattern].astype(float)[:, None]
        return base + amount * (accent - base), np.full(len(q), label, dtype=np.uint8)

    return paint


def _head(identity: Identity, skeleton: Skeleton) -> list[Primitive]:
    frame, origin = skeleton.frames["head"], skeleton.joints["head"]

    def paint(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return paint_face(identity, q)

    skin = flat(identity.skin, "face_neck")
    shapes = [shape.moved(frame, origin) for shape in head_shapes(identity)]
    pieces = [Primitive(s, frame, origin, paint if i < 2 else skin) for i, s in enumerate(shapes)]

    def hair(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        streaks = np.sin(9 * np.arctan2(q[:, 0], q[:, 2] + 0.02) + 40 * q[:, 1] * identity.parting)
        return (1 + 0.10 * streaks[:, None]) * identity.hair, np.full(len(q), PARTS.index("hair"), dtype=np.uint8)

    for shape, keep in hair_pieces(identity):
        pieces.append(Primitive(shape.moved(frame, origin), frame, origin, hair, keep))
    radius = 0.033 * identity.height * identity.build**0.5
    neck = round_cone(skeleton.joints["neck"], origin - frame @ (0, 0.02, 0.02), radius * 1.1, radius)
    return [*pieces, Primitive(neck, skeleton.frames["chest"], skeleton.joints["neck"], skin)]


def _trunk(identity: Identity, skeleton: Skeleton) -> list[Primitive]:
    height, build, joints, frames = identity.height, identity.build, skeleton.joints, skeleton.frames
    chest, waist, neck = frames["chest"], joints["waist"], joints["neck"]
    tall = float(np.linalg.norm(neck - waist))
    shoulder = identity.shoulder_ratio * height
    top_radius, waist_radius = shoulder * 0.92 + 0.01 * build, 0.080 * height * build
    top_paint = cloth(identity.top, "upper_clothing", 0.55 * tall)
    neck_y, neck_w = tall - (0.028 + 0.028 * identity.neckline) * height, 0.045 * height

    def shirt(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        colour, parts = top_paint(q)
        open_ = (q[:, 2] > 0) & (q[:, 1] - neck_y > 0.9 * np.abs(q[:, 0])) & (np.abs(q[:, 0]) < neck_w)
        open_ |= (q[:, 1] > tall + 0.008 * height) & (np.abs(q[:, 0]) < 0.052 * height)
        colour[open_], parts[open_] = identity.skin, PARTS.index("torso")
        return colour, parts

    upper_end = neck - chest @ (0, 0.062 * height, 0)
    upper = round_cone(waist, upper_end, waist_radius, top_radius, chest, (0.55, 0.66))
    pieces = [Primitive(upper, chest, waist, shirt)]
    for side, sign in SIDES:
        root = neck + chest @ (sign * 0.022 * height, -0.002 * height, -0.006 * height)
        slope = round_cone(root, joints[f"shoulder_{side}"], 0.030 * height, 0.0345 * height)
        pieces.append(Primitive(slope, chest, waist, shirt))
    below = cloth(identity.bottom, "upper_clothing" if identity.bottom_kind == "dress" else "lower_clothing")
    hem = (0.022 + 0.03 * identity.neckline) * height

    def hips(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (colour, parts), (shirt_colour, shirt_parts) = below(q), top_paint(q - (0, 0.085 * height, 0))
        over = q[:, 1] > hem
        return np.where(over[:, None], shirt_colour, colour), np.where(over, shirt_parts, parts)

    hip = identity.hip_ratio * height + 0.043 * height * build
    base = joints["pelvis"] + frames["pelvis"] @ (0, 0.014 * height, -0.006 * height)
    pelvis = round_cone(base, waist, hip, waist_radius * 0.99, frames["pelvis"], (0.5, 0.60))
    return [*pieces, Primitive(pelvis, frames["pelvis"], joints["pelvis"], hips)]


def _cover(shape: Shape, frame: np.ndarray, origin: np.ndarray, paint: Paint, end: float) -> Primitive:
    """An open tube of cloth around a limb, cut at `end` metres down the limb."""
    return Primitive(shape, frame, origin, paint, lambda q: q[:, 1] > -end)


def _without_emblem(garment: Garment) -> Garment:
    return dataclasses.replace(garment, pattern="plain") if garment.pattern == "emblem" else garment


def _arm(identity: Identity, skeleton: Skeleton, side: str) -> list[Primitive]:
    name = {"l": "left", "r": "right"}[side]
    size = identity.height * identity.build**0.6
    shoulder, elbow, wrist = (skeleton.joints[f"{joint}_{side}"] for joint in ("shoulder", "elbow", "wrist"))
    upper, fore = skeleton.frames[f"upper_arm_{side}"], skeleton.frames[f"forearm_{side}"]
    sleeve = cloth(_without_emblem(identity.top), "upper_clothing")
    long = identity.sleeves == "long-sleeved"
    upper_paint = sleeve if long else flat(identity.skin, f"{name}_upper_arm")
    fore_paint = sleeve if long else flat(identity.skin, f"{name}_lower_arm")
    grow = 1.18 if long else 1.0
    upper_shape = round_cone(shoulder, elbow, 0.034 * size * grow, 0.026 * size * grow)
    fore_shape = round_cone(elbow, wrist, 0.0255 * size * grow, 0.0195 * size * grow)
    pieces = [Primitive(upper_shape, upper, shoulder, upper_paint), Primitive(fore_shape, fore, elbow, fore_paint)]
    if identity.sleeves == "short-sleeved":
        tube = round_cone(shoulder, elbow, 0.0375 * size, 0.036 * size)
        pieces.append(_cover(tube, upper, shoulder, sleeve, 0.095 * identity.height))
    return pieces


def _hand(identity: Identity, skeleton: Skeleton, side: str, sign: float) -> list[Primitive]:
    frame, wrist = skeleton.frames[f"hand_{side}"], skeleton.joints[f"wrist_{side}"]
    size = HAND_LENGTH * identity.height
    skin = flat(identity.skin, {"l": "left_hand", "r": "right_hand"}[side])
    palm = ellipsoid(wrist + frame @ (0, -0.27 * size, 0.01 * size), (0.11 * size, 0.32 * size, 0.25 * size), frame)
    points = hand_points(identity, skeleton, side, sign)
    shapes = [palm]
    for index in range(5):
        thick = (0.085, 0.072, 0.075, 0.072, 0.062)[index] * size
        shapes.append(round_cone(points[1 + 4 * index], points[4 + 4 * index], thick, thick * 0.82))
    return [Primitive(shape, frame, wrist, skin) for shape in shapes]


def _leg(identity: Identity, skeleton: Skeleton, side: str) -> list[Primitive]:
    name = {"l": "left", "r": "right"}[side]
    height, size = identity.height, identity.height * identity.build**0.6
    hip, knee, ankle = (skeleton.joints[f"{joint}_{side}"] for joint in ("hip", "knee", "ankle"))
    thigh, shin, foot = (skeleton.frames[f"{bone}_{side}"] for bone in ("thigh", "shin", "foot"))
    trousers = identity.bottom_kind == "trousers"
    paint = cloth(identity.bottom, "lower_clothing")
    grow = 1.1 if trousers else 1.0
    upper = round_cone(hip, knee, 0.054 * size * grow, 0.037 * size * grow)
    lower = round_cone(knee, ankle, 0.0363 * size * grow, 0.026 * size * (1.25 if trousers else 1.0))
    bone = float(np.linalg.norm(ankle - knee))
    skin, sock = np.array(identity.skin), np.array(identity.sock)

    def bare_shin(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        in_sock = q[:, 1] < -0.78 * bone
        parts = np.where(in_sock, PARTS.index(f"{name}_sock"), PARTS.index(f"{name}_lower_leg")).astype(np.uint8)
        return np.where(in_sock[:, None], sock, skin), parts

    pieces = [
        Primitive(upper, thigh, hip, paint if trousers else flat(skin, f"{name}_upper_leg")),
        Primitive(lower, shin, knee, paint if trousers else bare_shin),
    ]
    if identity.bottom_kind == "shorts":
        tube = round_cone(hip, knee, 0.060 * size, 0.052 * size)
        pieces.append(_cover(tube, thigh, hip, paint, bone * (0.4 + 0.5 * identity.bottom_length)))
    sole = np.array(identity.shoe) * 0.5 + 0.42

    def shoe(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = q[:, 1] < -0.034 * height
        colour = np.where(low[:, None], sole, np.array(identity.shoe))
        return colour, np.full(len(q), PARTS.index(f"{name}_shoe"), dtype=np.uint8)

    heel, toe = skeleton.joints[f"heel_{side}"], skeleton.joints[f"toe_{side}"]
    tip = toe + foot @ (0, 0.002 * height, 0)
    shape = round_cone(heel + foot @ (0, 0.006 * height, 0), tip, 0.030 * height, 0.025 * height)
    return [*pieces, Primitive(shape, foot, ankle, shoe)]


def _skirt(identity: Identity, skeleton: Skeleton) -> list[Primitive]:
    if identity.bottom_kind not in ("skirt", "dress"):
        return []
    height, joints, frame = identity.height, skeleton.joints, skeleton.frames["pelvis"]
    knees = 0.5 * (joints["knee_l"] + joints["knee_r"])
    apart = float(np.linalg.norm(joints["knee_l"] - joints["knee_r"]))
    thighs = knees - joints["pelvis"]
    sitting = max(float(thighs @ frame[:, 2]) / float(np.linalg.norm(thighs)) - 0.6, 0.0)  # cloth lies on the thighs
    start = joints["pelvis"] + frame @ (0, (0.05 - 0.13 * sitting) * height, 0)
    hip = identity.hip_ratio * height + 0.044 * height * identity.build
    dress = identity.bottom_kind == "dress"
    hem = (hip * 1.2 + 0.32 * apart) * (1.0 - 0.7 * sitting)
    reach = float(np.linalg.norm(knees - start))
    waist, deep = hip * (0.95 + 0.7 * sitting), 0.8 - 0.45 * sitting
    shape = round_cone(start, knees, waist, min(hem, hip + 0.7 * reach), frame, (1.0, deep))
    axis = (knees - start) / reach
    end = reach * (0.62 + 0.36 * identity.bottom_length)
    paint = cloth(identity.bottom, "upper_clothing" if dress else "lower_clothing")

    def keep(q: np.ndarray) -> np.ndarray:
        return q @ (frame.T @ axis) < end

    return [Primitive(shape, frame, start, paint, keep)]
