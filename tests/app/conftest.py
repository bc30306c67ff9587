"""What people would drop: pictures and a film of puppets, and a folder for the page."""

import numpy as np
import pytest

from meta_animator.app.folders import Folders
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from meta_animator.puppets.rendering.render import render_clip

PERSON, DANCER = 1_000_031, 1_000_077


@pytest.fixture(scope="session")
def dropped(tmp_path_factory):
    """photos/, dance.mp4, wave.npz, notes.txt and a picture that is none."""
    home = tmp_path_factory.mktemp("dropped")
    for k in range(5):
        write_image(home / "photos" / f"photo {k}.png", render_clip(PERSON, 100 + k, 1)[0].frame)
    clip = render_clip(DANCER, 5, 6)
    write_video(home / "dance.mp4", [one.frame for one in clip], 12)
    facts = {"width": 128, "height": 128, "fps": 12.0}
    np.savez(home / "wave.npz", keypoints=np.stack([one.keypoints for one in clip]), **facts)
    (home / "notes.txt").write_text("call mother\n")
    (home / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    return home


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "app").make()
