"""report.html of a film that was prepared: what it says is what was done."""

import numpy as np

from meta_animator.media.video import write_video
from meta_animator.preparation.footage_set import FootageConfig, prepare_footage
from meta_animator.preparation.page import write_page
from meta_animator.preparation.quality import Limits
from tests.preparation.fakes import FakeAnnotators, picture
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
