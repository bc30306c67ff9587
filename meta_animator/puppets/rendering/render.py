"""Rendering: ray-cast a puppet into a frame and its exact ground truth."""

import dataclasses

import numpy as np

from meta_animator.data.layers import Layers
from meta_animator.puppets.rendering.body import Primitive, build
from meta_animator.puppets.rendering.camera import Camera, View, make_camera, place
from meta_animator.puppets.rendering.identity import Identity, make_identity
from meta_animator.puppets.rendering.keypoints import keypoints_3d
from meta_animator.puppets.rendering.motion import Motion, make_motion
from meta_animator.puppets.rendering.scene import Backdrop, Scene, backdrop, make_scene
from meta_animator.puppets.rendering.seat import build_seat
from meta_animator.puppets.rendering.shadows import lit, on_backdrop, soften
from meta_animator.puppets.rendering.skeleton import Skeleton, solve

OVERSAMPLE = 2  # colour samples per pixel and axis
DEPTH_FLOOR = 0.1  # nearness of the farthest point of the person
SHADOW = 0.36  # share of its light that the backdrop loses in a cast shadow


@dataclasses.dataclass(frozen=True)
class Hits:
    """Per ray: depth (n,) in metres along the optical axis (inf: no hit) and the primitive's index (n,) (-1: none)."""

    depth: np.ndarray
    index: np.ndarray


def render(
    identity: Identity, motion: Motion, scene: Scene, camera: Camera, time: float, size: tuple[int, int] = (128, 128)
) -> Layers:
    """The frame at `time` seconds and all its layers, for a picture of `size` = (height, width)."""
    view = place(camera, identity, size, time)
    return _render(identity, motion, scene, view, time, backdrop(scene, view, OVERSAMPLE))


def render_clip(
    identity_seed: int, motion_seed: int, num_frames: int, fps: float = 12, size: tuple[int, int] = (128, 128),
    motion_kind: str | None = None, scene_seed: int | None = None, camera_seed: int | None = None,
    camera_motion: float = 0.0,
) -> list[Layers]:  # fmt: skip
    """`num_frames` frames at `fps` frames per second from time 0, one camera and one scene.

    Without their own seeds, the scene follows the identity's seed and the camera the motion's. `camera_motion` in
    [0, 1] lets the camera drift as if held by hand.
    """
    identity, motion = make_identity(identity_seed), make_motion(motion_seed, motion_kind)
    scene = make_scene(identity_seed if scene_seed is None else scene_seed)
    camera = make_camera(motion_seed if camera_seed is None else camera_seed, camera_motion)
    if camera.drift is not None:
        return [render(identity, motion, scene, camera, index / fps, size) for index in range(num_frames)]
    view = place(camera, identity, size)
    empty = backdrop(scene, view, OVERSAMPLE)
    return [_render(identity, motion, scene, view, index / fps, empty) for index in range(num_frames)]


def _render(identity: Identity, motion: Motion, scene: Scene, view: View, time: float, empty: Backdrop) -> Layers:
    skeleton = solve(identity, motion.pose(time))
    person = [in_camera(primitive, view) for primitive in build(identity, skeleton)]
    seat = [in_camera(primitive, view) for primitive in build_seat(scene.seat, identity, motion)]
    primitives = person + seat
    height, width = view.size
    rays = view.grid()
    hits = cast_grid(primitives, view, rays, 1)
    points = _points(rays, hits)
    _, normal, parts = _surface(primitives, points, hits)
    met, light = hits.index >= 0, np.array(scene.light) @ view.frame
    reached = np.zeros(len(met), dtype=bool)
    reached[met] = lit(primitives, light, points[met], normal[met])
    ground = _darkened(empty, on_backdrop(primitives, light, view, empty.points, OVERSAMPLE), scene, skeleton)
    mask = met & (hits.index < len(person))
    return Layers(
        frame=_colours(primitives, view, scene, ground, reached, hits),
        mask=mask.reshape(height, width),
        keypoints=_keypoints(identity, skeleton, view, person, seat),
        depth=_nearness(np.where(mask, hits.depth, np.inf)).reshape(height, width),
        normal=np.where(mask[:, None], normal, 0).reshape(height, width, 3).astype(np.float32),
        parts=parts.reshape(height, width),
    )


def in_camera(primitive: Primitive, view: View) -> Primitive:
    """A primitive of the world in the camera's coordinates."""
    turn = view.frame.T
    shape = primitive.shape.moved(turn, -turn @ view.position)
    return dataclasses.replace(primitive, shape=shape, frame=turn @ primitive.frame, origin=view.to_camera(primitive.origin))


def cast(primitive: Primitive, rays: np.ndarray) -> np.ndarray:
    """Depth (n,) at which rays (n, 3) from the camera first meet a primitive (camera coordinates); inf where not."""
    shape, eye = primitive.shape, np.zeros(3)
    if primitive.keep is None:
        return shape.enter(eye, rays)
    depth = np.full(len(rays), np.inf)
    for t in (shape.leave(eye, rays), shape.enter(eye, rays)):  # an open shape shows its inside where it is cut away
        met = np.flatnonzero(np.isfinite(t))
        kept = met[primitive.keep(primitive.local(rays[met] * t[met, None]))]
        depth[kept] = t[kept]
    return depth


def cast_grid(primitives: list[Primitive], view: View, rays: np.ndarray, oversample: int) -> Hits:
    """Cast a grid of rays (h, w, 3); every primitive only meets the rays in its projected bounding box."""
    height, width = rays.shape[:2]
    depth, index = np.full((height, width), np.inf), np.full((height, width), -1)
    for number, primitive in enumerate(primitives):
        corners = (view.project(primitive.shape.boxes()) + 0.5) * oversample
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int), (width, height))
        if x0 >= x1 or y0 >= y1:
            continue
        window = slice(y0, y1), slice(x0, x1)
        found = cast(primitive, rays[window].reshape(-1, 3)).reshape(y1 - y0, x1 - x0)
        closer = found < depth[window]
        depth[window][closer] = found[closer]
        index[window][closer] = number
    return Hits(depth.ravel(), index.ravel())


def _points(rays: np.ndarray, hits: Hits) -> np.ndarray:
    """Where rays (h, w, 3) meet the surface, (h * w, 3); zero where they do not."""
    return rays.reshape(-1, 3) * np.where(hits.index >= 0, hits.depth, 0.0)[:, None]


def _surface(primitives: list[Primitive], points: np.ndarray, hits: Hits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Albedo (n, 3), unit normals (n, 3) in the camera frame and part labels (n,); zero where nothing was hit."""
    albedo, normal = np.zeros((len(points), 3)), np.zeros((len(points), 3))
    parts = np.zeros(len(points), dtype=np.uint8)
    for number in np.unique(hits.index[hits.index >= 0]):
        primitive, met = primitives[number], np.flatnonzero(hits.index == number)
        albedo[met], parts[met] = primitive.paint(primitive.local(points[met]))
        outward = primitive.shape.normals(points[met])
        away = np.einsum("nc,nc->n", outward, points[met]) > 0
        normal[met] = np.where(away[:, None], -outward, outward)
    return albedo, normal, parts


def _colours(
    primitives: list[Primitive], view: View, scene: Scene, ground: np.ndarray, reached: np.ndarray, coarse: Hits
) -> np.ndarray:
    """The shaded, antialiased frame (h, w, 3) uint8 over `ground`, the oversampled picture behind the person.

    `reached` (h * w,) tells where the light falls on the person at the pixels' centres, whose hits are `coarse`.
    """
    height, width = view.size
    rays = view.grid(OVERSAMPLE)
    hits = cast_grid(primitives, view, rays, OVERSAMPLE)
    albedo, normal, _ = _surface(primitives, _points(rays, hits), hits)
    met = hits.index >= 0
    share = soften(reached.reshape(view.size), coarse.depth.reshape(view.size), hits.depth.reshape(rays.shape[:2]))
    lambert = share * np.clip(normal[met] @ view.frame.T @ scene.light, 0, 1)
    sky = 0.5 + 0.5 * normal[met] @ view.frame[1]
    shade = scene.ambient * (0.72 + 0.38 * sky) + (1.10 - scene.ambient) * lambert
    colour = ground.reshape(-1, 3)
    colour[met] = albedo[met] * shade[:, None]
    blocks = colour.reshape(height, OVERSAMPLE, width, OVERSAMPLE, 3).mean(axis=(1, 3))
    return np.round(255 * np.clip(blocks, 0, 1)).astype(np.uint8)


def _darkened(empty: Backdrop, cast: np.ndarray, scene: Scene, skeleton: Skeleton) -> np.ndarray:
    """The backdrop's colours with the shadow `cast` (h, w) on it, and darker where feet and body are close to it.

    Outdoors a shadow pales with its distance, up to the painted props.
    """
    far = np.zeros_like(cast) if scene.indoor else np.clip(-empty.points[..., 2] / scene.back, 0, 1)
    colour = empty.colour * (1 - SHADOW * cast * (1 - far))[..., None]
    x, y, z = np.moveaxis(empty.points, -1, 0)
    middle = skeleton.joints["pelvis"]
    where = (np.abs(x - middle[0]) < 1.0) & (np.abs(z - middle[2]) < 1.0) & (y < 0.01)
    spot = empty.points[where][:, [0, 2]]
    dark = 0.25 * np.exp(-((spot - middle[[0, 2]]) ** 2).sum(axis=-1) / 0.09)
    for side in "lr":
        foot = 0.5 * (skeleton.joints[f"heel_{side}"] + skeleton.joints[f"toe_{side}"])
        dark = np.maximum(dark, 0.5 * np.exp(-((spot - foot[[0, 2]]) ** 2).sum(axis=-1) / 0.02 - 4 * foot[1]))
    colour[where] *= 1 - dark[:, None]
    return colour


def _nearness(depth: np.ndarray) -> np.ndarray:
    """Relative nearness (n,): 1 at the person's nearest point, DEPTH_FLOOR at the farthest, 0 off the person."""
    met = np.isfinite(depth)
    result = np.zeros(len(depth), dtype=np.float32)
    if met.any():
        near, far = depth[met].min(), depth[met].max()
        result[met] = 1 - (1 - DEPTH_FLOOR) * (depth[met] - near) / max(far - near, 1e-9)
    return result


def _keypoints(identity: Identity, skeleton: Skeleton, view: View, person: list[Primitive], seat: list[Primitive]) -> np.ndarray:
    """Keypoints (133, 3): x, y in pixels and 1 where nothing lies far before the point and it is in the frame."""
    world, slack = keypoints_3d(identity, skeleton)
    points = view.to_camera(world)
    pixels = view.project(points)
    rays = points / -points[:, 2:]
    surface = np.min([cast(primitive, rays) for primitive in person], axis=0)
    height, width = view.size
    inside = ((pixels > -0.5) & (pixels < (width - 0.5, height - 0.5))).all(axis=1)
    visible = inside & (-points[:, 2] - surface < slack)
    for primitive in seat:
        visible &= cast(primitive, rays) > np.minimum(surface, -points[:, 2])
    return np.concatenate([pixels, visible[:, None]], axis=1).astype(np.float32)
