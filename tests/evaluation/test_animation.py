"""A sampled folder against a clip of a data set."""

import dataclasses

import numpy as np
import pytest
import torch

from meta_animator.data.manifest import DatasetWriter, find_clip
from meta_animator.errors import UserError
from meta_animator.evaluation.animation import evaluate_animation
from meta_animator.json_files import write_json
from meta_animator.media.images import write_image
from meta_animator.models.face import FaceConfig, FaceEmbedder


@pytest.fixture
def generated(tmp_path, puppet_data):
    """The true frames of the clip p2, one grey level off, and their poses."""
    clip = find_clip(puppet_data / "train", "p2")
    for k in range(clip.num_frames):
        frame = clip.load(k).frame
        write_image(tmp_path / "frames" / f"{k:06d}.png", np.where(frame < 255, frame + 1, 254).astype(np.uint8))
        write_image(tmp_path / "driving" / f"{k:06d}.png", clip.load_condition("dwpose", k))
    return tmp_path


def test_the_named_clip_is_the_truth(generated, puppet_data):
    metrics, picture = evaluate_animation(generated, puppet_data / "train", puppet_data / "person", clip="p2")
    assert metrics["frames"] == 4 and metrics["l1"] == pytest.approx(1.0)
    assert metrics["psnr"] == pytest.approx(20 * np.log10(255), abs=0.01)
    assert metrics["baselines"]["first_photo"]["psnr"] < 30 and metrics["controls"] == {}
    assert picture.dtype == np.uint8 and picture.shape[1] > 4 * 64
    other, _ = evaluate_animation(generated, puppet_data / "train", puppet_data / "person")
    assert other["psnr"] < 30


def test_frames_are_compared_with_those_of_their_times(generated, puppet_data):
    paths = (generated, puppet_data / "train", puppet_data / "person")
    for name in ("frames", "driving"):
        for k in (1, 3):
            (generated / name / f"{k:06d}.png").unlink()
    write_json(generated / "times.json", {"fps": 6.0, "driving_frames": [0, 2]})
    metrics, _ = evaluate_animation(*paths, clip="p2")
    assert metrics["frames"] == 2 and metrics["l1"] == pytest.approx(1.0)
    write_json(generated / "times.json", {"fps": 6.0, "driving_frames": [0, 9]})
    with pytest.raises(UserError, match=r"has 10 frames, the truth .* only 4"):
        evaluate_animation(*paths, clip="p2")
    write_json(generated / "times.json", {"fps": 6.0, "driving_frames": [0]})
    with pytest.raises(UserError, match=r"times\.json: does not fit the 2 frames beside it"):
        evaluate_animation(*paths, clip="p2")


def test_frames_that_a_reference_photo_shows_are_left_out_and_said_so(generated, puppet_data, tmp_path, capsys):
    clip = find_clip(puppet_data / "train", "p2")
    with DatasetWriter(tmp_path / "photos") as writer:
        writer.add(id="a", layers=[clip.load(1)], identity="p2", fps=1, kind="photo")
    metrics, _ = evaluate_animation(generated, puppet_data / "train", tmp_path / "photos", clip="p2", shuffled=generated)
    assert metrics["frames"] == metrics["controls"]["shuffled_pose"]["frames"] == 3 and metrics["l1"] == pytest.approx(1.0)
    assert metrics["baselines"]["first_photo"]["psnr"] < 100
    assert "note: 1 of 4 true frames are (nearly) reference photos, and left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"train: every frame is \(nearly\) a reference photo"):
        evaluate_animation(generated, puppet_data / "train", puppet_data / "train", clip="p2")


def test_a_control_of_other_frames_is_one_line(generated, puppet_data, tmp_path):
    write_image(tmp_path / "other" / "frames" / "000000.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="other: its frames are not as many and as large as those of"):
        evaluate_animation(
            generated, puppet_data / "train", puppet_data / "person", clip="p2", shuffled=tmp_path / "other"
        )  # fmt: skip


def test_an_unknown_clip_is_one_line(generated, puppet_data):
    with pytest.raises(UserError, match=r"has no clip 'p9'; it has: p0, p1, p2, p3"):
        evaluate_animation(generated, puppet_data / "train", puppet_data / "person", clip="p9")


def test_an_embedder_adds_the_distance_of_faces(generated, puppet_data):
    """Nearly nothing for the true frames, more for another person's photo; None where no face is large enough."""
    torch.manual_seed(0)
    small = FaceConfig(channels=(8, 12), embedding_dim=8, input_size=8, min_face_size=1)
    paths = (generated, puppet_data / "train", puppet_data / "person")
    metrics, _ = evaluate_animation(*paths, clip="p2", face=FaceEmbedder(small))
    assert 0 <= metrics["face_distance"] < 1e-3 < metrics["baselines"]["first_photo"]["face_distance"] <= 2
    blind = FaceEmbedder(dataclasses.replace(small, min_face_size=1000))
    assert evaluate_animation(*paths, clip="p2", face=blind)[0]["face_distance"] is None
    assert "face_distance" not in evaluate_animation(*paths, clip="p2")[0]
