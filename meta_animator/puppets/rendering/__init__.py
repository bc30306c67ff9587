"""Procedural people: ray-cast puppets with exact ground truth for every layer."""

from meta_animator.puppets.rendering.camera import Camera, make_camera
from meta_animator.puppets.rendering.flow import backward_flow
from meta_animator.puppets.rendering.identity import Identity, make_identity
from meta_animator.puppets.rendering.motion import MOTIONS, Motion, make_motion
from meta_animator.puppets.rendering.render import render, render_clip
from meta_animator.puppets.rendering.scene import Scene, make_scene

__all__ = [
    "MOTIONS", "Camera", "Identity", "Motion", "Scene", "backward_flow", "make_camera", "make_identity", "make_motion",
    "make_scene", "render", "render_clip",
]  # fmt: skip
