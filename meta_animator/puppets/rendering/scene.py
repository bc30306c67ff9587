"""Where a puppet stands: a floor, a wall or a sky, a few large props, and one light."""

import dataclasses

import numpy as np

from meta_animator.puppets.rendering.camera import View
from meta_animator.puppets.rendering.identity import CLOTH_COLOURS, Colour
from meta_animator.puppets.rendering.seat import Seat, make_seat
from meta_animator.puppets.rendering.streams import stream

WALLS: dict[str, Colour] = {
    "white": (0.88, 0.87, 0.84), "yellow": (0.90, 0.80, 0.50), "blue": (0.52, 0.66, 0.82), "green": (0.58, 0.74, 0.58),
    "pink": (0.88, 0.68, 0.70), "grey": (0.62, 0.63, 0.65), "brown": (0.60, 0.47, 0.37), "purple": (0.60, 0.52, 0.72),
}  # fmt: skip
PLACES: dict[str, tuple[Colour, Colour, Colour]] = {  # ground, sky at the horizon, sky above
    "in a green park": ((0.36, 0.58, 0.26), (0.80, 0.89, 0.95), (0.42, 0.65, 0.90)),
    "on a sandy beach": ((0.87, 0.78, 0.58), (0.86, 0.92, 0.94), (0.40, 0.70, 0.90)),
    "on a city street": ((0.50, 0.50, 0.52), (0.85, 0.86, 0.88), (0.62, 0.72, 0.84)),
    "in a field at sunset": ((0.50, 0.46, 0.24), (0.97, 0.74, 0.48), (0.62, 0.48, 0.66)),
}


@dataclasses.dataclass(frozen=True)
class Prop:
    """An upright picture on the back plane: `kind`, middle x and base y, width and height in metres, colours."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    colour: Colour
    accent: Colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A place. `back` is the distance behind the person of the wall or of the outdoor props, in metres.

    `light` is the unit direction to the light. The `seat` is only there for motions that sit.
    """

    place: str
    indoor: bool
    wall: Colour
    wall_top: Colour
    floor: Colour
    texture: tuple[float, ...]
    back: float
    props: tuple[Prop, ...]
    seat: Seat
    light: tuple[float, float, float]
    ambient: float

    def describe(self) -> str:
        """The place in a few words, e.g. "in a green park"."""
        return self.place


@dataclasses.dataclass(frozen=True)
class Backdrop:
    """The empty scene through a view: colour (h, w, 3) in [0, 1] and points (h, w, 3) on floor or wall (inf: neither).

    Points are world coordinates in metres.
    """

    colour: np.ndarray
    points: np.ndarray


def make_scene(seed: int) -> Scene:
    """Draw a scene: indoor or outdoor, colours, texture, props and light."""
    rng = stream(seed, "scene")
    indoor = bool(rng.random() < 0.55)
    side = rng.choice([-1, 1])
    light = np.array([side * rng.uniform(0.25, 0.8), rng.uniform(0.45, 0.9), rng.uniform(0.6, 1.0)])
    light /= np.linalg.norm(light)
    jitter = rng.uniform(-0.04, 0.04, (3, 3))
    if indoor:
        name = str(rng.choice(list(WALLS)))
        wall, floor = np.array(WALLS[name]), np.array((0.50, 0.36, 0.24)) * rng.uniform(0.7, 1.4)
        place, top, kinds = (
            f"in a room with a {name} wall",
            wall * 0.93,
            ["window", "picture", "shelf", "plant", "door"],
        )
    else:
        place = str(rng.choice(list(PLACES)))
        floor, wall, top = (np.array(colour) for colour in PLACES[place])
        kinds = {"city": ["house"], "park": ["tree", "tree", "bush"], "beach": ["palm", "rock"]}
        kinds = next((value for key, value in kinds.items() if key in place), ["tree", "bush", "rock"])
    floor, wall, top = np.clip(np.stack([floor, wall, top]) + jitter, 0.02, 0.98)
    back = rng.uniform(0.8, 1.8) if indoor else rng.uniform(3.0, 6.0)
    xs = rng.permutation(np.array([-1.0, 1.0, -0.35, 0.4])) * rng.uniform(0.75, 1.1) * (1.0 if indoor else 1.9)
    props = tuple(_prop(rng, str(rng.choice(kinds)), float(x)) for x in xs[: rng.integers(2, 5)])
    return Scene(
        place=place, indoor=indoor, wall=tuple(wall), wall_top=tuple(top), floor=tuple(floor),
        texture=tuple(rng.uniform(0, 1, 6)), back=back, props=props, seat=make_seat(seed), light=tuple(light),
        ambient=rng.uniform(0.48, 0.62),
    )  # fmt: skip


def _prop(rng: np.random.Generator, kind: str, x: float) -> Prop:
    boxes = {  # base y, width, height
        "window": (0.95, 0.75, 0.85), "picture": (1.15, 0.55, 0.45), "shelf": (0.0, 0.6, 1.5), "plant": (0.0, 0.6, 1.2),
        "door": (0.0, 0.8, 1.95), "tree": (0.0, 1.8, 3.2), "bush": (0.0, 1.6, 0.9), "house": (0.0, 2.2, 3.8),
        "palm": (0.0, 1.8, 3.0), "rock": (0.0, 1.4, 0.7),
    }  # fmt: skip
    y, width, height = boxes[kind]
    scale = rng.uniform(0.8, 1.2, 2)
    colour, accent = (CLOTH_COLOURS[str(name)] for name in rng.choice(list(CLOTH_COLOURS), 2, replace=False))
    return Prop(kind, x, y, width * scale[0], height * scale[1], colour, accent)


def backdrop(scene: Scene, view: View, oversample: int = 1) -> Backdrop:
    """Paint the empty scene through `view`, on a grid finer than the pixels by `oversample`."""
    rays = view.grid(oversample) @ view.frame.T  # world directions
    eye = view.position
    with np.errstate(divide="ignore", invalid="ignore"):
        t_floor = np.where(rays[..., 1] < -1e-6, -eye[1] / rays[..., 1], np.inf)
        t_back = (eye[2] + scene.back) / -rays[..., 2]
    far = np.where(np.isfinite(t_floor), t_floor, 0.0)
    floor_x, floor_z = eye[0] + far * rays[..., 0], eye[2] + far * rays[..., 2]
    x, y = eye[0] + t_back * rays[..., 0], eye[1] + t_back * rays[..., 1]
    on_floor = np.isfinite(t_floor) & ((floor_z > -scene.back) if scene.indoor else True)
    colour = _upright(scene, x, y, rays)
    ground = _ground(scene, floor_x, floor_z)
    colour = np.where(on_floor[..., None], ground, colour)
    for prop in scene.props:
        _paint_prop(prop, colour, x, y)
    t = np.where(on_floor, t_floor, t_back if scene.indoor else np.inf)[..., None]
    points = np.where(np.isfinite(t), eye + np.where(np.isfinite(t), t, 0.0) * rays, np.inf)
    return Backdrop(np.clip(colour, 0, 1), points)


def _upright(scene: Scene, x: np.ndarray, y: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Wall with a skirting board, or sky."""
    low, high, w = np.array(scene.wall), np.array(scene.wall_top), scene.texture
    if not scene.indoor:
        up = np.clip(rays[..., 1] * 3.5, 0, 1)[..., None]
        cloud = np.sin(3 * x * 0.3 + 9 * w[0]) * np.sin(2.2 * y + 9 * w[1] + np.sin(x)) * 0.5
        return low + up * (high - low) + 0.07 * np.clip(cloud, 0, 1)[..., None]
    stripes = np.sin(x * (8 + 22 * w[0])) if w[1] > 0.5 else np.sin(1.7 * x + 5 * w[2]) * np.sin(1.3 * y + 5 * w[3])
    colour = low + np.clip(y / 2.6, 0, 1)[..., None] * (high - low) + 0.025 * stripes[..., None]
    return np.where((y < 0.10)[..., None], 0.75 * low + 0.2, colour)


def _ground(scene: Scene, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    base, w = np.array(scene.floor), scene.texture
    if scene.indoor:
        tile = (np.sin(x * (10 + 12 * w[4])) > 0.96) if w[5] > 0.5 else np.sin(x * 5) * np.sin(z * 5) > 0
        return base * (1 - 0.10 * tile[..., None])
    haze = np.clip(-z / 30.0, 0, 1)[..., None]
    near = np.exp(-np.maximum(-z, 0) / 6)
    rough = near * np.sin(3.1 * x + 6 * w[4]) * np.sin(2.3 * z + 6 * w[5] + np.sin(1.7 * x))
    return base * (1 + 0.08 * rough[..., None]) * (1 - 0.35 * haze) + 0.35 * haze * np.array(scene.wall)


def _paint_prop(prop: Prop, colour: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Paint one prop into `colour` (h, w, 3). Own coordinates: a in [-1, 1] across, b in [0, 1] up."""
    a, b = 2 * (x - prop.x) / prop.width, (y - prop.y) / prop.height
    box = (np.abs(a) < 1) & (b > 0) & (b < 1)
    main, accent = np.array(prop.colour), np.array(prop.accent)
    wood, leaf = np.array((0.36, 0.25, 0.16)), np.array((0.16, 0.42, 0.17)) + 0.10 * main

    def put(where: np.ndarray, rgb: np.ndarray | tuple) -> None:
        colour[where] = rgb

    def blob(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((a - cx) / rx) ** 2 + ((b - cy) / ry) ** 2 < 1

    if prop.kind in ("window", "picture"):
        put(box, (0.93, 0.92, 0.90) if prop.kind == "window" else wood)
        inner = (np.abs(a) < 0.88) & (np.abs(b - 0.5) < 0.43)
        if prop.kind == "window":
            put(inner & (np.abs(a) > 0.06), (0.66, 0.82, 0.94))
        else:
            put(inner, 0.5 + 0.5 * main)
            put(inner & blob(0.1, 0.4, 0.5, 0.3), accent)
    elif prop.kind in ("shelf", "door"):
        put(box, wood * 1.3 if prop.kind == "shelf" else 0.35 * main + 0.4)
        if prop.kind == "shelf":
            put(box & (np.abs(a) < 0.9) & (np.mod(b * 4, 1) > 0.12), wood * 0.8)
            put(box & (np.abs(a + 0.2) < 0.5) & (np.mod(b * 4, 1) > 0.12) & (np.mod(b * 4, 1) < 0.7), main)
        else:
            put(blob(0.75, 0.48, 0.09, 0.03), (0.8, 0.7, 0.3))
    elif prop.kind == "house":
        put(box, 0.45 + 0.35 * main)
        windows = (np.abs(np.mod(a * 1.5, 1) - 0.5) < 0.26) & (np.abs(np.mod(b * 4, 1) - 0.5) < 0.26)
        put(box & windows & (np.abs(a) < 0.95), (0.30, 0.36, 0.44))
    elif prop.kind == "rock":
        put(blob(0, 0, 1, 1) & (b > 0), 0.40 + 0.1 * main)
    elif prop.kind == "bush":
        put((blob(-0.35, 0.4, 0.6, 0.55) | blob(0.35, 0.45, 0.65, 0.55)) & (b > 0), leaf)
    elif prop.kind == "plant":
        put((np.abs(a) < 0.45 - 0.2 * (0.3 - b)) & (b > 0) & (b < 0.3), main)
        for cx, cy in ((-0.5, 0.6), (0.5, 0.65), (0.0, 0.75)):
            put(blob(cx, cy, 0.42, 0.30), leaf * (0.8 + 0.5 * cy))
    else:
        put((np.abs(a) < 0.12) & (b > 0) & (b < 0.6), wood)
        crown = blob(0, 0.72, 1, 0.30) if prop.kind == "tree" else blob(0, 0.85, 1, 0.16)
        put(crown, leaf)
        put(crown & blob(-0.25, 0.80, 0.6, 0.18), leaf * 1.2)
