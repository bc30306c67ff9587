"""Bringing somebody else's motion to the reference person: limb by limb (`fit_limbs`), or by one scale and one shift for the
whole clip (`fit_keypoints`; `drawn_pose_fit` for drawn poses)."""

from meta_animator.data.retarget.limbs import fit_limbs
from meta_animator.data.retarget.smoothing import smooth_points
from meta_animator.data.retarget.whole import drawn_box, drawn_pose_fit, fit_keypoints, warp_drawn

__all__ = ["drawn_box", "drawn_pose_fit", "fit_keypoints", "fit_limbs", "smooth_points", "warp_drawn"]
