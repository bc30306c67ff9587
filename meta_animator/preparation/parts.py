"""A large set in shares that machines prepare by themselves: which sources are whose, and one manifest of all in the end."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.files import locked, whole_file
from meta_animator.preparation.annotating import Annotators
from meta_animator.preparation.folder import ANNOTATED, PARTS, read_entries, write_entries
from meta_animator.preparation.footage import Source
from meta_animator.preparation.footage_set import (
    FootageConfig,
    FootageSummary,
    Progress,
    find_all,
    prepare_footage,
    write_overview,
)
from meta_animator.preparation.store import digest

DONE = "part.json"
SETTINGS = ("identity", "prompt", "fps", "least", "alike", "format", "suffix")  # that make another data set, as they are


def share_of(sources: Sequence[Source], part: int, count: int) -> list[Source]:
    """The sources of share `part`, 1 to `count`: by their names, so that they do not depend on who else is there. The photos of
    one person stay together."""
    return [one for one in sources if int(hashlib.sha256(one.group.encode()).hexdigest(), 16) % count == part - 1]


def part_folder(folder: Path, part: int, count: int) -> Path:
    digits = len(str(count))
    return folder / PARTS / f"{part:0{digits}}-of-{count}"


def prepare_part(
    config: FootageConfig, annotators: Annotators, part: int, count: int, progress: Progress = lambda what, done, of: None
) -> tuple[FootageConfig, FootageSummary | None]:
    """Prepares a share of what `config` asks for. Returns the share's config, and what was made; None where it has no source.

    Raises UserError as `prepare_footage` does.
    """
    if config.heldout is not None:
        raise UserError("--heldout-frames is for one film or some photos, and not for parts")
    if (config.output / ANNOTATED).exists():
        raise UserError(f"{config.output}: holds a data set that was made in one go; name another folder for parts")
    sources = find_all(config)
    own = dataclasses.replace(config, output=part_folder(config.output, part, count))
    summary = None
    if share := share_of(sources, part, count):
        summary = prepare_footage(own, annotators, progress, share, empty=True)
    names = [source.name for source in sources]
    about = {"part": part, "of": count, "sources": digest(sorted(names)), "order": names}
    _write(own.output / DONE, about | {"settings": _settings(config, annotators)})
    return own, summary


def _settings(config: FootageConfig, annotators: Annotators) -> dict[str, Any]:
    """What all parts must have been made with, as JSON has it."""
    settings = {name: getattr(config, name) for name in SETTINGS}
    settings |= {"cut": dataclasses.asdict(config.cut), "limits": dataclasses.asdict(config.limits)}
    given = config.given
    settings |= {"annotators": dict(annotators.made_by), "given": [*sorted(given.paths), given.bright, given.axes]}
    return json.loads(json.dumps(settings))


def join(folder: Path, count: int = 0) -> int | None:
    """Makes one manifest of the parts, and sheets; returns the number of its clips, or None where parts are not there yet, or
    some are to be made again.

    count: of the parts; 0: whatever there is, and then it is a UserError if some are missing.
    """
    if not (folder / PARTS).is_dir():
        raise UserError(f"{folder}: holds no parts; expected the --output of --part K/N")
    with locked(folder / f".{PARTS}.lock"):
        counts = {int(path.name.partition("-of-")[2]) for path in (folder / PARTS).glob("[0-9]*-of-*")}
        if not count and len(counts) != 1:
            there = " and ".join(f"of {number}" for number in sorted(counts)) or "none"
            raise UserError(f"{folder / PARTS}: expected the parts of one division, there are {there}; remove the others")
        wanted, count = count, count or counts.pop()
        about = {part: _read(part_folder(folder, part, count) / DONE) for part in range(1, count + 1)}
        if missing := [str(part) for part, one in about.items() if not one]:
            if wanted:
                return None
            raise UserError(f"{folder / PARTS}: parts {', '.join(missing)} of {count} are not finished; run them first")
        if differ := _difference(list(about.values())):
            said = f"{folder / PARTS}: the parts were made {differ} each; run those again that are older"
            if wanted:
                print(f"note: not joined yet: {said}")
                return None
            raise UserError(said)
        entries = _all_entries(folder, about, count)
        if not entries:
            raise UserError(f"{folder / PARTS}: no part has a frame that can be kept")
        write_entries(folder, entries)
    write_overview(folder, read_manifest(folder))
    return len(entries)


def _difference(about: Sequence[dict[str, Any]]) -> str:
    """What the parts do not have in common; "" where they fit."""
    if len({one["sources"] for one in about}) > 1:
        return "of other inputs"
    settings = [one.get("settings", {}) for one in about]
    names = sorted({name for one in settings for name in one if any(other.get(name) != one[name] for other in settings)})
    return f"with other settings ({', '.join(names)})" if names else ""


def _all_entries(folder: Path, about: dict[int, dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The lines of all parts in the order in which one go would have them."""
    places = {name: place for place, name in enumerate(about[1]["order"])}
    found = []
    for part in about:
        own = part_folder(folder, part, count)
        for number, entry in enumerate(read_entries(own).values()):
            layers = {layer: str((own / path).relative_to(folder)) for layer, path in entry["layers"].items()}
            found.append((places[entry["id"].partition(".")[0]], number, entry | {"layers": layers}))
    return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])]


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}


def _write(path: Path, value: dict[str, Any]) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(value), encoding="utf-8")
