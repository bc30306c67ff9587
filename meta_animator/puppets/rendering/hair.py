"""Hair: solid pieces around the head, cut open where the face is.

Head coordinates as in `face`. A piece is a shape and the rule for which of its points exist.
"""

from collections.abc import Callable

import numpy as np

from meta_animator.puppets.rendering.identity import Identity
from meta_animator.puppets.rendering.shapes import Shape, ellipsoid, round_cone

Piece = tuple[Shape, Callable[[np.ndarray], np.ndarray] | None]


def hair_pieces(identity: Identity) -> list[Piece]:
    """The pieces of the identity's hair style, in head coordinates (metres)."""
    size, style = identity.head_ratio * identity.height, identity.hair_style
    wide = 0.37 * identity.face.head_width
    line = 0.20 + 0.16 * (1 - identity.fringe)  # the hairline's height over the brow, in head heights

    def cap(low_side: float, low_back: float, line: float = line) -> Callable[[np.ndarray], np.ndarray]:
        def keep(q: np.ndarray) -> np.ndarray:
            x, y, z = (q / size).T
            sweep = line - 0.10 * identity.parting * x / wide - 0.35 * x * x
            front = y > np.maximum(sweep, low_side)
            side = (z < 0.13) & (y > np.where(z < -0.08, low_back, low_side))
            return np.where(z > 0.13, front, front | side)

        return keep

    def ball(centre: tuple, radii: tuple) -> Shape:
        return ellipsoid(np.array(centre) * size, tuple(r * size for r in radii))

    def strand(start: tuple, end: tuple, r0: float, r1: float, deep: float = 1.0) -> Shape:
        points = np.array(start) * size, np.array(end) * size
        return round_cone(*points, r0 * size, r1 * size, np.eye(3), (1.0, deep))

    shell = ball((0, 0.15, -0.055), (wide * 1.09, 0.40, 0.45))
    low = {"short": (-0.02, -0.25), "bob": (-0.32, -0.36), "long": (-0.30, -0.36), "mohawk": (0.9, 0.9)}
    pieces: list[Piece] = []
    if style == "curly":
        puffs = ball((0, 0.17, -0.07), (wide * 1.38, 0.47, 0.53))
        return [(puffs, cap(-0.16, -0.30))]
    if style not in ("bald", "mohawk"):
        pieces.append((shell, cap(*low.get(style, (0.02, -0.25)))))
    if style == "bob":
        for sign in (1, -1):
            pieces.append(
                (strand((sign * wide * 0.86, 0.05, -0.10), (sign * wide * 0.92, -0.36, -0.08), 0.15, 0.13), None)
            )
        pieces.append((strand((0, 0.0, -0.18), (0, -0.36, -0.20), 0.33, 0.30, 0.7), None))
    elif style == "long":
        for sign in (1, -1):
            strip = strand((sign * wide * 0.86, 0.05, -0.10), (sign * wide * 1.05, -0.72, -0.02), 0.15, 0.10)
            pieces.append((strip, None))
        pieces.append((strand((0, 0.0, -0.20), (0, -0.85, -0.32), 0.33, 0.30, 0.55), None))
    elif style == "ponytail":
        pieces.append((ball((0, 0.26, -0.52), (0.13, 0.13, 0.13)), None))
        pieces.append((strand((0, 0.24, -0.58), (0.10 * np.sign(identity.parting), -0.55, -0.52), 0.13, 0.07), None))
    elif style == "bun":
        pieces.append((ball((0, 0.55, -0.20), (0.19, 0.17, 0.19)), None))
    elif style == "mohawk":
        pieces.append((ball((0, 0.24, -0.06), (0.10, 0.42, 0.46)), cap(-0.02, -0.2, 0.25)))
    return pieces
