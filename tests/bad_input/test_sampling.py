"""What users get wrong in stage 3's inputs."""

import numpy as np
import pytest

from tests.bad_input.room import Cases, check, sampling

CASES = Cases()


@CASES.add("sample.driving is empty: name a data set, a drawn pose video or a keypoint .npz")
def nothing_to_follow(room):
    return ["sample", room.config("sample")]


@CASES.add("no such file")
def driving_video_that_is_not_there(room):
    return ["sample", room.config("sample"), "sample.driving=none.mp4", "sample.identity=p0"]


@CASES.add("sample.identity: 'stranger' is not in the checkpoint; it knows: p0, p1, p2, p3")
def identity_that_nobody_learned(room):
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}"]
    return ["sample", room.config("sample"), *driving, "sample.identity=stranger"]


@CASES.add("cannot show the task 'seg'; it can show: dwpose")
def driving_that_cannot_show_the_task(room):
    video = room.video()
    reference = [f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    return ["sample", room.config("sample"), f"sample.driving={video}", "sample.tasks={seg: 1.0}", *reference]


@CASES.add("has no clip 'p9'; it has: p0, p1, p2, p3")
def driving_clip_that_is_not_there(room):
    return sampling(room, "sample.driving_clip=p9")


@CASES.add("a folder without manifest.jsonl")
def driving_folder_without_a_manifest(room):
    return sampling(room, f"sample.driving={room.folder}")


@CASES.add("lacks width, height or fps; add these three numbers to the file")
def driving_keypoints_without_their_size(room):
    np.savez(room.folder / "bare.npz", keypoints=np.zeros((2, 133, 3), np.float32))
    return sampling(room, f"sample.driving={room.folder}/bare.npz")


@CASES.add("expected a photo")
def reference_that_is_not_there(room):
    return sampling(room, "sample.reference=none.png")


@CASES.add("sample.reference is empty")
def inversion_of_nothing(room):
    return sampling(room, "sample.reference=")


@CASES.add("sample.fit_pose needs sample.reference")
def fitting_to_nobody(room):
    return sampling(room, "sample.reference=", "sample.fit_pose=true")


@CASES.add("sample.fit_pose: moves skeletons, not 'blurred'")
def fitting_what_is_no_skeleton(room):
    return sampling(room, "sample.fit_pose=true", "sample.tasks={blurred: 1}")


@CASES.add("sample.num_inference_steps: num_inference_steps: expected 1 to 1000, got 2000")
def more_steps_than_there_are(room):
    return sampling(room, "sample.num_inference_steps=2000")


@CASES.add("sample.tasks is empty")
def sampling_without_a_task(room):
    return sampling(room, "sample.tasks={}")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(name, room, capfd, monkeypatch):
    check(*CASES[name], room, capfd, monkeypatch)
