"""report.html of a film that was prepared: what it says is what was done."""

import runpy
from pathlib import Path

import numpy as np

from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from meta_animator.preparation.footage_set import FootageConfig, prepare_footage
from meta_animator.preparation.page import advice_on, write_page
from meta_animator.preparation.quality import Limits
from tests.preparation.fakes import FakeAnnotators, picture
from tests.preparation.runs import EASY
from tests.preparation.test_report import Page


def test_the_page_tells_size_bars_and_every_frame(tmp_path):
    """Ten frames, the first two of which show nobody, with black bars above and below."""
    frames = [np.pad(picture(x=30 + k, person=k > 1), ((24, 16), (0, 0), (0, 0))) for k in range(10)]
    write_video(tmp_path / "walk.mp4", frames, 10)
    limits = Limits(min_height=32, min_sharpness=0.0, blur_ratio=0.0, min_seen=0.0)
    config = FootageConfig(inputs=[tmp_path / "walk.mp4"], output=tmp_path / "out", least=1, limits=limits)
    summary = prepare_footage(config, FakeAnnotators())
    assert [record.index for record in summary.records if not record.kept] == [0, 1]
    page = Page(write_page(config, summary, "again", {}, ["not free"]).read_text(encoding="utf-8"))
    for told in (
        "10 frames and photos were looked at, 8 are kept (80 %)", "128x136; 10 frames, 10 looked at", "8 of 10 kept.",
        "nobody is seen: 2", "black bars left out: 24 pixels at the top, 16 pixels at the bottom", "not free", "again --limits",
    ):  # fmt: skip
        assert told in page.text, told
    assert len(page.sources) == 10, "all ten are shown"


def test_advice_is_on_the_photos_that_were_kept(tmp_path):
    """Of five, three show nobody."""
    for k in range(5):
        write_image(tmp_path / "in" / f"{k}.png", picture(x=20 + 15 * k, person=k > 2, seed=k))
    config = FootageConfig(inputs=[tmp_path / "in"], output=tmp_path / "out", least=1, limits=EASY)
    summary = prepare_footage(config, FakeAnnotators())
    lines = advice_on(summary.wishes, summary.records, tmp_path / "out" / "annotated")
    assert lines[0].startswith("2 photos are little to learn from")


def test_the_command_on_the_page_replaces_nothing(monkeypatch):
    """Masks may be corrected by hand by then."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "prepare_data.py"))
    given = ["prepare_data.py", "--input", "a b.mp4", "--overwrite", "--limits", "min_height=60", "--output", "out"]
    monkeypatch.setattr("sys.argv", given)
    assert script["_command"]() == "python prepare_data.py --input 'a b.mp4' --output out"
