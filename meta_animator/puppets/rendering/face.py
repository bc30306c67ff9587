"""The puppet's face: the head's solid shapes, what is painted on them, and where the 68 landmarks lie.

Head coordinates q: metres from the head's middle, x to the person's left, y up, z forward. Face coordinates:
u = x / (half width), v = y / (half height); v = -1 is the chin, v = 1 the crown.
"""

import numpy as np

from meta_animator.data.layers import PARTS
from meta_animator.puppets.rendering.identity import Face, Identity
from meta_animator.puppets.rendering.shapes import Shape, ellipsoid, round_cone

HALF_WIDTH = 0.37  # of the head's height


def head_shapes(identity: Identity) -> list[Shape]:
    """Cranium, jaw, nose and two ears in head coordinates."""
    size, face = identity.head_ratio * identity.height, identity.face
    wide, jaw = HALF_WIDTH * face.head_width, 0.185 * face.jaw_width
    nose_y, nose = 0.5 * face.nose_height, 0.042 * face.nose_size
    plan = [
        ellipsoid((0, 0.14, -0.045), (wide, 0.36, 0.41)),
        round_cone((0, -0.02, 0.04), (0, -0.5 + jaw * 0.86, 0.115), wide * 0.93, jaw),
        round_cone((0, 0.5 * face.eye_height, 0.335), (0, nose_y, 0.355 + nose), 0.026, nose),
        *(ellipsoid((s * (wide + 0.005), -0.04, -0.05), (0.035, 0.085, 0.055)) for s in (1, -1)),
    ]
    return [Shape(size * shape.centre, size * shape.matrix, shape.length, shape.r0, shape.r1) for shape in plan]


def paint_face(identity: Identity, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) in [0, 1] and part labels (n,) of points q (n, 3) on the head."""
    face = identity.face
    u, v = _face_coordinates(identity, q)
    front = q[:, 2] > 0
    colour = np.tile(np.array(identity.skin), (len(q), 1))
    parts = np.full(len(q), PARTS.index("face_neck"), dtype=np.uint8)

    def put(where: np.ndarray, rgb: tuple | np.ndarray, alpha: float = 1.0, part: str = "") -> None:
        where = where & front
        colour[where] += alpha * (np.asarray(rgb) - colour[where])
        if part:
            parts[where] = PARTS.index(part)

    side = np.abs(u)
    red = np.array(identity.skin) * (1.0, 0.66, 0.62)
    put((side - 0.6) ** 2 + ((v + 0.38) / 0.62) ** 2 < 0.05, red, face.blush)
    _paint_beard(identity, put, u, v)
    mouth, bend = _mouth(face, u)
    lip = face.lip_thickness
    upper, lower = (v >= mouth) & (v < mouth + lip * 1.2 * bend), (v < mouth) & (v > mouth - lip * 1.5 * bend)
    put(upper, np.array(face.lip_colour) * 0.88, part="upper_lip")
    put(lower, face.lip_colour, part="lower_lip")
    put((np.abs(v - mouth) < 0.022) & (bend > 0.0), np.array(face.lip_colour) * 0.42)
    put((side < 0.13 * face.nose_size) & (np.abs(v - face.nose_height + 0.09) < 0.03), np.array(identity.skin) * 0.66)
    _paint_eyes(identity, put, u, v)
    return colour, parts


def _paint_eyes(identity: Identity, put, u: np.ndarray, v: np.ndarray) -> None:
    face = identity.face
    half, tall = face.eye_size, 0.52 * face.eye_size
    along, up = np.abs(u) - face.eye_spacing, v - face.eye_height  # both eyes at once, outwards and upwards
    up = up - face.eye_slant * along
    lid = 1.0 - (along / half) ** 2
    put((lid > 0) & (np.abs(up) < tall * np.sqrt(np.maximum(lid, 0))), (0.97, 0.97, 0.96))
    inside = (lid > 0) & (np.abs(up) < tall * np.sqrt(np.maximum(lid, 0)))
    distance = np.hypot(along / 0.72, up)  # u units are shorter than v units
    put(inside & (distance < 0.15), face.eye_colour)
    put(inside & (distance < 0.07), (0.03, 0.03, 0.03))
    put((np.hypot((along + 0.03) / 0.72, up - 0.05) < 0.035) & inside, (1.0, 1.0, 1.0))
    rim = tall * np.sqrt(np.maximum(lid, 0))
    put((lid > -0.25) & (up > rim - 0.012) & (up < rim + 0.042), (0.08, 0.05, 0.05))
    brow = face.brow_height + face.brow_angle * along - 0.5 * along**2
    dark = 0.6 * np.array(identity.hair) if identity.hair_style != "bald" else np.array((0.16, 0.11, 0.09))
    put((np.abs(up - brow) < face.brow_thickness) & (np.abs(along) < half * 1.12), dark)
    if face.glasses != "none":
        frame = (half * 1.42, half * 1.05)
        power = 2 if face.glasses == "round" else 6
        ring = (np.abs(along / frame[0]) ** power + np.abs((v - face.eye_height) / frame[1]) ** power) ** (1 / power)
        put(ring < 0.95, (0.85, 0.92, 0.98), 0.12)
        put((ring > 0.86) & (ring < 1.06), face.glasses_colour)
        bridge = (np.abs(along + face.eye_spacing) < face.eye_spacing - frame[0]) | (along > frame[0])
        put(bridge & (np.abs(v - face.eye_height - 0.03) < 0.035), face.glasses_colour)


def _paint_beard(identity: Identity, put, u: np.ndarray, v: np.ndarray) -> None:
    face = identity.face
    dark = 0.8 * np.array(identity.hair) if identity.hair_style != "bald" else np.array((0.16, 0.11, 0.09))
    mouth, _ = _mouth(face, u)
    under_nose = (np.abs(u) < face.mouth_width * 1.15) & (v > mouth) & (v < face.nose_height - 0.10)
    if face.beard == "moustache":
        put(under_nose, dark)
    elif face.beard != "none":
        edge = -0.50 + 0.75 * np.maximum(np.abs(u) - 0.45, 0)
        put(under_nose | (v < edge), dark, 0.35 if face.beard == "stubble" else 0.95)


def _mouth(face: Face, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The height v of the line between the lips at u, and the lips' relative thickness there (0 outside)."""
    bend = np.maximum(1 - (u / face.mouth_width) ** 2, 0)
    return face.mouth_height + 0.11 * face.smile * (1 - bend) - 0.04 * face.smile, np.sqrt(bend)


def _face_coordinates(identity: Identity, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = identity.head_ratio * identity.height
    return q[:, 0] / (HALF_WIDTH * identity.face.head_width * size), q[:, 1] / (0.5 * size)


def face_landmarks(identity: Identity) -> np.ndarray:
    """The 68 iBUG landmarks (68, 3) in head coordinates, on the painted features; index 0 is on the right cheek."""
    face = identity.face
    points: list[tuple[float, float]] = _jaw_line(identity)
    eye, half, tall = face.eye_spacing, face.eye_size, 0.52 * face.eye_size
    for sign in (-1, 1):  # brows: the person's right, then left; both run from image left to image right
        for along in np.linspace(-half, half, 5):
            along_out = sign * along
            brow = face.brow_height + face.brow_angle * along_out - 0.5 * along_out**2 + face.eye_slant * along_out
            points.append((sign * eye + along, face.eye_height + brow))
    bridge = np.linspace(face.eye_height + 0.02, face.nose_height, 4)
    points += [(0.0, v) for v in bridge]
    points += [(u * 0.18 * face.nose_size, face.nose_height - 0.10 - 0.02 * (u == 0)) for u in (-1, -0.5, 0, 0.5, 1)]
    for sign in (-1, 1):
        steps = [(-1, 0), (-0.4, 1), (0.4, 1), (1, 0), (0.4, -1), (-0.4, -1)]
        for along, up in steps:
            out = sign * along * half
            height = up * tall * np.sqrt(1 - along**2) + face.eye_slant * out
            points.append((sign * eye + along * half, face.eye_height + height))
    return _on_surface(identity, np.array(points + _mouth_points(face)))


def _jaw_line(identity: Identity) -> list[tuple[float, float]]:
    """17 points a little inside the frontal outline of cranium and jaw, right ear to left ear."""
    size = identity.head_ratio * identity.height
    angles = np.linspace(-0.5 * np.pi - 0.05, 0.5 * np.pi + 0.05, 17)
    rays = np.stack([np.sin(angles), -np.cos(angles), np.zeros(17)], axis=1)
    middle, reach = np.array([0.0, -0.05 * size, 0.0]), np.zeros(17)
    for shape in head_shapes(identity)[:2]:  # the widest slice through the shapes' front half
        for z in np.linspace(-0.05, 0.10, 4) * size:
            out = shape.leave(middle + np.array((0.0, 0.0, z)) - 5 * rays, rays) - 5
            reach = np.maximum(reach, np.where(np.isfinite(out), out, 0.0))
    u, v = _face_coordinates(identity, middle + 0.93 * reach[:, None] * rays)
    return list(zip(u.tolist(), v.tolist(), strict=True))


def _mouth_points(face: Face) -> list[tuple[float, float]]:
    def row(us: list[float], lift: float) -> list[tuple[float, float]]:
        u = np.array(us) * face.mouth_width
        middle, bend = _mouth(face, u)
        return list(zip(u.tolist(), (middle + lift * bend).tolist(), strict=True))

    lip, inner = face.lip_thickness, [-0.5, 0.0, 0.5]
    outer = [-0.66, -0.33, 0.0, 0.33, 0.66]
    points = row([-1], 0) + row(outer, 1.2 * lip) + row([1], 0) + row(outer[::-1], -1.5 * lip)
    return points + row([-0.85], 0) + row(inner, 0.02) + row([0.85], 0) + row(inner[::-1], -0.02)


def _on_surface(identity: Identity, uv: np.ndarray) -> np.ndarray:
    """Lift face coordinates (n, 2) onto the front of the head: (n, 3) in head coordinates."""
    size = identity.head_ratio * identity.height
    flat = uv * (HALF_WIDTH * identity.face.head_width * size, 0.5 * size)
    start = np.concatenate([flat, np.full((len(flat), 1), 2.0)], axis=1)
    rays = np.tile([0.0, 0.0, -1.0], (len(flat), 1))
    near = np.min([shape.enter(start, rays) for shape in head_shapes(identity)], axis=0)
    start[:, 2] = np.where(np.isfinite(near), 2.0 - near, 0.0)
    return start
