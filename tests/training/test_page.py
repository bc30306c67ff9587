"""A run's page: what it costs is what is new, and what it shows does not depend on what was kept."""

import json

import numpy as np
import pytest

from meta_animator.media.images import write_image
from meta_animator.settings import RunConfig
from meta_animator.training import page
from meta_animator.training.page import SHOWN_PREVIEWS, RunPage


@pytest.fixture
def run(tmp_path):
    """A run folder, and what adds (steps, previews) to it."""
    (tmp_path / "metrics.jsonl").touch()

    def add(steps, previews):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            for step in steps:
                file.write(json.dumps({"step": step, "task": "ab"[step % 2], "loss": 1 / step, "face": None}) + "\n")
        for k in previews:
            write_image(tmp_path / "previews" / f"step-{k:06d}.png", np.full((8, 8, 3), k, np.uint8))

    return tmp_path, add


def test_pages_of_a_run_are_those_of_one_that_begins_anew_and_encode_each_preview_once(run, monkeypatch):
    folder, add = run
    encoded, embed = [], page._embed
    monkeypatch.setattr(page, "_embed", lambda path: encoded.append(path.stem[-2:]) or embed(path))
    kept = RunPage(folder, RunConfig(), {"torch": "2"})
    pages = []
    for steps, previews in (([], []), ([1, 2], [1, 2]), ([3], []), ([4, 5], range(3, 10)), ([6], [2])):
        add(steps, previews)
        pages.append(kept.of_now()().read_text())
    assert encoded == ["02", "01", *("09", "08", "07", "06", "05", "04", "03"), "02"], "again only what is another file"
    assert pages[-1] == RunPage(folder, RunConfig(), {"torch": "2"}).of_now()().read_text()
    assert "None yet." in pages[0] and "Nothing was logged yet." in pages[0] and "step 6 of" in pages[-1]
    assert pages[1].count("<img") == 2 and pages[1].count("<svg") == 1 and len(set(pages)) == 5


def test_a_page_shows_what_there_was_when_it_was_asked_for(run):
    """It is written while the run goes on: later lines, half a line and later previews are the next page's."""
    folder, add = run
    add([1, 2], [1])
    kept = RunPage(folder, RunConfig(), {})
    now = kept.of_now()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "task": ')
    (folder / "previews" / ".step-000002.7.part.png").write_bytes(b"half")
    assert "step 2 of" in kept.of_now()().read_text()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('"a", "loss": 1.0}\n')
    add([], [2])
    text = now().read_text()
    assert "step 2 of" in text and text.count("<img") == 1
    text = kept.of_now()().read_text()
    assert "step 3 of" in text and text.count("<img") == 2


def test_of_many_previews_some_are_shown(run):
    folder, add = run
    add([1], range(30))
    text = RunPage(folder, RunConfig(), {}).of_now()().read_text()
    shown = [int(part[:6]) for part in text.split("<figcaption>step-")[1:]]
    assert len(shown) == SHOWN_PREVIEWS and shown == sorted(shown, reverse=True) and {shown[0], shown[-1]} == {29, 0}


def test_a_preview_that_cannot_be_read_is_said_on_the_page(run):
    """A picture that is just being copied there, or was cut off by a power cut."""
    folder, add = run
    add([1], [1])
    (folder / "previews" / "empty.png").touch()
    (folder / "previews" / "broken.png").write_bytes(b"no picture")
    text = RunPage(folder, RunConfig(), {}).of_now()().read_text()
    assert text.count("<img") == 1 and "broken.png: cannot be read as a picture" in text and "empty" not in text
