"""From films and photos alone to a data set: people found, annotated, selected, cut and stored; what is done already stays."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.data.clips import Clip
from meta_animator.data.formats.maps import NOTHING, Given
from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.preparation.annotating import Annotators, Rules, Span, Worker
from meta_animator.preparation.clipping import Builder, Plan
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.folder import ANNOTATED, DataFolder
from meta_animator.preparation.footage import Footage, Source, check_apart, find_sources
from meta_animator.preparation.formats.filling import check_given, put_given, with_given
from meta_animator.preparation.formats.sources import sources_of
from meta_animator.preparation.planning import Selection, Wish, choose_frames, plan_all, runs_of, scenes_of
from meta_animator.preparation.pool import Pool
from meta_animator.preparation.prepare import SHEET_FRAMES, check_size, write_sheets
from meta_animator.preparation.quality import Limits
from meta_animator.preparation.records import FrameRecord, count_reasons
from meta_animator.preparation.store import RUN, Store, lost_stores
from meta_animator.training.lock import lock_folder

SPAN = 4 * RUN  # frames that a process is given at once
MARGIN = 40  # frames beside them that are looked at for cuts
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FootageConfig:
    """What to make from what.

    inputs    films, photos, and folders of them; a folder's sub-folders are people
    identity  of everybody; by default the sub-folder's or the input's name
    fps       frames per second to keep of films; None keeps all
    heldout   (first, end) frame numbers of the only film, or of the photos, kept out of training
    limits    what a frame needs to be kept
    least     frames of a film's clip at least
    alike     whether photos that nearly repeat another are kept
    format    of a published data set, which the only input is, a key of `formats.trees.FORMATS`; "": films and photos
    given     masks, depth, normals and body parts of the user's, which take the place of the annotators'
    suffix    of the files of frames, .png or .jpg
    workers   processes
    """

    inputs: Sequence[Path]
    output: Path
    identity: str = ""
    prompt: str = ""
    cut: Cut = Cut()
    fps: float | None = None
    heldout: tuple[int, int] | None = None
    limits: Limits = Limits()
    least: int = 4
    alike: bool = False
    format: str = ""
    given: Given = NOTHING
    suffix: str = ".png"
    workers: int = 1
    overwrite: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FootageSummary:
    """What was made. wishes: of all sources that can be read; records: of all frames that were looked at; broken: {file: why it
    cannot be read}."""

    clips: list[Clip]
    tasks: list[str]
    wishes: list[Wish]
    records: list[FrameRecord]
    broken: dict[str, str]
    made: int

    @property
    def frames(self) -> int:
        return sum(clip.num_frames for clip in self.clips)

    @property
    def heldout(self) -> int:
        return sum(clip.num_frames for clip in self.clips if clip.split == "heldout")

    @property
    def reasons(self) -> dict[str, int]:
        return count_reasons(self.records)


class NothingKept(UserError):
    """There is no frame for a data set; `summary` says why. restored: whether an older data set is in its place again."""

    def __init__(self, message: str, summary: FootageSummary, restored: bool) -> None:
        super().__init__(message)
        self.summary, self.restored = summary, restored


class Count:
    """Passes on how many frames of the jobs are done."""

    def __init__(self, what: str, jobs: Sequence[Span | Plan], progress: Progress) -> None:
        self.what, self.done, self.total, self.progress = what, 0, sum(map(_frames, jobs)), progress

    def __call__(self, frames: int) -> None:
        self.done += frames
        self.progress(self.what, self.done, self.total)


def prepare_footage(
    config: FootageConfig, annotators: Annotators, progress: Progress = lambda what, done, of: None,
    sources: Sequence[Source] | None = None, empty: bool = False,
) -> FootageSummary:  # fmt: skip
    """Makes, continues or brings up to date the data set. `progress(what, frames done, of)` is called as it goes.

    sources  those to take in the place of the inputs'
    empty    whether there may be nothing that can be kept

    Raises NothingKept for inputs of which nothing is kept (unless `empty`), UserError for what cannot be read, and for files of
    the user that do not fit.
    """
    check_size(config.cut.size)
    sources = find_all(config) if sources is None else sources
    with DataFolder(config.output, config.overwrite) as folder, lock_folder(config.output):
        folder.begin()
        home = config.output / ANNOTATED
        broken: dict[str, str] = {}
        places = {source.name: place for place, source in enumerate(sources)}
        wishes = sorted(_open_all(sources, home, config, broken), key=lambda wish: places[wish.source.name])
        wishes = _heldout(wishes, config.heldout)
        annotators = with_given(annotators, put_given(config.given, wishes, home, progress))
        rules = Rules(annotators)
        with Pool(config.workers, Worker, annotators, home) as pool:
            _see(pool, wishes, home, rules, broken, progress)
            wishes = [wish for wish in wishes if str(wish.source.path) not in broken]
            _annotate(pool, wishes, home, rules, broken, progress)
        wishes = [wish for wish in wishes if str(wish.source.path) not in broken]
        records: list[FrameRecord] = []
        selection = Selection(layers=rules.layers, limits=config.limits, least=config.least, alike=config.alike)
        plans = list(plan_all(wishes, home, selection, records))
        if not plans and not empty:
            summary = FootageSummary(clips=[], tasks=[], wishes=wishes, records=records, broken=broken, made=0)
            raise NothingKept(_nothing(config, records, broken), summary, folder.replaces)
        with Pool(config.workers, Builder, config.output, home, config.cut, config.suffix) as pool:
            made = _build(pool, plans, folder, config, progress)
    clips = read_manifest(config.output) if plans else []
    tasks = write_overview(config.output, clips) if plans else []
    return FootageSummary(clips=clips, tasks=tasks, wishes=wishes, records=records, broken=broken, made=made)


def find_all(config: FootageConfig) -> list[Source]:
    """All sources that a config names. Raises UserError where there is nothing to read, or what is given does not fit."""
    if not config.format:
        check_apart(config.inputs, config.output)
        sources = find_sources(config.inputs, config.identity)
        check_given(config.given, sources)
        return sources
    return sources_of(config.format, config.inputs[0], config.output)


def _open_all(sources: Sequence[Source], home: Path, config: FootageConfig, broken: dict[str, str]) -> Iterator[Wish]:
    """What is wanted of each source that can be read."""
    films = [source for source in sources if source.kind == "clip"]
    if config.fps is not None and not films:
        raise UserError("--fps is for videos; photos have no frame rate")
    lost = lost_stores(home, [source.name for source in sources])
    for source in sorted(sources, key=lambda one: not (home / one.name).exists()):  # those first whose store another one may get
        footage = Footage(source, verify=True)
        try:
            sha = Store(home / source.name).open_for(source.path, source.frames, lost)
            times = footage.timeline.times if source.kind == "clip" else ()
        except UserError as error:
            if len(sources) == 1:
                raise
            broken[str(source.path)] = str(error)
            continue
        indices, fps = choose_frames(footage, config.fps)
        heldout = (0, max(1, len(times))) if source.split == "heldout" else None
        yield Wish(source=source, sha=sha, indices=tuple(indices), fps=fps, times=times, heldout=heldout)


def _heldout(wishes: list[Wish], heldout: tuple[int, int] | None) -> list[Wish]:
    """With the frames of the only film, or the photos, that are kept out of training."""
    if heldout is None:
        return wishes
    first, end = heldout
    films = [wish for wish in wishes if wish.source.kind == "clip"]
    if films and len(wishes) > 1:
        raise UserError(f"--heldout-frames {first}:{end}: is for one video, or for photos; there are {len(wishes)} sources")
    numbers = wishes[0].unique if films else range(len(wishes))
    count = len(wishes[0].times) if films else len(wishes)
    if not 0 <= first < end <= count:
        expected = f"expected A:B with 0 <= A < B <= {count}, the frames there are"
        raise UserError(f"--heldout-frames {first}:{end}: {expected}")
    inside = [first <= number < end for number in numbers]
    if not any(inside) or all(inside):
        what = "train on" if all(inside) else "hold out"
        raise UserError(f"--heldout-frames {first}:{end}: leaves no frame to {what}")
    if films:
        return [dataclasses.replace(wishes[0], heldout=heldout)]
    return [dataclasses.replace(wish, heldout=(0, 1) if out else None) for wish, out in zip(wishes, inside, strict=True)]


def _see(
    pool: Pool, wishes: Sequence[Wish], home: Path, rules: Rules, broken: dict[str, str], progress: Progress
) -> None:
    """Everybody in all frames is detected, and mostly annotated."""
    spans = [span for wish in wishes for span in _unseen(wish, _store(home, wish), rules)]
    for span, error in pool.map("do", spans, _frames, Count("looking for people", spans, progress)):
        if error and len(wishes) == 1 and span.source.kind == "clip":
            raise UserError(error)
        if error:
            broken[str(span.source.path)] = error


def _unseen(wish: Wish, store: Store, rules: Rules) -> Iterator[Span]:
    unique = wish.unique
    todo: list[int] = []
    for start, run in runs_of(unique):
        known = store.read_run(start)
        if not all(rules.seen(known.get(index), wish.rate) for index in run):
            todo += run
    for indices in _pieces(todo, unique):
        first, last = unique.index(indices[0]), unique.index(indices[-1])
        margin = tuple(unique[max(0, first - MARGIN) : first]), tuple(unique[last + 1 : last + 1 + MARGIN])
        yield Span(source=wish.source, indices=tuple(indices), margin=margin, rate=wish.rate)


def _annotate(
    pool: Pool, wishes: Sequence[Wish], home: Path, rules: Rules, broken: dict[str, str], progress: Progress
) -> None:
    """What is missing, of the people who are followed, is annotated."""
    spans = [span for wish in wishes for span in _stale(wish, _store(home, wish), rules)]
    for span, error in pool.map("do", spans, _frames, Count("annotating", spans, progress)):
        if error:
            broken[str(span.source.path)] = error


def _stale(wish: Wish, store: Store, rules: Rules) -> Iterator[Span]:
    for scene in scenes_of(wish, store, look=rules.layers):
        people = dict(zip(scene.indices, scene.people, strict=True))
        stale = [i for i, seen in zip(scene.indices, scene.seen, strict=True) if not rules.current(seen, people[i])]
        for indices in _pieces(stale, scene.indices):
            yield Span(source=wish.source, indices=tuple(indices), people={index: people[index] for index in indices})


def _pieces(todo: Sequence[int], everything: Sequence[int]) -> Iterator[list[int]]:
    """`todo` in pieces without gaps in `everything`, of at most SPAN."""
    after = dict(itertools.pairwise(everything))
    piece: list[int] = []
    for index in todo:
        if piece and (after.get(piece[-1]) != index or len(piece) == SPAN):
            yield piece
            piece = []
        piece.append(index)
    if piece:
        yield piece


def _build(pool: Pool, plans: Sequence[Plan], folder: DataFolder, config: FootageConfig, progress: Progress) -> int:
    """Makes the clips that are not as they should be; returns the number of frames that were written."""
    made = 0
    for _, built in pool.map("build", plans, _frames, Count("storing frames", plans, progress)):
        folder.add(built, config.prompt)
        made += built.made
    folder.finish([plan.id for plan in plans])
    return made


def write_overview(folder: Path, clips: Sequence[Clip]) -> list[str]:
    """Contact sheets of a data set; returns the tasks that it shows."""
    return write_sheets(folder / "sheets", list(_samples(clips)), title=folder.resolve().name)


def _samples(clips: Sequence[Clip]) -> Iterator[tuple[str, Any]]:
    """Frames for sheets: of as many clips as there is room for, and of few clips several each."""
    some = [clips[round(k)] for k in np.linspace(0, len(clips) - 1, min(SHEET_FRAMES, len(clips)))]
    counts = [0] * len(some)
    while sum(counts) < SHEET_FRAMES and (free := [k for k, clip in enumerate(some) if counts[k] < clip.num_frames]):
        counts[min(free, key=lambda k: counts[k])] += 1
    for clip, count in zip(some, counts, strict=True):
        for index in sorted({round(k) for k in np.linspace(0, clip.num_frames - 1, count + 2)[1:-1]}):
            where = clip.id if clip.num_frames == 1 else f"{clip.id} {index}"
            yield f"{where}{' (held out)' if clip.split == 'heldout' else ''}", clip.load(index)


def _frames(job: Span | Plan) -> int:
    return len(job.indices)


def _store(home: Path, wish: Wish) -> Store:
    return Store(home / wish.source.name)


def _nothing(config: FootageConfig, records: Sequence[FrameRecord], broken: dict[str, str]) -> str:
    if not records:
        return next(iter(broken.values()))
    reasons = Counter(record.reason for record in records).most_common(3)
    why = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    also = f"; {len(broken)} files cannot be read, such as {next(iter(broken))}" if broken else ""
    return f"{config.inputs[0]}: none of {len(records)} frames can be kept: {why}{also}"
