"""animate.sh: what is recognised, what is chosen, what is skipped, and how much time is left."""

import dataclasses
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from meta_animator.config import load_config, save_config
from meta_animator.data.conditions import draw_condition
from meta_animator.data.keypoints import five_points
from meta_animator.data.manifest import find_clip, read_manifest
from meta_animator.data.motion_kinds import kind_of
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, write_image
from meta_animator.media.video import VideoSource, write_video
from meta_animator.published import check_base
from meta_animator.stages import animate as animating
from meta_animator.stages import animate_sheet
from meta_animator.stages.animate import Job, animate, best_reference, is_generated, learn, texts_of
from meta_animator.stages.clock import Clock, words
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train
from tests.tiny_wan import wan_config

ROOT = Path(__file__).parents[2]


def test_what_gives_the_motion_is_recognised(tmp_path, puppet_data):
    clip = read_manifest(puppet_data / "train")[0]
    frames = [clip.load(k) for k in range(clip.num_frames)]
    film = write_video(tmp_path / "film.mp4", [one.frame for one in frames], 12)
    drawn = write_video(tmp_path / "drawn.mp4", [draw_condition("dwpose", one) for one in frames], 12)
    np.savez(tmp_path / "points.npz", keypoints=np.stack([one.keypoints for one in frames]))
    places = [puppet_data / "train", tmp_path / "points.npz", drawn, film]
    assert [kind_of(place) for place in places] == ["data set", "keypoints", "drawn", "film"]
    with pytest.raises(UserError, match="expected a film, keypoints"):
        kind_of(tmp_path / "nothing.mp4")


class Photo:
    """A photo that shows some body points, and a face or none."""

    split = "train"

    def __init__(self, id, seen, face, like):
        self.id, self.points = id, like.copy()
        self.points[[k for k in range(17) if k not in seen], 2] = 0
        if not face:
            self.points[23:91, 2] = 0

    def load_keypoints(self, index):
        return self.points


def test_the_reference_photo_shows_what_moves(puppet_data):
    all_points = [clip.load_keypoints(0) for folder in ("train", "person") for clip in read_manifest(puppet_data / folder)]
    whole = next(points for points in all_points if five_points(points) is not None)
    whole[:91, 2] = 1
    half = Photo("half", range(13), True, whole)
    back, full = Photo("back", range(17), False, whole), Photo("full", range(17), True, whole)
    everything, upper = np.ones(17), (np.arange(17) < 11).astype(float)
    assert best_reference([half, back, full], everything) == "full"
    assert best_reference([back, half, full], upper) == "half", "the legs do not count, and it comes first"
    assert best_reference([back, half], everything) == "half", "a face is worth more than two legs"


def test_the_time_left_is_what_the_last_job_took(tmp_path, capsys):
    now = [0.0]

    def job(photos, skipped=False):
        clock = Clock(tmp_path / "times.json", "demo", lambda: now[0])
        clock.expect("photos", photos)
        clock.expect("motion", 0)
        clock.expect("learning", 100)
        clock.start("photos", "who")
        now[0] += 2 * photos
        clock.start("motion", "how")
        now[0] += 1
        clock.start("learning", "learning")
        if skipped:
            clock.skip()
        now[0] += 0 if skipped else 50
        clock.stop()
        return capsys.readouterr().out

    assert "left" not in job(5)
    assert "who (about 1 min 10 s left)" in job(10)  # 10 x 2 + 100 x 0.5
    assert "learning (about 50 s left)" in job(1, skipped=True)
    assert "who (about 52 s left)" in job(1), "what was skipped tells nothing of what learning takes"
    quick = Clock(tmp_path / "times.json", "demo", lambda: now[0])
    quick.expect("learning", 100)
    quick.start("learning", "went on from step 90")
    now[0] += 5
    quick.stop()
    assert "who (about 52 s left)" in (capsys.readouterr().out, job(1))[1], "nor does the rest of what was done before"
    other = Clock(tmp_path / "times.json", "another", lambda: now[0])
    other.expect("photos", 3)
    assert other.left() == 0 and words(7384) == "2 h 3 min" and words(59.7) == "1 min 0 s"


@pytest.mark.timeout(600)
def test_a_second_motion_starts_from_what_was_learned(
    tmp_path, make_config, prepared, tiny_base, puppet_data, monkeypatch, capfd
):  # fmt: skip
    """Photos and motion as data sets, tiny networks: all steps, once with learning and once without."""
    (configs := tmp_path / "configs").mkdir()
    few = {"model__control_from": prepared}
    save_config(make_config("reference", "two", train__max_steps=2, **few), configs / "step2.yaml")
    save_config(make_config("sample", "three", sample__num_inference_steps=2, **few), configs / "step3.yaml")
    clip = find_clip(puppet_data / "train", "")
    facts = {"width": clip.width, "height": clip.height, "fps": 12.0}
    np.savez(tmp_path / "wave.npz", keypoints=np.stack([clip.load_keypoints(k) for k in range(3)]), **facts)

    mine = tmp_path / "out" / "mine.mp4"
    write_video(mine, np.zeros((2, 64, 64, 3), np.uint8), 12, metadata={"comment": "Generated by Meta-Animator"})  # which may go
    monkeypatch.setenv("CONFIG", str(configs))
    monkeypatch.setenv("ANIMATE_DIR", str(tmp_path / "all"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)

    def animate(motion, *more):
        assert run(monkeypatch, str(puppet_data / "person"), str(motion), *more) == 0
        return capfd.readouterr().out

    said = animate(puppet_data / "train", str(mine), "--same-person")
    assert VideoSource(mine).num_frames == clip.num_frames
    assert read_image(mine.with_suffix(".png")).shape[1] > 4 * 224 and "psnr" in said
    assert "learned already" not in said
    shown = ("sample.num_inference_steps=3", f"model.tiny_vae={tiny_base / 'tiny_vae'}")
    again = animate(tmp_path / "wave.npz", *shown)  # which is nothing that is learned
    assert "learned already" in again and "left)" in again
    waves = list((tmp_path / "all" / "person").glob("wave-??????.mp4"))
    assert len(waves) == 1 and VideoSource(waves[0]).num_frames == 3 and is_generated(waves[0])
    assert len(list((tmp_path / "all" / "person").glob("tuned-*"))) == 1


def test_on_wan_a_film_of_any_length_drives_what_stage_2_made_of_the_bases_own_branch(
    tmp_path, tiny_wan, moving_data, monkeypatch
):  # fmt: skip
    """Seven frames, where the base takes five or nine; the steps in this process."""
    steps = {"scripts/train.py": train, "sample.py": sample}

    def run_here(script, *arguments):
        script, config, *overrides = arguments if script == "launch.py" else (script, *arguments)
        steps[script](load_config(config, overrides))

    monkeypatch.setattr(animating, "_run", run_here)
    (configs := tmp_path / "configs" / "quickstart").mkdir(parents=True)
    alone = {"model__motion_from": "", "model__motion_lora_rank": 0}
    learning = wan_config(tmp_path / "reference", tiny_wan, moving_data, "reference", model__control_from="")
    save_config(learning, configs / "step2.yaml")
    save_config(wan_config(tmp_path / "sample", tiny_wan, moving_data, "sample", **alone), configs / "step3.yaml")
    clip = find_clip(moving_data / "train", "")
    points = np.stack([clip.load_keypoints(k % clip.num_frames) for k in range(7)])
    np.savez(tmp_path / "walk.npz", keypoints=points, width=clip.width, height=clip.height, fps=12.0)
    job = Job(
        photos=moving_data / "person", motion=tmp_path / "walk.npz", output=None, overrides=["seed=3"],
        configs=configs.parent, root=tmp_path / "all",
    )  # fmt: skip
    video = animate(job)
    assert VideoSource(video).num_frames == 7 and is_generated(video) and video.with_suffix(".png").is_file()


def test_a_base_that_is_not_fetched_to_the_end_is_told_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, command in (("wan", "wan"), ("wan14b", "wan14b"), ("Realistic_Vision_V6.0_NV_B1_fp16.safetensors", "sd15")):
        with pytest.raises(UserError, match=rf"is not there yet; python scripts/get_weights\.py {command}$"):
            check_base(Path("models") / place)
    (tmp_path / "wan").mkdir()
    check_base(tmp_path / "wan")
    (tmp_path / ".wan.part").mkdir()
    with pytest.raises(UserError, match=rf"get_weights\.py wan --into {tmp_path}$"):
        check_base(tmp_path / "wan")


def run(monkeypatch, *arguments):
    """The exit code of scripts/animate.py, in this process; its steps are processes of their own."""
    monkeypatch.setattr(sys, "argv", ["animate.py", *arguments])
    try:
        runpy.run_path(str(ROOT / "scripts" / "animate.py"), run_name="__main__")
    except SystemExit as end:
        return end.code
    return 0


def test_people_of_one_name_have_folders_of_their_own(tmp_path):
    def job(photos, person=""):
        (tmp_path / photos).mkdir(parents=True, exist_ok=True)
        return Job(
            photos=tmp_path / photos, motion=tmp_path / "m.npz", output=None, overrides=[], configs=tmp_path,
            root=tmp_path / "all", person=person,
        )  # fmt: skip

    first = job("a/photos")
    first.home.mkdir(parents=True)
    (first.home / "photos.txt").write_text(str(tmp_path / "a" / "photos"))
    assert job("a/photos").home == first.home == tmp_path / "all" / "photos"
    assert job("b/photos").home != first.home and job("b/photos").home == job("b/photos").home
    assert job("b/photos", "photos").home == first.home, "a name that is given is one person"
    assert job("Müller").home.name == "Müller" and job("李").home != job("王").home


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["photos"], "expected PHOTOS and MOTION, and maybe OUT.mp4, got 1 names"),
        (["photos", "nothing.mp4"], "nothing.mp4: expected a film, keypoints (.npz, JSON) or a data set"),
        (["nobody", "{film}"], "nobody: no such file or folder; give a folder of photos"),
        (["nobody", "{film}", "train.max_step=3"], "train.max_step"),
        (["people", "{film}", "out.avi"], "out.avi: videos are written as MP4"),
        (["people", "{film}", "{film}"], "film.mp4: exists and was not made by this program"),
        (["people", "{film}", "{shot}"], "shot.png: exists, and would be replaced"),
        (["people", "{film}", "output_dir=x"], "argument 'output_dir=x': animate.sh sets output_dir itself"),
        (["people", "{points}"], "lacks width, height or fps"),
        (["people", "{whole}", "--same-person"], "has no frames to compare with"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, arguments, said, monkeypatch, capfd):
    film = write_video(tmp_path / "film.mp4", [np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)] * 3, 12)
    (tmp_path / "people").mkdir()
    (tmp_path / "shot.png").write_bytes(b"of the user's")
    np.savez(tmp_path / "points.npz", keypoints=np.ones((3, 133, 3), np.float32))
    np.savez(tmp_path / "whole.npz", keypoints=np.ones((3, 133, 3), np.float32), width=64, height=64, fps=12)
    places = {"shot": tmp_path / "shot.mp4", "points": tmp_path / "points.npz", "whole": tmp_path / "whole.npz"}
    given = [text.format(film=film, **places) for text in arguments]
    monkeypatch.setenv("META_ANIMATOR_STARTED_IN", str(tmp_path))
    monkeypatch.setenv("ANIMATE_DIR", str(tmp_path / "all"))
    monkeypatch.chdir(ROOT)
    assert run(monkeypatch, *given) == 2
    lines = capfd.readouterr().err
    assert said in lines and lines.count("\n") == 1
    assert VideoSource(film).num_frames == 3, "nothing is lost"


@pytest.mark.parametrize("name", ["Müller", "李, a]", 'the "one"', "it's"])
def test_any_name_of_a_folder_reaches_the_training(tmp_path, puppet_data, monkeypatch, name):
    photos = shutil.copytree(puppet_data / "person", tmp_path / name / "photos")
    calls = []
    monkeypatch.setattr(animating, "_run", lambda *words: calls.append(words))
    job = Job(
        photos=photos, motion=puppet_data / "driving", output=None, overrides=[], configs=ROOT / "configs" / "demo",
        root=tmp_path / name / "animate",
    )  # fmt: skip
    learn(job, load_config(job.config("step2"), []), photos, Clock(tmp_path / "times.json", ""))
    ((_, _, config, *overrides),) = calls
    assert load_config(config, overrides).data.train == [str(photos)]


def test_embedded_prompts_stay_with_the_person(tmp_path):
    job = Job(
        photos=tmp_path / "anna", motion=tmp_path, output=None, overrides=[], configs=ROOT / "configs" / "wan", root=tmp_path,
    )  # fmt: skip
    config = load_config(job.config("step2"), [])
    assert texts_of(job, config) == [f"model.text_cache={tmp_path / 'anna' / 'texts'}"]
    named = dataclasses.replace(job, overrides=["model.text_cache=here"])
    assert texts_of(named, config) == [] == texts_of(job, load_config(ROOT / "configs/demo/step2.yaml", []))


def test_the_sheet_reads_what_it_shows(tmp_path, puppet_data, monkeypatch):
    """Eight frames of each row, of a film of any length."""
    for name in ("frames", "driving"):
        for k in range(40):
            write_image(tmp_path / "run" / name / f"{k:06d}.png", np.full((16, 16, 3), 6 * k, np.uint8))
    read = []
    monkeypatch.setattr(animate_sheet, "read_image", lambda file: read.append(file) or read_image(file))
    animate_sheet.animation_sheet(puppet_data / "person", tmp_path / "run", tmp_path / "no.mp4", "", tmp_path / "sheet.png")
    assert len(read) == 16 and read[0].name == "000000.png" and read[-1].name == "000039.png"
    assert read_image(tmp_path / "sheet.png").max() > 200
