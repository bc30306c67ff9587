"""What the page shows of what is the case: without a browser, and with nothing that runs."""

import json
import os
import shutil
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from meta_animator.app import jobs, looking, people, presets, uploads, views
from meta_animator.app.controls import Controls, Drafts, Now
from meta_animator.app.looking import Sight
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, write_image


@pytest.fixture
def controls(folders, monkeypatch):
    """Nobody looks at what is dropped, and nobody works."""
    monkeypatch.setattr(looking, "look_again", lambda draft, what: None)
    monkeypatch.setattr(jobs, "ensure_worker", lambda folders: None)
    return Controls(folders, presets.BASES)


@pytest.fixture
def now(controls):
    now = Now(base="embedded", quality="quick")
    controls.restore(now, "")
    return now


@pytest.fixture
def job(controls, now, dropped):
    controls.take_photos(now, [str(path) for path in sorted((dropped / "photos").iterdir())])
    controls.take_motion(now, str(dropped / "dance.mp4"))
    controls.submit(now, "anna")
    return jobs.find(controls.folders, now.job)


def finish(job, folders, state=jobs.DONE, log=""):
    """As a worker would leave it."""
    run = folders.people / job.person / "tuned-1"
    (run / "previews").mkdir(parents=True)
    make(run / "previews" / "step-000010.png")
    (run / "metrics.jsonl").write_text("".join(json.dumps({"step": k, "loss": 1 / k, "obedience": 0.5}) + "\n" for k in (1, 2)))
    job.log.write_text(f"$ x\n== a\n== b\n== c\n{log}")
    job.video.write_bytes(b"video")
    people.remember(folders, job.person, job.base, job.quality, run)
    jobs.end(job, state, 0 if state == jobs.DONE else 2, run.name)


def test_a_new_page_has_nothing_and_says_so(controls, now):
    shown = controls.show(now)
    assert "None yet" in shown["none"]["value"] and not shown["card"]["visible"] and shown["person"]["choices"] == [
        ("Somebody new", "")
    ]  # fmt: skip
    assert "200 steps of learning" in shown["choice"]["value"] and not shown["seen_photos"]["visible"]


def test_the_button_says_what_is_missing_where_it_is_missing(controls, now, dropped):
    controls.submit(now, "anna")
    assert list(now.problems) == ["motion"] and "there is no motion" in controls.show(now)["seen_motion"]["value"]
    controls.take_motion(now, str(dropped / "notes.txt"))
    assert "notes.txt: is a text file" in controls.show(now)["seen_motion"]["value"]
    controls.take_motion(now, str(dropped / "dance.mp4"))
    controls.submit(now, "anna")
    assert list(now.problems) == ["photos"]
    controls.take_photos(now, [str(dropped / "broken.jpg"), *map(str, (dropped / "photos").iterdir())])
    shown = controls.show(now)
    assert "broken.jpg" in shown["seen_photos"]["value"] and shown["clear"]["visible"]
    controls.clear_photos(now)
    assert not controls.show(now)["clear"]["visible"] and not now.problems


def test_what_the_machine_refuses_is_said_and_a_strange_folder_is_nobody(controls, now, monkeypatch):
    (controls.folders.people / "put here by hand" / "given").mkdir(parents=True)
    assert controls.show(now)["person"]["choices"] == [("Somebody new", "")]

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "new_id", full)
    page = Now(base="embedded", quality="quick")
    controls.restore(page, "")
    assert "No space left on device" in controls.show(page)["seen_photos"]["value"]


def test_a_base_that_is_not_here_is_said_at_once_and_refused(controls, now, monkeypatch):
    def absent(path):
        raise UserError(f"{path}: no such folder")

    monkeypatch.setattr(presets, "check_base", absent)
    now.base = "sd15"
    assert "python scripts/get_weights.py sd15" in controls.show(now)["choice"]["value"]
    controls.submit(now, "anna")
    assert list(now.problems) == ["choice"]


def test_after_the_button_the_job_is_shown_and_the_person_kept(controls, now, job):
    assert (now.person, now.values["job"], now.problems) == ("anna", job.id, {})
    assert now.draft and not uploads.list_photos(controls.folders.draft(now.draft)), "a new draft for the next motion"
    shown = controls.show(now)
    assert shown["job"]["choices"] == [("anna · dance — waiting (1)", job.id)] and shown["cancel"]["visible"]
    assert "Not learned yet" in shown["seen_photos"]["value"] and not shown["photos"]["visible"]
    again = Now(base="embedded", quality="quick")  # another tab
    controls.restore(again, "20000101-000000-00000000")
    assert again.job == job.id and again.draft != now.draft


def test_a_done_job_shows_its_video_and_what_was_learned(controls, now, job):
    finish(job, controls.folders)
    shown = controls.show(now)
    assert 'data-state="done"' in shown["status"]["value"] and shown["pack"]["visible"] and shown["delete"]["visible"]
    assert shown["result"]["value"].count("<video") == 2 and "Download the video" in shown["result"]["value"]
    assert "<svg" in shown["learning"]["value"] and "loss at step 2" in shown["learning"]["value"]
    assert "Preview at step 10;" in shown["learning"]["value"]
    assert "another motion starts at once" in shown["seen_photos"]["value"]
    now.quality = "usual"
    assert "learned anew" in controls.show(now)["seen_photos"]["value"]
    controls.choose_person(now)
    assert (now.base, now.quality, now.values["quality"]) == ("embedded", "quick", "quick")
    controls.delete(now)
    assert not controls.show(now)["card"]["visible"] and people.find(controls.folders, "anna").run is not None


def test_a_person_whom_somebody_deleted_by_hand_takes_nothing_along(controls, now, job):
    finish(job, controls.folders)
    shutil.rmtree(controls.folders.people / "anna")
    (controls.folders.jobs / "20000101-000000-00000000").mkdir()
    shown = controls.show(now)
    assert "<video" in shown["result"]["value"] and now.person == "" and not shown["pack"]["visible"]
    assert "no such person" in shown["log"]["value"] and len(shown["job"]["choices"]) == 1


def test_a_failed_job_shows_its_error_at_the_step_it_belongs_to(controls, now, job):
    finish(job, controls.folders, jobs.FAILED, "error: <b> is no number\n")
    shown = controls.show(now)
    before, _, step = shown["status"]["value"].partition('<li class="wrong">')
    assert "Learning" in step and "&lt;b&gt; is no number" in step and "error" not in before and shown["go_on"]["visible"]
    job.log.write_text("$ x\nerror: at once\n")
    assert controls.show(now)["status"]["value"].index("at once") < controls.show(now)["status"]["value"].index("<ol")


def test_a_job_in_the_midst_shows_bar_and_time(controls, now, job, monkeypatch):
    job.log.write_text("$ x\n== a\n== b\n== c\nreference:  10%|█ | 20/200 [00:30<04:30,  1.50s/step]")
    monkeypatch.setattr(jobs.processes, "is_alive", lambda process: True)
    jobs.write_json(job.folder / "process.json", {"pid": 1, "at": time.time()})
    assert "step 20 of 200, about 4 min 30 s left" in controls.show(now)["status"]["value"]


def test_names_and_lines_cannot_write_html(tmp_path):
    write_image(tmp_path / "a.png", read_image(make(tmp_path / "b.png")))
    seen = Sight(state="done", pictures=((tmp_path / "a.png", "<i>", "<script>"),), lines=("<u>",), error="")
    text = views.sight(seen, "<s>", "")
    assert not [tag for tag in ("<i>", "<script>", "<u>", "<s>") if tag in text] and text.count("&lt;") >= 3


def make(path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(path)
    return path


def test_files_that_the_browser_sent_do_not_stay(controls, now, dropped):
    sent = controls.folders.served / "x" / "wave.npz"
    sent.parent.mkdir()
    sent.write_bytes((dropped / "wave.npz").read_bytes())
    controls.take_motion(now, str(sent))
    assert not sent.exists() and (dropped / "wave.npz").exists()


def test_somebody_who_cannot_be_looked_at_is_no_riddle(folders):
    draft = folders.draft(uploads.new_draft(folders))
    looking.write_json(draft / "seen-photos.json", {"state": "busy"})  # and nobody looks
    assert "seen-photos.log says why" in looking.read_sight(draft, "photos").error


def test_somebody_who_is_only_beginning_to_look_has_not_broken_down(folders, monkeypatch):
    draft, seen = folders.draft(uploads.new_draft(folders)), []

    def start(command, log, cwd, env):
        seen.append(looking.read_sight(draft, "photos").state)  # as another request would
        return types.SimpleNamespace(pid=os.getpid())

    monkeypatch.setattr(looking.processes, "start", start)
    looking.look_again(draft, "photos")
    assert seen == [""] and looking.read_sight(draft, "photos").state == looking.BUSY


def test_qualities_of_the_command_line():
    name, settings = presets.with_quality("tiny=train.max_steps=2 sample.num_inference_steps=3")
    bases = presets.add_quality(presets.BASES, name, settings)
    assert presets.in_words(bases["wan"], settings).startswith("2 steps of learning, 3 of sampling")
    assert "tiny" not in presets.BASES["wan"].qualities
    for text in ("tiny", "tiny=", "=a=b", "tiny=steps", "a b=c=d"):
        with pytest.raises(UserError, match="expected NAME"):
            presets.with_quality(text)
    with pytest.raises(UserError, match="max_stepz"):
        presets.add_quality(presets.BASES, "tiny", ["train.max_stepz=2"])


@pytest.mark.parametrize("name", presets.BASES)
def test_every_offered_quality_is_one_that_the_configs_know(name):
    base = presets.BASES[name]
    for settings in base.qualities.values():
        assert "steps of learning" in presets.in_words(base, settings)


def test_what_was_wrong_with_a_drop_is_not_forgotten_as_the_page_opens(controls, dropped):
    """A file may be dropped before a slow program has come to what it does when a page is opened."""
    now = Now()
    controls.take_photos(now, str(dropped / "notes.txt"))
    before = dict(now.problems)
    controls.restore(now, "")
    assert now.problems == before and "notes.txt" in before["photos"]


def test_photos_and_motion_that_come_at_once_come_to_one_draft(controls, dropped, monkeypatch):
    """A page asks twice before it hears which draft was made for the first."""
    real = uploads.new_draft

    def slow(folders):
        time.sleep(0.2)
        return real(folders)

    monkeypatch.setattr(uploads, "new_draft", slow)
    drafts = Drafts()
    first, second = (Now(base="embedded", quality="quick", drafts=drafts) for _ in range(2))
    photos = [str(path) for path in sorted((dropped / "photos").iterdir())]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda act: act(), (
            lambda: controls.take_photos(first, photos), lambda: controls.take_motion(second, str(dropped / "dance.mp4")),
        )))  # fmt: skip
    draft = controls.folders.draft(first.draft)
    assert second.draft == first.draft and uploads.list_photos(draft) and uploads.find_motion(draft)
    controls.submit(first, "anna")
    late = Now(draft=second.draft, drafts=drafts)  # asked before the page knew what the button did
    controls.take_motion(late, str(dropped / "wave.npz"))
    assert late.draft == first.draft != second.draft


def test_a_look_that_began_before_the_button_does_not_lose_the_draft_after_it(controls, now, dropped):
    late = Now(draft=now.draft, drafts=now.drafts)
    controls.take_photos(now, [str(path) for path in sorted((dropped / "photos").iterdir())])
    controls.take_motion(now, str(dropped / "dance.mp4"))
    controls.submit(now, "anna")
    assert late.draft != now.draft
    controls.show(late)
    assert late.draft == now.draft


def test_what_a_page_asks_for_is_done_to_the_draft_that_it_has_by_now(controls):
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    from meta_animator.app.ui import Page

    page, asked = Page(controls), []
    controls.record = lambda now: asked.append(controls._draft(now))
    for session in ("one", "one", "two"):
        page._doing(controls.record)(types.SimpleNamespace(session_hash=session), "", None, None, "embedded", "quick")
    assert asked[0] == asked[1] != asked[2]
