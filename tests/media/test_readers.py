"""Many films: few are open at a time, whichever library reads them, and a lack of handles is said as what it is."""

import multiprocessing
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data.clips import Clip, read_keypoints
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, write_image
from meta_animator.media.recent import Recent
from meta_animator.media.video import FILMS_OPEN, VideoSource, open_film, write_video

HANDLES = Path("/proc/self/fd")
COUNT = 3 * FILMS_OPEN


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Films whose frames are grey: 10 x the film's number, plus the frame's."""
    return [
        write_video(tmp_path / f"{k}.mp4", [np.full((48, 64, 3), 10 * k + j, np.uint8) for j in range(6)], fps=10)
        for k in range(COUNT)
    ]


def clips(films: list[Path], reader: str) -> list[Clip]:
    facts = {"identity": "anna", "fps": 10, "num_frames": 6, "width": 64, "height": 48, "video_reader": reader}
    return [Clip(folder=film.parent, id=film.stem, layers={"frame": film.name}, **facts) for film in films]


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.skipif(not HANDLES.exists(), reason="handles are counted in /proc")
def test_few_films_are_open_however_many_are_read(films, reader):
    data = clips(films, reader)
    before, threads, most = len(list(HANDLES.iterdir())), len(list(Path("/proc/self/task").iterdir())), 0
    for index in (0, 5, 2):
        for number, clip in enumerate(data):
            assert abs(int(clip.load(index).frame.mean()) - 10 * number - index) <= 2
            most = max(most, len(list(HANDLES.iterdir())))
    assert most - before <= FILMS_OPEN < len(films)  # half as many with decord, each with a handle for either library
    assert len(list(Path("/proc/self/task").iterdir())) - threads <= (0 if reader == "pyav" else FILMS_OPEN)


def test_a_closed_film_reads_on(films):
    source = VideoSource(films[3])
    assert abs(int(source.read([4]).mean()) - 34) <= 2
    source.close()
    assert [round(float(frame.mean())) - 30 for frame in source.read([5, 0])] == pytest.approx([5, 0], abs=2)


def test_threads_and_forked_processes_have_films_of_their_own(films):
    mine = open_film(films[1])
    others = []
    thread = threading.Thread(target=lambda: others.append(open_film(films[1])))
    thread.start()
    thread.join()
    assert open_film(films[1]) is mine and others[0] is not mine
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        shown, its_own = pool.apply(_read_in_a_fork, (films[1], 3, id(mine)))
    assert its_own and abs(shown - 13) <= 2 and abs(int(mine.read([2]).mean()) - 12) <= 2


def _read_in_a_fork(film: Path, index: int, parents: int) -> tuple[int, bool]:
    """(mean grey of a frame, whether another reader than the parent's has read it)."""
    reader = open_film(film)
    return int(reader.read([index]).mean()), id(reader) != parents


def test_what_was_used_last_stays():
    gone: list[str] = []
    recent = Recent(5, weigh=len, let_go=gone.append)
    for key in ("aa", "bb", "aa", "cc"):
        recent.get(key, lambda key=key: key)
    assert gone == ["bb"]
    recent.get("long one", lambda: "long one")
    assert gone == ["bb", "aa", "cc"], "the newest stays, however heavy"


def test_too_many_open_files_are_said_as_such(tmp_path, films):
    picture = write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    np.savez(tmp_path / "a.npz", keypoints=np.zeros((1, 133, 3), np.float32))
    VideoSource(films[0]).read([0])  # whatever is loaded at first use
    read_image(picture)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 128), hard))
    try:
        while True:
            taken.append(os.open(picture, os.O_RDONLY))
    except OSError:
        for read in (lambda: VideoSource(films[1]), lambda: read_image(picture), lambda: read_keypoints(tmp_path / "a.npz")):
            with pytest.raises(UserError, match=r"too many files are open; raise the limit \(ulimit -n"):
                read()
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
