"""Reading frames of a video by number, and writing videos that every player shows."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.media.probe import VideoFacts, probe_video
from meta_animator.media.readers import PyAVReader, open_decord
from meta_animator.media.recent import Recent
from meta_animator.media.timeline import Timeline

READERS = ("pyav", "decord")
FILMS_OPEN = 4  # a clip has one film of its frames, and may have some of its conditions
DECORD_WEIGHT = 2  # films that one read by decord counts as: it decodes ahead, and keeps hundreds of MB of a long group
FRAMES_KNOWN = 2_000_000  # whose time stamps are kept, of films that are closed


class VideoSource:
    """Frames of one video file, by number, as a player shows them. Not to be shared between threads or processes.

    PyAV reads every file, random frames faster, and keeps less in memory. With reader="decord" decord reads where it gives
    the same pictures, PyAV the rest (edit lists, AV1, mirrored, HDR, untagged HD and others).
    """

    def __init__(
        self, path: str | Path, *, verify: bool = True, reader: str = "pyav", drawn: bool = False,
        facts: VideoFacts | None = None,
    ) -> None:  # fmt: skip
        """Opens `path`; `verify` decodes the last frame first, which finds files that were cut off. drawn: it shows what a
        program drew, see `Display.drawn`. facts: what an earlier probe has found.

        Raises UserError for a file that is missing, empty, cut off or not a video.
        """
        assert reader in READERS, reader
        self.path = Path(path)
        found = facts or probe_video(self.path, verify=verify)
        self.facts = dataclasses.replace(found, display=found.display.drawn()) if drawn else found
        self._pyav = PyAVReader(self.path, self.facts)
        self._decord = None
        if reader == "decord":
            self._decord = open_decord(self.path, self.facts, self._pyav.read([0])[0])

    @property
    def num_frames(self) -> int:
        """Number of frames a player would show."""
        return self.facts.num_frames

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.facts.fps

    @property
    def timeline(self) -> Timeline:
        """When each frame is shown."""
        return self.facts.timeline

    @property
    def width(self) -> int:
        """Width in pixels, as a player shows it: upright, with square pixels."""
        return self.facts.width

    @property
    def height(self) -> int:
        """Height in pixels, as a player shows it."""
        return self.facts.height

    @property
    def backend(self) -> str:
        """ "decord" or "pyav": which library reads this file."""
        return "pyav" if self._decord is None else "decord"

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames of these numbers, in the order asked for (repeats allowed): uint8 (n, height, width, 3), RGB.

        Raises IndexError outside 0 ... num_frames - 1, UserError where the file does not decode.
        """
        wanted = [int(index) for index in indices]
        if any(not 0 <= index < self.num_frames for index in wanted):
            raise IndexError(f"{self.path}: frames {min(wanted)}..{max(wanted)} of a video of {self.num_frames}")
        if not wanted:
            return np.zeros((0, self.height, self.width, 3), np.uint8)
        if self._decord is not None:
            try:
                return self._decord.get_batch(wanted).asnumpy()
            except Exception:  # decord raises its own error type; PyAV then decides whether the file is at fault
                self._decord = None
        return np.stack(self._pyav.read(wanted))

    def close(self) -> None:
        """Gives handles, threads and memory back; a later `read` opens the file again."""
        self._pyav.close()
        self._decord = None


_films = Recent(
    FILMS_OPEN, weigh=lambda film: DECORD_WEIGHT if film.backend == "decord" else 1, let_go=VideoSource.close
)
_facts = Recent(FRAMES_KNOWN, weigh=lambda facts: facts.num_frames)


def open_film(path: Path, reader: str = "pyav", *, drawn: bool = False) -> VideoSource:
    """The film of this path, opened if it is not open. Only the films used last stay open, and they are this thread's;
    do not keep what is returned."""

    def known() -> VideoFacts:
        return _facts.get(path, lambda: probe_video(path, verify=False))

    return _films.get((path, reader, drawn), lambda: VideoSource(path, reader=reader, drawn=drawn, facts=known()))


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], fps: float, *, crf: int = 17, gop: int = 24,
    metadata: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Writes uint8 (h, w, 3) RGB frames as MP4: H.264, yuv420p, BT.709, no B-frames, playable while it loads.

    metadata   texts kept in the file under these names (`ffprobe -show_format` and players' file info show them)
    Odd sizes are made even by repeating the last row or column. The file appears under its name only when complete.
    Raises ValueError for no frames, or frames of other shape or type; UserError where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: videos are written as MP4; give a name that ends in .mp4")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    with whole_file(path) as part:
        _encode(part, frames, Fraction(fps).limit_denominator(1001), crf, gop, metadata or {})
    return path


def _encode(
    part: Path, frames: Iterable[np.ndarray], rate: Fraction, crf: int, gop: int, metadata: Mapping[str, str]
) -> None:
    import av

    flags = "+faststart+use_metadata_tags"  # the latter keeps names that the format does not know
    with av.open(str(part), "w", format="mp4", options={"movflags": flags}) as container:
        container.metadata.update(metadata)
        stream, shape = None, None
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or shape not in (None, frame.shape):
                raise ValueError(f"frames must be uint8 (h, w, 3) of one size, got {frame.dtype} {frame.shape}")
            if stream is None:
                shape = frame.shape
                stream = _h264_stream(container, rate, shape, crf, gop)
            container.mux(stream.encode(_to_yuv(frame)))
        if stream is None:
            raise ValueError("no frames to write")
        container.mux(stream.encode())


def _h264_stream(container: Any, rate: Fraction, shape: Sequence[int], crf: int, gop: int) -> Any:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height = shape[1] + shape[1] % 2, shape[0] + shape[0] % 2
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": str(crf), "bf": "0", "g": str(gop)}
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = 1  # 16 to 235
    return stream


def _to_yuv(frame: np.ndarray) -> Any:
    import av

    even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
