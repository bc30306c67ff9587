"""What users get wrong in stage 3's inputs."""

import numpy as np

from tests.bad_input.room import Cases, sampling

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


@CASES.add("a folder without manifest.jsonl")
def driving_folder_without_a_manifest(room):
    return sampling(room, f"sample.driving={room.folder}")


@CASES.add("lacks width, height or fps; add these three numbers to the file")
def driving_keypoints_without_their_size(room):
    np.savez(room.folder / "bare.npz", keypoints=np.zeros((2, 133, 3), np.float32))
    return sampling(room, f"sample.driving={room.folder}/bare.npz")


CASES.table(sampling, {
    "driving_clip_that_is_not_there": ("sample.driving_clip=p9", "has no clip 'p9'; it has: p0, p1, p2, p3"),
    "reference_that_is_not_there": ("sample.reference=none.png", "expected a photo"),
    "inversion_of_nothing": ("sample.reference=", "sample.reference is empty"),
    "fitting_to_nobody": ("sample.reference=", "sample.fit_pose=true", "sample.fit_pose needs sample.reference"),
    "fitting_what_is_no_skeleton": (
        "sample.fit_pose=true", "sample.tasks={blurred: 1}", "sample.fit_pose: moves skeletons, not 'blurred'",
    ),
    "more_steps_than_there_are": (
        "sample.num_inference_steps=2000", "sample.num_inference_steps: num_inference_steps: expected 1 to 1000, got 2000",
    ),
    "sampling_without_a_task": ("sample.tasks={}", "sample.tasks is empty"),
})  # fmt: skip


test_bad_input_is_one_line = CASES.test()
