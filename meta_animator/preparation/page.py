"""What the page that a person decides by tells of a data set made from footage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.media.timeline import Timeline
from meta_animator.preparation.folder import ANNOTATED
from meta_animator.preparation.footage import Footage, OneOpen, Source
from meta_animator.preparation.footage_set import FootageConfig, FootageSummary
from meta_animator.preparation.overlay import overlay
from meta_animator.preparation.padding import bars_note
from meta_animator.preparation.photos import advice
from meta_animator.preparation.planning import Wish
from meta_animator.preparation.records import FrameRecord
from meta_animator.preparation.report import SIDE, Report, Section, write_report
from meta_animator.preparation.store import RUN, Seen, Store


def write_page(
    config: FootageConfig, summary: FootageSummary, command: str, left_off: Mapping[str, str], licences: Sequence[str]
) -> Path:
    """Writes report.html. command: which makes the data set again; left_off: {task: why it cannot be trained}."""
    home = config.output / ANNOTATED
    groups: dict[str, list[Wish]] = {}
    for wish in summary.wishes:
        groups.setdefault(wish.source.group, []).append(wish)
    sections = [_section(group, summary.records, home) for group in groups.values()]
    report = Report(
        title=config.output.name, command=command, limits=config.limits, tasks=summary.tasks, left_off=left_off,
        sections=sections, records=summary.records, licences=licences,
        clips=[(c.id, c.identity, c.split, c.num_frames, c.width, c.height) for c in summary.clips],
        notes=[f"left out: {error}" for error in summary.broken.values()],
    )  # fmt: skip
    painter = Painter({wish.source.name: wish.source for wish in summary.wishes}, home)
    try:
        return write_report(config.output, report, painter.paint)
    finally:
        painter.close()


class Painter:
    """Draws what is known of frames over them. Reads films from front to back, if it is asked like that."""

    def __init__(self, sources: Mapping[str, Source], home: Path) -> None:
        self.sources, self.home = sources, home
        self._open = OneOpen()

    def paint(self, record: FrameRecord) -> np.ndarray:
        """uint8 (h, w, 3)"""
        source = self.sources[record.source]
        footage = self._open.of(source)
        store = Store(self.home / source.name, footage.size)
        ((_, frames),) = footage.read([record.index])
        seen = store.read_run(record.index - record.index % RUN).get(record.index, Seen())
        layers = store.load(record.index, seen)
        return overlay(frames[0], layers.get("keypoints"), layers.get("mask"), side=SIDE)

    def close(self) -> None:
        self._open.close()


def advice_on(photos: Sequence[Wish], records: Sequence[FrameRecord], home: Path) -> list[str]:
    """What those of one person's photos lack that were kept."""
    kept = {record.source for record in records if record.kept}
    names = [wish.source.name for wish in photos if wish.source.name in kept]
    looks = [Store(home / name).read_run(0).get(0, Seen()).look for name in names]
    return advice([look for look in looks if look is not None])


def _section(group: Sequence[Wish], records: Sequence[FrameRecord], home: Path) -> Section:
    first, names = group[0].source, [wish.source.name for wish in group]
    if first.kind == "photo":
        title, lines = f"photos of {first.identity}", advice_on(group, records, home)
        return Section(title=title, identity=first.identity, sources=names, facts=[f"{len(group)} photos"], advice=lines)
    timeline = Timeline(np.asarray(group[0].times), group[0].fps)
    frames = f"{len(timeline.times)} frames, {len(group[0].unique)} looked at, {group[0].fps:.4g} per second"
    footage = Footage(first)
    height, width = footage.size
    footage.close()
    box = Store(home / first.name).read_note("picture").get("box", (0, 0, width, height))
    lines = [f"{width}x{height}", frames, bars_note(box, (height, width))]
    return Section(title=first.path.name, identity=first.identity, sources=names, facts=[line for line in lines if line])
