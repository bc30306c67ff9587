"""What is seen of a motion before anything is asked for."""

import numpy as np
import pytest

from meta_animator.app import looking, uploads
from meta_animator.data.conditions import draw_condition
from meta_animator.media.images import read_image
from meta_animator.media.video import write_video
from meta_animator.puppets.rendering.render import render_clip


@pytest.fixture
def look(folders, monkeypatch):
    """look(file) -> what is seen of it as a motion, by this process."""
    monkeypatch.setattr(looking.os, "nice", lambda more: None)

    def at(file):
        draft = folders.draft(uploads.new_draft(folders))
        uploads.take_motion(draft, file)
        looking.main(str(draft), looking.MOTION)
        return looking.read_sight(draft, looking.MOTION)

    return at


def test_keypoints_and_drawn_poses_are_shown_as_poses(look, dropped, tmp_path):
    poses = [draw_condition("dwpose", one) for one in render_clip(7, 8, 8)]
    drawn = look(write_video(tmp_path / "drawn.mp4", poses, 12))
    assert drawn.lines == ("a film of drawn poses: 8 frames, 0.7 s, 128 x 128",)
    points = look(dropped / "wave.npz")
    assert points.lines == ("keypoints: 6 frames, 12 a second",)
    for seen in (drawn, points):
        assert seen.state == "done" and len(seen.pictures) == looking.FRAMES_OF_MOTION
        assert all(0.01 < (read_image(file).max(-1) > 60).mean() < 0.5 for file, _, _ in seen.pictures), "limbs on black"


def test_what_is_wrong_is_told_in_a_line_without_the_pages_folders(look, tmp_path, folders):
    np.savez(tmp_path / "body.npz", keypoints=np.zeros((5, 17, 3)))
    seen = look(tmp_path / "body.npz")
    assert (seen.state, seen.error) == ("failed", "body.npz: keypoints have shape (5, 17, 3); expected (frames, 133, 3)")
    np.savez(tmp_path / "nobody.npz", keypoints=np.zeros((5, 133, 3)), width=64, height=64, fps=12.0)
    assert look(tmp_path / "nobody.npz").error == "nobody.npz: none of its points is seen"
    np.savez(tmp_path / "nameless.npz", keypoints=np.ones((5, 133, 3)))
    assert "nameless.npz: lacks width, height or fps" in look(tmp_path / "nameless.npz").error, "before the person is learned"


def test_a_film_that_is_cut_off_is_told(look, dropped, tmp_path):
    whole = (dropped / "dance.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 9 // 10])
    seen = look(tmp_path / "cut.mp4")
    assert seen.state == "failed" and seen.error.startswith("cut.mp4: cannot be read as a video")
