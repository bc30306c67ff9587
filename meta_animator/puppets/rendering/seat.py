"""What a sitting motion sits on: a solid thing of the scene, no part of the person."""

import dataclasses

import numpy as np

from meta_animator.puppets.rendering.body import Primitive, flat
from meta_animator.puppets.rendering.identity import CLOTH_COLOURS, Colour, Identity
from meta_animator.puppets.rendering.motion import Motion
from meta_animator.puppets.rendering.shapes import Shape, ellipsoid, round_cone
from meta_animator.puppets.rendering.skeleton import solve
from meta_animator.puppets.rendering.streams import stream

Piece = tuple[Shape, Colour]
_WOOD: tuple[Colour, ...] = ((0.36, 0.25, 0.16), (0.62, 0.45, 0.28), (0.16, 0.15, 0.16))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seat:
    """A "stool" with a round top on four legs, or a "pouf"; `radius` in metres."""

    kind: str
    radius: float
    colour: Colour
    wood: Colour


def make_seat(seed: int) -> Seat:
    """Draw a seat for the scene of this seed."""
    rng = stream(seed, "seat")
    return Seat(
        kind=str(rng.choice(["stool", "pouf"], p=(0.6, 0.4))),
        radius=rng.uniform(0.17, 0.21),
        colour=CLOTH_COLOURS[str(rng.choice(list(CLOTH_COLOURS)))],
        wood=_WOOD[rng.integers(len(_WOOD))],
    )


def build_seat(seat: Seat, identity: Identity, motion: Motion) -> list[Primitive]:
    """The seat's primitives in world coordinates, under the person where the motion is down; none unless it sits."""
    if motion.kind != "sit":
        return []
    skeleton = solve(identity, motion.at(np.pi))
    forward = skeleton.frames["pelvis"][:, 2]
    x, hip, z = skeleton.joints["pelvis"] + 0.04 * forward
    top = hip - 0.047 * identity.height * identity.build**0.6
    shapes = _pouf(seat, top) if seat.kind == "pouf" else _stool(seat, top)
    place = np.array([x, 0.0, z])
    return [Primitive(shape.moved(np.eye(3), place), np.eye(3), place, flat(colour, "background")) for shape, colour in shapes]


def _pouf(seat: Seat, top: float) -> list[Piece]:
    low, high = np.array([0, 0.3 * top, 0]), np.array([0, 0.7 * top, 0])
    radius = 1.15 * seat.radius
    return [(round_cone(low, high, radius, radius, np.eye(3), (0.3 * top / radius, 1.0)), seat.colour)]


def _stool(seat: Seat, top: float) -> list[Piece]:
    radius, thick = seat.radius, 0.035
    pieces = [(ellipsoid((0, top - thick, 0), (radius, thick, radius)), seat.colour)]
    for turn in np.pi * (0.25 + 0.5 * np.arange(4)):
        out = np.array([np.sin(turn), 0.0, np.cos(turn)])
        foot, head = 0.95 * radius * out + (0, 0.01, 0), 0.6 * radius * out + (0, top - 1.5 * thick, 0)
        pieces.append((round_cone(foot, head, 0.017, 0.020), seat.wood))
    return pieces
