"""report.html: what preparation kept, what it rejected and why, with pictures to judge it by, on one page by itself."""

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from meta_animator.files import whole_file
from meta_animator.preparation.quality import RULES, Limits
from meta_animator.preparation.records import FrameRecord, count_reasons
from meta_animator.preparation.store import GIVEN, USER

NAME, TEMPLATE = "report.html", "report.html"
PICTURES = 300  # on a page, of however many frames
KEPT_SHOWN, REJECTED_SHOWN = 12, 6  # of a section at most: frames that were kept, and that were rejected for one reason
SIDE, QUALITY = 240, 72  # pixels of a picture's longer side, quality of its JPEG
SHOWN_FACTS = {"height": "{:.0f} px high", "face": "face {:.0f} px", "face_sharpness": "face sharp {:.2f}",
               "body_sharpness": "body sharp {:.2f}", "seen": "{:.0%} of points"}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A film, or all photos of one person.

    sources  names of the sources whose records belong to it
    facts    lines, such as "1280x720, 24 frames per second"
    advice   lines
    """

    title: str
    identity: str
    sources: Sequence[str]
    facts: Sequence[str] = ()
    advice: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What the page tells.

    command   how to run preparation again; `limit_option` and NAME=VALUE behind it change limits
    records   of all frames and photos that were looked at
    clips     (id, identity, split, frames, width, height) of the data set
    tasks     that can be trained; left_off: {task: why it cannot}
    licences  lines that must be known before the data is used
    """

    title: str
    command: str
    limits: Limits
    sections: Sequence[Section]
    records: Sequence[FrameRecord]
    clips: Sequence[tuple[str, str, str, int, int, int]] = ()
    tasks: Sequence[str] = ()
    left_off: Mapping[str, str] = dataclasses.field(default_factory=dict)
    licences: Sequence[str] = ()
    notes: Sequence[str] = ()
    limit_option: str = "--limits"


def write_report(
    folder: Path, report: Report, picture: Callable[[FrameRecord], np.ndarray | None] = lambda record: None
) -> Path:
    """Writes `folder`/report.html. `picture` gives a record's frame uint8 (h, w, 3) with what is known of it drawn over, such as
    `overlay` draws it, or None; it is asked for the few that are shown, in the order of the records."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("meta_animator.preparation", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    chosen = choose_shown(report)
    wanted = {id(record) for groups in chosen for records in groups.values() for record in records}
    images = {id(record): _embed(picture(record)) for record in report.records if id(record) in wanted}
    reasons = _reasons(report)
    page = environment.get_template(TEMPLATE).render(
        report=report,
        kept=sum(record.kept for record in report.records),
        total=len(report.records),
        reasons=reasons,
        example=[limit for row in reasons for limit in row["limits"]] or [f"min_height={report.limits.min_height}"],
        limits=_limits(report.limits),
        made_by=_made_by(report.records),
        sections=[
            _section(section, groups, report, images) for section, groups in zip(report.sections, chosen, strict=True)
        ],
    )
    with whole_file(folder / NAME) as part:
        part.write_text(page, encoding="utf-8")
    return folder / NAME


def choose_shown(report: Report) -> list[dict[str, list[FrameRecord]]]:
    """For each section {"" for kept ones, or the reason: the records that are shown}, evenly chosen; every reason of a section
    is shown as long as the page's pictures last."""
    grouped = []
    places = {name: k for k, section in enumerate(report.sections) for name in section.sources}
    for _ in report.sections:
        grouped.append({})
    for record in report.records:
        if record.source in places:
            group = "" if record.kept else record.reason
            grouped[places[record.source]].setdefault(group, []).append(record)
    most = {"": KEPT_SHOWN}
    while sum(_shown(groups, most) for groups in grouped) > PICTURES and most != {"": 1, "*": 1}:
        most = {"": max(1, most[""] - 1), "*": max(1, min(REJECTED_SHOWN, most[""] // 2))}
    left, chosen = PICTURES, []
    for groups in grouped:
        some = {reason: _evenly(groups[reason], _most(most, reason)) for reason in sorted(groups, key=_order(groups))}
        for reason in some:
            some[reason] = some[reason][: max(0, left)]
            left -= len(some[reason])
        chosen.append(some)
    return chosen


def _most(most: Mapping[str, int], reason: str) -> int:
    return most[""] if reason == "" else most.get("*", REJECTED_SHOWN)


def _shown(groups: Mapping[str, Sequence[FrameRecord]], most: Mapping[str, int]) -> int:
    return sum(min(len(records), _most(most, reason)) for reason, records in groups.items())


def _order(groups: Mapping[str, Sequence[FrameRecord]]) -> Callable[[str], tuple]:
    """Kept ones first, then the most frequent reason."""
    return lambda reason: (reason != "", -len(groups[reason]), reason)


def _evenly(records: Sequence[FrameRecord], most: int) -> list[FrameRecord]:
    return [records[k] for k in sorted({round(k) for k in np.linspace(0, len(records) - 1, min(most, len(records)))})]


def _section(
    section: Section, groups: Mapping[str, Sequence[FrameRecord]], report: Report, images: Mapping[int, str]
) -> dict[str, Any]:
    names = set(section.sources)
    records = [record for record in report.records if record.source in names]
    counts = {"": sum(record.kept for record in records)} | count_reasons(records)
    return {
        "title": section.title, "identity": section.identity, "facts": section.facts, "advice": section.advice,
        "kept": counts[""], "total": len(records),
        "groups": [
            {"reason": reason, "count": counts[reason], "pictures": [_picture(one, images) for one in some]}
            for reason, some in groups.items()
        ],
    }  # fmt: skip


def _picture(record: FrameRecord, images: Mapping[int, str]) -> dict[str, Any]:
    title = record.source if record.time is None else f"{record.index} ({record.time:.2f} s)"
    facts = [text.format(record.facts[name]) for name, text in SHOWN_FACTS.items() if name in record.facts]
    mine = sorted(layer for layer, by in record.made_by.items() if by in (USER, GIVEN))
    return {"title": title, "facts": facts, "mine": mine, "image": images.get(id(record), "")}


def _reasons(report: Report) -> list[dict[str, Any]]:
    """Each reason with its count, what was measured of these frames, and the limits that decided."""
    rows = []
    for reason, count in count_reasons(report.records).items():
        limits, facts = RULES.get(reason, ((), ()))
        measured = []
        for name in facts:
            values = [r.facts[name] for r in report.records if r.reason == reason and name in r.facts]
            if values:
                measured.append(f"{name.replace('_', ' ')} {min(values):.3g} to {max(values):.3g}")
        decided = [f"{name}={_value(getattr(report.limits, name))}" for name in limits]
        rows.append({"reason": reason, "count": count, "measured": measured, "limits": decided})
    return rows


def _limits(limits: Limits) -> list[tuple[str, str, str]]:
    return [(f.name, _value(getattr(limits, f.name)), f.metadata["meaning"]) for f in dataclasses.fields(limits)]


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _made_by(records: Iterable[FrameRecord]) -> list[tuple[str, str, int]]:
    """(layer, who made it, in how many frames), by layer, the most frequent first."""
    counts = Counter((layer, by) for record in records for layer, by in record.made_by.items())
    return [(layer, by, count) for (layer, by), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))]


def _embed(picture: np.ndarray | None) -> str:
    if picture is None:
        return ""
    image, buffer = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
