"""The sequences of published data sets as sources of footage, whose people are annotated like any others."""

import dataclasses
from pathlib import Path

from meta_animator.preparation.footage import Source, check_apart, slug
from meta_animator.preparation.formats.trees import Sequence, find_sequences
from meta_animator.preparation.formats.tsv import find_tsv, unpack

UNPACKED = "{}-unpacked"


def sources_of(format: str, root: Path, output: Path) -> list[Source]:
    """A source for each sequence that `sequences_of` finds."""
    return [
        Source(
            name=slug(one.name), path=one.path, kind="clip", identity=one.name, group=slug(one.name), frames=one.frames,
            fps=one.fps, masks=one.masks, split=one.split,
        )
        for one in sequences_of(format, root, output)
    ]  # fmt: skip


def sequences_of(format: str, root: Path, output: Path) -> list[Sequence]:
    """The sequences of a data set of a format of `trees`; DisCo's TSV files are unpacked first, beside `output`.

    Raises UserError where `root` is not of that format, or lies in `output`.
    """
    check_apart([root], output, inside=True)
    files = find_tsv(root) if format == "disco" and root.is_dir() else []
    if not files:
        return _named_once(find_sequences(format, root))
    into = output.with_name(UNPACKED.format(output.name))
    print(f"note: {root}: the pictures of {len(files)} TSV files are unpacked to {into}; drawn poses are left out")
    return _named_once([one for split in unpack(files, into) for one in _of_split(split)])


def _named_once(found: list[Sequence]) -> list[Sequence]:
    """Those that can be told apart by their names; says which others there are."""
    first: dict[str, Sequence] = {}
    for one in found:
        if first.setdefault(slug(one.name), one) is not one:
            print(f"note: {one.path}: is named as {first[slug(one.name)].path} is, and left out")
    return list(first.values())


def _of_split(folder: Path) -> list[Sequence]:
    split = "heldout" if folder.name == "heldout" else "train"
    return [dataclasses.replace(one, split=split) for one in find_sequences("disco", folder)]
