"""What drives an animation: data sets, drawn pose videos, keypoint files; fitted to the reference person."""

import json

import numpy as np
import pytest

from meta_animator.data.conditions import draw_condition
from meta_animator.data.figures import Figure
from meta_animator.data.layers import Layers
from meta_animator.data.retarget import drawn_box
from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from meta_animator.media.video import write_video
from meta_animator.sampling.fitting import Person, find_person, fit_sheet, fit_to_reference, photo_points
from meta_animator.sampling.opening import crop_reference, open_driving, read_reference, wrong_order
from tests.data.people import layers_of_person
from tests.data.pose_films import draw_pose

SIZE = (128, 96)


@pytest.fixture
def reference():
    return layers_of_person(*SIZE)


@pytest.fixture
def somebody():
    """Keypoints (6, 133, 3) in a picture of 480 x 480: someone far off in the middle, who walks to the right."""
    points = np.repeat(layers_of_person(*SIZE).keypoints[None], 6, axis=0)
    points[..., :2] = points[..., :2] * 2 + (150, 80)
    points[..., 0] += 8 * np.arange(6)[:, None]
    return points.astype(np.float32)


def drawn_video(path, points, swap=False):
    frames = [draw_condition("dwpose", Layers(frame=np.zeros((480, 480, 3), np.uint8), keypoints=p)) for p in points]
    return write_video(path, [f[..., ::-1] if swap else f for f in frames], fps=12)


def test_a_drawn_pose_video_is_fitted_to_the_reference(tmp_path, reference, somebody):
    video = drawn_video(tmp_path / "pose.mp4", somebody)
    driving = open_driving(str(video), "", ["dwpose"], SIZE)
    target = drawn_box(draw_condition("dwpose", reference))

    def middle_box():
        return np.median([drawn_box(driving.condition("dwpose", k)) for k in range(len(driving))], axis=0)

    assert np.abs(middle_box() - target).max() > 15
    driving = fit_to_reference(driving, find_person(reference, None, SIZE), ["dwpose"])
    assert np.abs(middle_box() - target).max() < 4
    first, last = (drawn_box(driving.condition("dwpose", k)) for k in (0, 5))
    assert last[0] - first[0] > 10, "the motion itself must stay"


def test_a_drawn_pose_video_is_read_back_into_keypoints(tmp_path, reference, somebody, capsys):
    big = somebody * [2, 2, 1]
    frames = [draw_pose(points, 960, 960, head="ears", swap=True) for points in big]
    write_video(tmp_path / "pose.mp4", frames, fps=12)
    with pytest.warns(UserWarning, match="red and blue are swapped"):
        driving = open_driving(str(tmp_path / "pose.mp4"), "", ["dwpose"], SIZE, read_pose=True, max_frames=4)
    assert "poses read from 4 of 4 drawn frames" in capsys.readouterr().out
    limbs = [5, 6, 7, 8, 11, 12, 13, 14, 15, 16]
    off = np.abs(driving.points()[:4, limbs, :2] - big[:4, limbs, :2])
    assert np.median(off) < 1.5 and not driving.points()[4:].any(), "frames that are not driven from are not read"
    driving = fit_to_reference(driving, find_person(reference, None, SIZE), ["dwpose"])
    assert driving.keypoints is not None and driving.drawn_fit is None
    assert driving.condition("dwpose", 0).shape == (*SIZE, 3) and driving.condition("dwpose", 0).any()


def test_poses_that_cannot_be_read_are_used_as_they_are(tmp_path, somebody, capsys):
    frames = [draw_condition("dwpose", Layers(frame=np.zeros((480, 480, 3), np.uint8), keypoints=p)) for p in somebody]
    broken = [np.where(np.arange(480)[:, None, None] % 12 < 6, frame, 0).astype(np.uint8) for frame in frames]
    write_video(tmp_path / "pose.mp4", broken, fps=12)
    driving = open_driving(str(tmp_path / "pose.mp4"), "", ["dwpose"], (480, 480), read_pose=True)
    assert "of 6 drawn poses could be read, too few; they are used as they are" in capsys.readouterr().out
    assert driving.points() is None
    assert np.abs(driving.condition("dwpose", 2).astype(int) - broken[2]).mean() < 4


def test_a_cropped_reference_does_not_shrink_drawn_poses(tmp_path, reference, somebody):
    """The photo's upper half at the output's size: the skeleton gets the person's height, its legs lie below the picture."""
    video = drawn_video(tmp_path / "pose.mp4", somebody)
    head, body = np.array([[0.0, 0, SIZE[1], 40]]), np.array([0.0, 0, SIZE[1], SIZE[0]])
    upper = Figure(faces=head, heads=head, body=body)
    wide = (SIZE[0] // 2, SIZE[1])
    driving = open_driving(str(video), "", ["dwpose"], wide)
    driving = fit_to_reference(driving, find_person(reference, upper, wide), ["dwpose"])
    whole = open_driving(str(video), "", ["dwpose"], SIZE)
    whole = fit_to_reference(whole, find_person(reference, None, SIZE), ["dwpose"])
    assert driving.drawn_fit[0] == pytest.approx(whole.drawn_fit[0], rel=0.02)


def test_a_keypoint_file_is_fitted_to_the_reference(tmp_path, reference, somebody):
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=12.0)
    driving = open_driving(str(tmp_path / "pose.npz"), "", ["dwpose", "pose_hamer"], SIZE)
    assert (len(driving), driving.clip.fps) == (6, 12)
    driving = fit_to_reference(driving, Person(reference.keypoints), ["dwpose"])
    target = drawn_box(draw_condition("dwpose", reference))
    found = np.median([drawn_box(driving.condition("dwpose", k)) for k in range(6)], axis=0)
    assert np.abs(found - target).max() < 4


def test_keypoint_json_drives_like_the_npz(tmp_path, somebody, capsys):
    """As MMPose writes it: without the size of the pictures and the frame rate; a smaller person beside does not drive."""
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=12.0)
    others = [somebody, somebody * [0.3, 0.3, 1]]
    people = [[{"keypoints": p[k, :, :2].tolist(), "keypoint_scores": p[k, :, 2].tolist()} for p in others] for k in range(6)]
    frames = [{"frame_id": k, "instances": instances} for k, instances in enumerate(people)]
    (tmp_path / "pose.json").write_text(json.dumps(frames))
    driving = open_driving(str(tmp_path / "pose.json"), "", ["dwpose"], SIZE, own_fps=12.0)
    same = open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE)
    assert (len(driving), driving.fps) == (len(same), same.fps) == (6, 12)
    assert np.allclose(driving.clip.load_keypoints(4), same.clip.load_keypoints(4), atol=1e-3)
    said = capsys.readouterr().out
    assert said.count("several people in 6 of 6 frames") == 1 and "does not say how large its pictures are" in said
    with pytest.raises(UserError, match=r"set sample\.driving_fps"):
        open_driving(str(tmp_path / "pose.json"), "", ["dwpose"], SIZE)
    for rate in (-3, float("nan"), 1e9):
        with pytest.raises(UserError, match=r"sample\.driving_fps is '.*'; expected one number of frames per second"):
            open_driving(str(tmp_path / "pose.json"), "", ["dwpose"], SIZE, own_fps=rate)


def test_swapped_colours_are_recognised_said_and_put_right(tmp_path, somebody):
    right = open_driving(str(drawn_video(tmp_path / "rgb.mp4", somebody)), "", ["dwpose"], SIZE)
    with pytest.warns(UserWarning, match="red and blue are swapped"):
        swapped = open_driving(str(drawn_video(tmp_path / "bgr.mp4", somebody, swap=True)), "", ["dwpose"], SIZE)
    difference = right.condition("dwpose", 3).astype(int) - swapped.condition("dwpose", 3)
    assert np.abs(difference).mean() < 3
    wrong = right.condition("dwpose", 3)[..., ::-1].astype(int) - swapped.condition("dwpose", 3)
    assert np.abs(wrong).mean() > 2 * np.abs(difference).mean() + 1


def test_shuffled_driving_moves_every_frame(tmp_path, somebody):
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=12.0)
    order = open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE, shuffle_seed=0).order
    assert sorted(order) == list(range(6)) and all(place != index for place, index in enumerate(order))


@pytest.mark.parametrize("count", [13, 11, 5, 1])
def test_latent_frames_of_several_frames_are_shuffled_whole(count):
    order = wrong_order(list(range(100, 100 + count)), seed=0, together=4)
    pieces = [order[:1], *(order[k : k + 4] for k in range(1, count, 4))]
    assert len(order) == count
    for place, piece in enumerate(pieces):
        own = [100] if place == 0 else list(range(97 + 4 * place, 101 + 4 * place))
        assert count == 1 or not set(piece) & set(own)  # of another latent frame
        assert piece == sorted(piece) and piece[-1] - piece[0] < 4  # and of one alone, in its order
    if count == 13:
        assert {first for first, *_ in pieces} == {100, 101, 105, 109}  # each somewhere, the first frame held for four
        assert [100] * 4 in pieces


def test_fitting_needs_keypoints_of_the_reference(tmp_path, reference, somebody):
    driving = open_driving(str(drawn_video(tmp_path / "pose.mp4", somebody)), "", ["dwpose"], SIZE)
    with pytest.raises(UserError, match="the reference has no keypoints"):
        driving = fit_to_reference(driving, Person(None), ["dwpose"])
    with pytest.raises(UserError, match="moves skeletons, not 'canny'"):
        driving = fit_to_reference(driving, Person(reference.keypoints), ["dwpose", "canny"])


def test_driving_is_resampled_by_time_and_lasts_as_long(tmp_path, somebody, capsys):
    points = np.repeat(somebody, 10, axis=0)
    np.savez(tmp_path / "pose.npz", keypoints=points, width=480, height=480, fps=30.0)

    def opened(**how):
        return open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE, **how)

    assert (opened().order, opened().fps, opened(fps=30).order) == (list(range(60)), 30, list(range(60)))
    assert "note" not in capsys.readouterr().out
    slower = opened(fps=8)
    assert (slower.fps, slower.order[:5], len(slower)) == (8, [0, 3, 7, 11, 15], 16)
    assert "has 30 frames per second; it is resampled by time to 8\n" in capsys.readouterr().out
    assert len(opened(fps=45)) == 90 and "so that poses repeat" in capsys.readouterr().out
    shuffled = opened(fps=8, max_frames=6, shuffle_seed=0)
    assert shuffled.shown == slower.order[:6] == sorted(shuffled.order) != shuffled.order


@pytest.mark.parametrize("fps", [0.0, float("nan"), "30000/1001", [12.0, 12.0], {"a": 1}])
def test_a_rate_that_is_none_is_said_on_opening(tmp_path, somebody, fps):
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=fps)
    with pytest.raises(UserError, match=r"pose\.npz: fps is .*; expected one number of frames per second"):
        open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE)
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width="wide", height=480, fps=12)
    with pytest.raises(UserError, match=r"pose\.npz: width is 'wide'; expected a number of pixels"):
        open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE)


def test_a_film_given_as_drawn_poses_is_refused(tmp_path, reference):
    film = write_video(tmp_path / "film.mp4", [reference.frame] * 3, fps=12)
    with pytest.raises(UserError, match=r"driving .*film\.mp4: this looks like a film, not like drawn poses") as caught:
        open_driving(str(film), "", ["dwpose"], SIZE)
    assert "scripts/prepare_data.py" in str(caught.value) and "\n" not in str(caught.value)


def test_somebody_who_comes_in_late_is_fitted_by_the_frames_that_show_them(tmp_path, reference, somebody, capsys):
    """The share is said; where nobody is seen at all, that is the reason given."""
    late = np.concatenate([np.zeros_like(somebody), np.zeros_like(somebody), somebody])
    fitted = {}
    for name, points in (("whole", somebody), ("late", late)):
        np.savez(tmp_path / f"{name}.npz", keypoints=points, width=480, height=480, fps=12.0)
        driving = open_driving(str(tmp_path / f"{name}.npz"), "", ["dwpose"], SIZE)
        driving = fit_to_reference(driving, Person(reference.keypoints), ["dwpose"])
        fitted[name] = driving.keypoints
    assert "late.npz: a person is seen in 6 of 18 frames (33%)" in capsys.readouterr().out
    np.testing.assert_array_equal(fitted["late"][12:], fitted["whole"])
    np.savez(tmp_path / "nobody.npz", keypoints=late[:12], width=480, height=480, fps=12.0)
    with pytest.raises(UserError, match=r"nobody\.npz: no person in any of the 12 frames"):
        open_driving(str(tmp_path / "nobody.npz"), "", ["dwpose"], SIZE)
    reference.keypoints[:, 2] = 0
    with pytest.raises(UserError, match="the reference photo shows no person"):
        driving = fit_to_reference(driving, Person(reference.keypoints), ["dwpose"])


def test_the_reference_is_the_first_frame_that_shows_the_person(tmp_path, reference, capsys):
    empty = Layers(frame=np.zeros_like(reference.frame), keypoints=np.zeros_like(reference.keypoints))
    seen = Layers(frame=reference.frame, keypoints=reference.keypoints)
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add(id="film", identity="anna", layers=[empty, empty, seen], fps=8)
    np.testing.assert_array_equal(crop_reference(*read_reference(str(tmp_path / "data")), SIZE).frame, reference.frame)
    assert "first seen in frame 2 of clip 'film', which is taken" in capsys.readouterr().out


def test_all_photos_of_the_person_are_measured(tmp_path, reference, somebody):
    """The first photo shows no arms; another, of twice the size, has longer ones. Somebody else's photos do not count."""
    first, longer = reference.keypoints.copy(), reference.keypoints * [2, 2, 1]
    first[7:11, 2] = 0
    for joint in (7, 8, 9, 10):
        root, end = reference.keypoints[5 + (joint - 5) % 2, :2], reference.keypoints[joint, :2]
        longer[joint, :2] = 2 * (root + 1.2 * (end - root))
    frames = {"a": first, "b": longer, "c": np.zeros((133, 3)), "d": longer}
    with DatasetWriter(tmp_path / "data") as writer:
        for name, points in frames.items():
            picture = Layers(frame=np.zeros((256, 192, 3), np.uint8), keypoints=points.astype(np.float32))
            writer.add(id=name, identity="eve" if name == "d" else "anna", layers=[picture], fps=1, kind="photo")
    photos = photo_points(str(tmp_path / "data"))
    assert len(photos) == 3 and photo_points(str(tmp_path / "data"), "d").shape == (1, 133, 3)
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=12.0)
    arms = []
    for known in (photos, None):
        driving = open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE)
        driving = fit_to_reference(driving, Person(first, known), ["dwpose"])
        arms.append(np.linalg.norm(driving.keypoints[0, 5, :2] - driving.keypoints[0, 7, :2]))
    assert arms[0] > 1.08 * arms[1]


def test_legs_that_the_crop_cuts_off_still_tell_where_the_floor_is(tmp_path, reference, somebody):
    """The photo's upper half at the output's size: the person keeps their size, the feet stand below the picture."""
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=12.0)
    head, body = np.array([[0.0, 0, SIZE[1], 40]]), np.array([0.0, 0, SIZE[1], SIZE[0]])
    upper, wide = Figure(faces=head, heads=head, body=body), (SIZE[0] // 2, SIZE[1])
    driving = open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], wide)
    driving = fit_to_reference(driving, find_person(reference, upper, wide), ["dwpose"])
    assert np.abs(driving.keypoints[..., 1] - reference.keypoints[:, 1]).max() < 2


def test_the_sheet_shows_the_driving_its_skeleton_and_the_fitted_one(tmp_path, reference, somebody):
    np.savez(tmp_path / "pose.npz", keypoints=somebody, width=480, height=480, fps=12.0)
    driving = open_driving(str(tmp_path / "pose.npz"), "", ["dwpose"], SIZE)
    before = fit_sheet(driving, reference, "dwpose")
    driving = fit_to_reference(driving, find_person(reference, None, SIZE), ["dwpose"])
    after = fit_sheet(driving, reference, "dwpose")
    rows = np.flatnonzero((before != after).any((1, 2)))
    assert before.shape == after.shape and rows.min() > len(after) / 2, "the driving's own skeleton stays as it is"
    with DatasetWriter(tmp_path / "film") as writer:
        layers = [Layers(frame=np.full((480, 480, 3), 90, np.uint8), keypoints=points) for points in somebody]
        writer.add(id="film", identity="bob", layers=layers, fps=12)
    filmed = open_driving(str(tmp_path / "film"), "", ["dwpose"], SIZE)
    assert len(fit_sheet(filmed, reference, "dwpose")) > 1.3 * len(after), "one row more, with the film"
