"""report.html: every frame is counted, every reason shown, the page small and whole by itself."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from meta_animator.preparation import quality
from meta_animator.preparation.overlay import overlay
from meta_animator.preparation.quality import Limits
from meta_animator.preparation.records import FrameRecord
from meta_animator.preparation.report import PICTURES, Report, Section, choose_shown, write_report
from tests.data.people import layers_of_person

VOID = ("meta", "img", "br")


class Page(HTMLParser):
    """The page's texts and pictures; fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.texts, self.sources, self.classes = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        self.classes += [value for name, value in attrs if name == "class"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


def film(name: str, count: int, reasons: dict[int, str]) -> list[FrameRecord]:
    """Frames of which every so manieth is rejected."""
    records = []
    for k in range(count):
        why = next((reason for every, reason in reasons.items() if k % every == every - 1), "")
        facts = {"height": 300.0 + k % 7, "face_sharpness": 0.1 if why == quality.BLURRED else 0.6}
        made_by = {"keypoints": "blaze", "mask": "user" if k == 0 else "blaze"}
        records.append(
            FrameRecord(source=name, index=k, time=k / 10, kept=not why, reason=why, facts=facts, made_by=made_by)
        )
    return records


def report_of(sections, records, **more) -> Report:
    command = "python scripts/prepare_data.py"
    return Report(title="anna", command=command, limits=Limits(), sections=sections, records=records, **more)


def test_all_is_counted_and_some_of_each_kind_shown(tmp_path):
    records = film("dance", 4000, {7: quality.BLURRED, 1500: "nobody is seen"})
    section = Section(title="dance.mp4", identity="anna", sources=["dance"], facts=["64x64"], advice=["turn round once"])
    asked = []

    def picture(record):
        asked.append(record.index)
        return np.full((48, 64, 3), record.index % 255, np.uint8)

    more = {"tasks": ["dwpose"], "left_off": {"depth": "no annotator gives it"}, "licences": ["sam is not free"]}
    path = write_report(tmp_path, report_of([section], records, clips=[("d", "anna", "train", 9, 64, 48)], **more), picture)
    page = Page(path.read_text(encoding="utf-8"))
    blurred = sum(record.reason == quality.BLURRED for record in records)
    assert f"4000 frames and photos were looked at, {4000 - blurred - 2} are kept (86 %)." in page.text
    assert f"{quality.BLURRED}{blurred}face sharpness 0.1 to 0.1" in page.text.replace(" " * 2, " ")
    assert "min_sharpness=0.36" in page.text and "nobody is seen: 2" in page.text
    for told in ("turn round once", "no annotator gives it", "sam is not free", "yours: mask", "64x48"):
        assert told in page.text
    assert asked == sorted(asked) and len(asked) == 12 + 6 + 2 and asked[0] == 0, "pictures are asked for in order, once"
    assert page.classes.count("kept") == 1 and page.classes.count("rejected") == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources) and len(page.sources) == 20
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.sources[0].split(",")[1]))))
    assert shown.shape == (48, 64, 3) and "http" not in path.read_text()


def test_the_page_stays_small_with_many_films_and_reasons(tmp_path):
    names = [f"film{k}" for k in range(200)]
    records = [record for name in names for record in film(name, 40, {3: quality.SMALL, 5: quality.BLURRED, 7: "other"})]
    sections = [Section(title=name, identity="anna", sources=[name]) for name in names]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    path = write_report(tmp_path, report_of(sections, records), lambda record: noise)
    assert path.stat().st_size < 10e6
    page = Page(path.read_text(encoding="utf-8"))
    assert 0.9 * PICTURES < len(page.sources) <= PICTURES and page.text.count("of 40 kept.") == 200
    few = choose_shown(report_of(sections[:40], records))
    assert all(set(groups) == {"", quality.SMALL, quality.BLURRED, "other"} for groups in few)
    assert all(some for groups in few for some in groups.values()), "each reason of each film"


def test_names_are_no_markup_and_nothing_at_all_is_a_page_too(tmp_path):
    name = "<script>alert('x')</script> & \"co\""
    records = [FrameRecord(source=name, index=0, kept=False, reason=name, made_by={"mask": name})]
    section = Section(title=name, identity=name, sources=[name], facts=[name], advice=[name])
    text = write_report(tmp_path, report_of([section], records, notes=[name])).read_text(encoding="utf-8")
    assert "<script" not in text and Page(text).text.count(name) >= 6
    assert "0 frames" in Page(write_report(tmp_path, report_of([], [])).read_text()).text


@pytest.mark.parametrize("side", [0, 80])
def test_an_overlay_shows_person_skeleton_and_cut(side):
    layers = layers_of_person(160, 120)
    picture = overlay(layers.frame, layers.keypoints, layers.mask, side=side, box=(0, 0, 120, 160))
    scale = side / 160 if side else 1
    assert picture.shape == (round(160 * scale), round(120 * scale), 3)
    assert tuple(picture[0, 5]) == tuple(picture[-1, 5]) == (255, 200, 40)
    plain = overlay(layers.frame, side=side)
    inner = np.zeros(picture.shape[:2], bool)
    inner[2:-2, 2:12] = True  # beside the person
    assert picture[inner].mean() == pytest.approx(0.4 * plain[inner].mean(), abs=1.5)
    bare = overlay(layers.frame, None, layers.mask, side=side, box=(0, 0, 120, 160))
    changed = np.abs(picture.astype(int) - bare).max(-1) > 40
    knees = (layers.keypoints[[13, 14], :2] * scale).round().astype(int)
    assert all(changed[y - 2 : y + 3, x - 2 : x + 3].any() for x, y in knees) and not changed[:5].any()
    assert np.array_equal(overlay(layers.frame), layers.frame)
