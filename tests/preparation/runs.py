"""Preparations with the fakes, and what they leave."""

from pathlib import Path

from meta_animator.preparation.footage_set import FootageConfig, prepare_footage
from meta_animator.preparation.quality import Limits
from tests.preparation.fakes import FakeAnnotators

EASY = Limits(min_height=20, min_sharpness=0.0, blur_ratio=0.0)


def prepare(inputs, output, annotators=None, progress=lambda *_: None, **changes):
    """(summary, annotators) of a preparation of inputs, with the fakes."""
    annotators, changes = annotators or FakeAnnotators(), {"limits": EASY} | changes
    config = FootageConfig(inputs=[inputs] if isinstance(inputs, Path) else inputs, output=output, **changes)
    return prepare_footage(config, annotators, progress), annotators


def files_of(folder: Path, *, times: bool = False) -> dict:
    """What each file of a data set holds, or when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (".lock", "source.json")]
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns if times else path.read_bytes()
        for path in files if not (times and path.parent.name == "sheets")
    }  # fmt: skip


def without_times(files: dict) -> dict:
    return {name: content for name, content in files.items() if "/frames/" not in name or "annotated" not in name}


class Interrupted(Exception):
    pass
