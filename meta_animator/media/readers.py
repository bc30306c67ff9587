"""The two libraries that read frames by number: PyAV, and decord where it gives the same pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.errors import UserError, check_handles
from meta_animator.media.display import BT601, show, swscale
from meta_animator.media.probe import EXPECTED, VideoFacts, open_stream

SHORT_HOP = 3  # frames that are rather decoded than sought past
SAME_PICTURE = 3.0  # mean difference, in steps of 8 bits, between two libraries' conversions of one frame


class PyAVReader:
    """Frames in any order. The file stays open between calls, so that reading on costs no seeking."""

    def __init__(self, path: Path, facts: VideoFacts) -> None:
        self.path, self.facts = path, facts
        self.convert = swscale()
        self.opened: Any = None  # the context manager that holds the file
        self.decoded: Iterator[Any] = iter(())
        self.position = -1  # number of the frame decoded last
        self.latest: tuple[int, np.ndarray] | None = None  # the picture given last, and its number

    def read(self, wanted: Sequence[int]) -> list[np.ndarray]:
        """These frames, uint8 (h, w, 3) each. Raises UserError where the file does not decode."""
        import av

        found: dict[int, np.ndarray] = {}
        for index in sorted(set(wanted)):
            try:
                found[index] = self._picture(index)
            except (av.error.FFmpegError, av.error.EOFError, ValueError) as error:
                self.close()
                if isinstance(error, UserError):
                    raise
                check_handles(error, self.path)
                what = str(error) if type(error) is ValueError else "does not decode"
                raise UserError(f"{self.path}: frame {index}: {what}; {EXPECTED}") from error
        return [found[index] for index in wanted]

    def close(self) -> None:
        """Close the file; `read` opens it again."""
        self.decoded, self.position, self.latest = iter(()), -1, None
        if self.opened is not None:
            opened, self.opened = self.opened, None
            opened.__exit__(None, None, None)

    def _picture(self, index: int) -> np.ndarray:
        if self.latest is None or self.latest[0] != index:
            frame = self._decode(index)
            self.latest = index, np.ascontiguousarray(show(frame, self.facts.display, self.convert))
        return self.latest[1]

    def _decode(self, index: int) -> Any:
        if self.opened is None:
            self._rewind()
        if not self._reads_on_to(index):
            self._seek(index)
        frame = self._read_on_to(index)
        if frame is None:  # it cannot be sought in, or seeking has landed behind the frame
            self._rewind()
            frame = self._read_on_to(index)
        if frame is None:
            raise UserError(f"{self.path}: frame {index} does not decode; {EXPECTED}")
        return frame

    def _reads_on_to(self, index: int) -> bool:
        """Whether decoding from here on costs less than seeking."""
        ahead = index - self.position
        if ahead <= SHORT_HOP or self.facts.keys is None:
            return 0 < ahead <= max(SHORT_HOP, self.facts.fps)
        return not self.facts.keys[self.position + 1 : index + 1].any()

    def _rewind(self) -> None:
        self.close()
        opened = open_stream(self.path)
        self.container, self.stream = opened.__enter__()
        self.opened, self.decoded = opened, self.container.decode(self.stream)

    def _seek(self, index: int) -> None:
        import av

        try:
            self.container.seek(int(self.facts.timestamps[index]), stream=self.stream)
            self.decoded, self.position = self.container.decode(self.stream), -1
        except (av.error.FFmpegError, av.error.EOFError):
            self._rewind()

    def _read_on_to(self, index: int) -> Any | None:
        """Frame `index`, or None where what comes next lies behind it or the file ends."""
        stamps = self.facts.timestamps
        for frame in self.decoded:
            place = len(stamps) if frame.pts is None else int(np.searchsorted(stamps, frame.pts))
            if place == len(stamps) or stamps[place] != frame.pts:
                continue
            self.position = place
            if place >= index:
                return frame if place == index else None
        return None


def open_decord(path: Path, facts: VideoFacts, first: np.ndarray) -> Any | None:
    """A decord reader, or None where decord is missing or would give other frames than a player shows; first: PyAV's
    picture of frame 0."""
    display = facts.display
    mirrored = display.flip_x != (display.flip_y != display.transposed)
    turned = display.turns and (mirrored or "mp4" not in facts.container)  # it knows the turning of MP4 alone
    if turned or not display.ordinary or not (display.tagged or display.matrix == BT601):
        return None
    try:
        import decord

        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) != facts.num_frames or float(reader.get_frame_timestamp(0)[0]) < -1e-3:
            return None
        picture = reader[0].asnumpy()
    except Exception:  # an import error, or decord's own error type for what it cannot open
        return None
    same = picture.shape == first.shape and np.abs(picture.astype(np.int16) - first).mean() <= SAME_PICTURE
    return reader if same else None
