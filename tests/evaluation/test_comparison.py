"""A set of clips against the truth: means, intervals, what is left out, distances, people, and the record of it."""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data.layers import Layers
from meta_animator.data.manifest import DatasetWriter, read_manifest
from meta_animator.errors import UserError
from meta_animator.evaluation.animation import load_layers
from meta_animator.evaluation.comparison import Judges, bootstrap_interval, compare
from meta_animator.evaluation.features import load_features
from meta_animator.evaluation.frechet import frechet_distance
from meta_animator.evaluation.leaks import seen_before
from meta_animator.evaluation.people import pose_error
from meta_animator.evaluation.protocols import PROTOCOLS, find_protocol
from meta_animator.evaluation.rows import named, record, row
from meta_animator.evaluation.sources import Source, pair, photo_places, read_photos, read_sources
from meta_animator.json_files import read_json, write_json
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from tests.data.people import standing_person
from tests.evaluation.stand_ins import ByColour, FilmMeans, PictureMeans, Seer, save_script

DEFAULT = PROTOCOLS["default"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


def film(levels, size=(16, 16)):
    """uint8 (n, 16, 16, 3): a square of the level on a gradient of its own, so that no two films are nearly one picture."""
    frames = np.zeros((len(levels), *size, 3), np.uint8) + np.arange(size[1], dtype=np.uint8)[:, None]
    frames[:, 4:12, 4:12] = np.array(levels, np.uint8)[:, None, None, None]
    return frames


def clip(name, frames, keypoints=None, mask=None):
    points = keypoints or [None] * len(frames)
    layers = [Layers(frame=frame, keypoints=pose, mask=mask) for frame, pose in zip(frames, points, strict=True)]
    return Source(name=name, where=Path(name), load=lambda size, margin: layers)


def pose(**moved):
    """Keypoints of a person of 30 x 40 pixels who looks at the camera; body points `b5=(x, y)` elsewhere."""
    points = np.zeros((133, 3), np.float32)
    points[:17] = [(5 + 30 * (k % 2), 5 + 40 * (k % 4 // 2), 1) for k in range(17)]
    for name, place in moved.items():
        points[int(name[1:])] = (*place, 1)
    eyes, rest = {36: (10, 10), 42: (20, 10)}, {30: (15, 15), 48: (12, 20), 54: (18, 20)}
    for start, place in eyes.items():
        points[23 + start : 23 + start + 6] = (*place, 1)
    for index, place in rest.items():
        points[23 + index] = (*place, 1)
    return points


def test_clips_count_as_much_and_the_interval_is_over_clips():
    """L1 of 2 and 6 of 255 in clips of 2 and 6 frames: 4 in the mean of clips, 5 in that of frames."""
    pairs = {}
    for name, off, length in (("a", 2, 2), ("b", 6, 6)):
        true = film(range(100, 100 + length))
        pairs[name] = (clip(name, true + np.uint8(off)), clip(name, true))
    result = compare(pairs, DEFAULT, Judges())
    assert result["clips"]["a"]["l1"] == 2 and result["clips"]["b"]["l1"] == 6 and result["clips"]["b"]["frames"] == 6
    assert result["mean"]["l1"] == {"mean": 4, "low": 2, "high": 6, "clips": 2}
    assert result["mean"]["flicker"]["mean"] == 0 and result["left_out"] == {} and result["set"] == {}
    by_frames = compare(pairs, dataclasses.replace(DEFAULT, average="frames"), Judges())
    assert by_frames["mean"]["l1"]["mean"] == 5
    assert compare({"a": pairs["a"]}, DEFAULT, Judges())["mean"]["l1"] == {"mean": 2, "low": None, "high": None, "clips": 1}


def test_the_interval_of_many_values_is_that_of_a_normal_mean():
    """Nearly mean -+ 1.96 standard errors; the same seed gives the same one, and weights count as often."""
    values = np.random.default_rng(1).normal(3, 2, 200)
    low, high = bootstrap_interval(values)
    spread = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == (pytest.approx(values.mean() - spread, abs=0.03), pytest.approx(values.mean() + spread, abs=0.03))
    assert bootstrap_interval(values) == (low, high) != bootstrap_interval(values, seed=1)
    low, high = bootstrap_interval([0.0, 10.0] * 10, weights=[9, 1] * 10)  # a mean of 1, where unweighted it is 5
    assert 0 < low < 1 < high < 3 and bootstrap_interval([1.0]) is None


def test_frames_that_a_photo_shows_are_left_out_of_every_number(tmp_path):
    true = film([10, 90, 170, 250])
    made = true.copy()
    made[0] = 255 - made[0]
    photo = np.repeat(np.repeat(true[0], 3, 0), 3, 1) + np.uint8(2)  # larger, and a little brighter
    inception = load_features("fid", str(save_script(PictureMeans(), tmp_path / "inception.pt")))
    pairs, judges = {"a": (clip("a", made), clip("a", true))}, Judges(features={"fid": inception})
    result = compare(pairs, DEFAULT, judges, reference=[photo])
    assert result["left_out"] == {"a": [0]} and result["clips"]["a"]["frames"] == 3
    assert result["clips"]["a"]["l1"] == 0 and result["set"]["fid"] == pytest.approx(0, abs=1e-9)
    all_of_them = compare(pairs, DEFAULT, judges)
    assert all_of_them["clips"]["a"]["l1"] > 20 and all_of_them["set"]["fid"] > 1
    assert seen_before(true, [true[1]]).tolist() == [False, True, False, False]
    disco = dataclasses.replace(DEFAULT, reference_frame=0)  # whose first frame is the reference photo, and counts
    assert compare(pairs, disco, judges, reference=[photo, true[2]])["left_out"] == {"a": [2]}
    with pytest.raises(UserError, match="every frame is \\(nearly\\) a photo"):
        compare(pairs, DEFAULT, judges, reference=list(true))


def test_distances_are_of_all_windows_of_all_clips(tmp_path):
    """FVD of two clips of 17 and 18 frames: of 2 + 3 windows each side."""
    network = load_features("fvd", str(save_script(FilmMeans(), tmp_path / "i3d.pt")))
    true = {"a": film(range(0, 170, 10)), "b": film(range(60, 240, 10))}
    made = {name: frames // 2 for name, frames in true.items()}
    pairs = {name: (clip(name, made[name]), clip(name, true[name])) for name in true}
    result = compare(pairs, DEFAULT, Judges(features={"fvd": network}))
    sides = [np.concatenate([network.films(side[name], DEFAULT.windows) for name in true]) for side in (made, true)]
    assert len(sides[0]) == 5 and result["set"]["fvd"] == pytest.approx(frechet_distance(*sides))
    assert result["set"]["fvd"] > 0.1
    short = {"a": (clip("a", made["a"][:16]), clip("a", true["a"][:16]))}
    assert compare(short, DEFAULT, Judges(features={"fvd": network}))["set"] == {"fvd": None}


def test_pose_error_is_in_percent_of_the_person():
    """30 x 40 pixels: a diagonal of 50. Two of 17 points off by 5 pixels; then half of the body unseen."""
    assert pose_error(pose(), pose()) == (0, 0)
    assert pose_error(pose(b0=(5, 10), b1=(35, 10)), pose()) == (pytest.approx(100 * 10 / 17 / 50), 0)
    half = pose()
    half[:9, 2] = 0
    assert pose_error(half, pose()) == (0, pytest.approx(9 / 17))
    assert pose_error(None, pose()) == (None, 1) and pose_error(pose(), None) == (None, None)


def test_people_are_judged_where_there_is_someone_to_judge():
    """Poses by annotators on the generated side, the data set's own on the true one; faces by their colour."""
    true, made = film([60, 120, 180], (48, 48)), film([60, 120, 180], (48, 48))
    made[:, 0, 0, 0] = [1, 2, 3]  # by which they are known
    made[..., 0][made[..., 0] > 40] = 0
    seer = Seer({1: pose(), 2: pose(b0=(5, 10))})
    pairs = {"a": (clip("a", made), clip("a", true, [pose()] * 3))}
    result = compare(pairs, DEFAULT, Judges(annotators=seer, face=ByColour()))["clips"]["a"]
    assert result["pose_error"] == pytest.approx(100 * 5 / 17 / 50 / 2) and result["pose_missing"] == pytest.approx(1 / 3)
    angles = [(frames[:2, ..., 0].mean((1, 2)) / 255 * np.pi / 2) for frames in (made, true)]
    assert result["face_similarity"] == pytest.approx(np.cos(angles[0] - angles[1]).mean(), abs=1e-5)
    assert result["face_psnr"] < 30 and "pose_error" not in compare(pairs, DEFAULT, Judges())["clips"]["a"]


def test_another_persons_motion_has_no_truth():
    """Faces against the photos, poses against the driving film, and what changes between frames; nothing is a leak."""
    driving, made = film([60, 60], (48, 48)), film([200, 180], (48, 48))
    made[:, 0, 0, 0], driving[:, 0, 0, 0] = [1, 2], [3, 3]
    photo = film([190], (48, 48))[0]
    photo[0, 0, 0] = 4
    seer = Seer({1: pose(), 2: pose(), 3: pose(b0=(5, 10)), 4: pose()})
    mask = np.zeros((48, 48), bool)
    mask[4:12, 4:12] = True
    pairs = {"a": (clip("a", made), clip("a", driving, mask=mask))}
    result = compare(pairs, PROTOCOLS["cross-identity"], Judges(annotators=seer, face=ByColour()), reference=[photo])
    row = result["clips"]["a"]
    assert set(row) == {"change", "background_change", "pose_error", "pose_missing", "face_similarity", "frames"}
    expected = (20 * 64 + 1 / 3) / 48**2  # the square is 8 x 8; the marks differ by 1 in one colour
    assert row["change"] == pytest.approx(expected)
    assert row["background_change"] == pytest.approx(1 / 3 / (48**2 - 64))
    assert row["pose_error"] == pytest.approx(100 * 5 / 17 / 50) and row["frames"] == 2
    angle = photo[..., 0].mean() / 255 * np.pi / 2
    assert row["face_similarity"] == pytest.approx(
        np.cos(made[..., 0].mean((1, 2)) / 255 * np.pi / 2 - angle).mean(), abs=1e-5
    )


def test_the_hash_names_protocol_versions_and_weights():
    result = compare({"a": (clip("a", film([9, 99])), clip("a", film([10, 100])))}, DEFAULT, Judges())
    ours = record(result, DEFAULT, {"fid": "0" * 64}, {"fvd": "not there"})
    assert ours["hash"] == record(result, DEFAULT, {"fid": "0" * 64}, {})["hash"] and len(ours["hash"]) == 12
    others = [record(result, DEFAULT, {"fid": "1" * 64}, {}), record(result, PROTOCOLS["tiktok-disco"], {"fid": "0" * 64}, {})]
    assert len({ours["hash"], *(other["hash"] for other in others)}) == 3
    assert named({"a": 1, "b": 2}) == named({"b": 2, "a": 1})


def test_rows_of_tables():
    summary = {"mean": 0.8123, "low": 0.8, "high": 0.83, "clips": 10}
    made = {
        "hash": "abc", "protocol": {"name": "tiktok-disco"}, "set": {"fid": 12.34, "fvd": None},
        "mean": {"ssim": summary, "l1": summary | {"mean": 2.5e-4, "low": None}, "psnr": summary | {"mean": None}},
    }  # fmt: skip
    assert row(made, "ours", "markdown").splitlines() == [
        "|  | SSIM ↑ | L1 ↓ | FID ↓ | protocol, hash |",
        "| --- | --- | --- | --- | --- |",
        "| ours | 0.812 ± 0.015 | 2.50e-04 | 12.3 | tiktok-disco, abc |",
    ]
    assert row(made, "our_s", "latex").splitlines() == [
        r" & SSIM $\uparrow$ & L1 $\downarrow$ & FID $\downarrow$ & protocol, hash \\",
        r"our\_s & 0.812 $\pm$ 0.015 & 2.50e-04 & 12.3 & tiktok-disco, abc \\",
    ]


def test_a_photo_of_a_wide_data_set_is_found_in_what_stage_3_cropped(tmp_path):
    """The truth is cropped around the person, as the animation was, and so is the photo."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (3, 8, 16, 3), np.uint8).repeat(6, 1).repeat(6, 2)  # 48 x 96
    person = standing_person(44, 40) + np.array([2, 2, 0], np.float32)
    with DatasetWriter(tmp_path / "true") as writer:
        writer.add(id="a", layers=[Layers(frame=frame, keypoints=person) for frame in wide], identity="p", fps=8)
    with DatasetWriter(tmp_path / "photos") as writer:
        writer.add(id="b", layers=[Layers(frame=wide[1], keypoints=person)], identity="p", fps=1, kind="photo")
    truth = load_layers(read_manifest(tmp_path / "true"), (48, 48))
    for k, layers in enumerate(truth):
        write_image(tmp_path / "made" / "frames" / f"{k:06d}.png", 255 - layers.frame)
    write_json(tmp_path / "made" / "times.json", {"fps": 8.0, "driving_frames": [0, 1, 2]})
    (tmp_path / "made" / "config.yaml").write_text(f"stage: sample\nsample:\n  reference: {tmp_path / 'photos'}\n")
    pairs = pair(read_sources(tmp_path / "made"), read_sources(tmp_path / "true"))
    photos, places = read_photos(None, tmp_path / "made"), photo_places(None, tmp_path / "made")
    assert compare(pairs, DEFAULT, Judges(), reference=photos)["left_out"] == {}, "photos as they are show more than the truth"
    assert list(compare(pairs, DEFAULT, Judges(), reference=photos, places=places)["left_out"].values()) == [[1]]


def evaluate(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT))["main"]()


def test_one_command_compares_a_video_with_a_folder(tmp_path, monkeypatch, capsys):
    true = film([60, 120, 180], (48, 64))
    write_video(tmp_path / "made" / "a.mp4", true, 8)
    for k, frame in enumerate(true):
        write_image(tmp_path / "true" / f"{k}.png", frame)
    inception = save_script(PictureMeans(), tmp_path / "inception.pt")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    given = (tmp_path / "made" / "a.mp4", "--truth", tmp_path / "true", "--output", tmp_path / "out", "--annotators", "off")
    evaluate(monkeypatch, *given, "--face", "off", "--fid-weights", inception, "--fvd-weights", "off", "--row", "markdown")
    written, said = read_json(tmp_path / "out" / "evaluation.json"), capsys.readouterr().out
    assert list(written["clips"]) == ["a"] and 25 < written["mean"]["psnr"]["mean"] < 100 and written["set"]["fid"] < 20
    assert written["missing"].keys() == {"lpips", "fid_vid"} and written["weights"].keys() == {"fid"}
    assert "note: fid_vid is off: " in said and f"| default, {written['hash']} |" in said and "fvd" not in written["set"]
    with pytest.raises(UserError, match="clips have no generated one: 00337"):
        evaluate(monkeypatch, *given, "--protocol", "tiktok-disco")
    with pytest.raises(UserError, match=r"--device nowhere: cannot be used \(Expected one of"):
        evaluate(monkeypatch, *given, "--device", "nowhere")
    with pytest.raises(UserError, match="--shuffled needs --reference"):
        evaluate(monkeypatch, *given, "--shuffled", tmp_path)
    for face, said in (("sface", "face"), (tmp_path / "made" / "a.mp4", "a.mp4"), (tmp_path / "none.onnx", "--face .*no such")):
        with pytest.raises(UserError, match=said):
            evaluate(monkeypatch, *given[:-2], "--reference", tmp_path, "--face", face, "--lpips", "off")
    with pytest.raises(UserError, match="--protocol cross-identity needs --photos"):
        evaluate(monkeypatch, *given, "--protocol", "cross-identity")
    with pytest.raises(SystemExit, match="2"):
        evaluate(monkeypatch, *given, "--reference", tmp_path, "--seconds", "a=b")
    assert "--seconds: expected STAGE=S, such as step0=200, got 'a=b'" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such protocol; there are default, tiktok-disco"):
        find_protocol("tiktok")
