"""What a video file really holds, learnt by walking through its packets with PyAV."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.errors import UserError, check_handles
from meta_animator.file_kinds import refuse_impostor
from meta_animator.media.display import Display, read_display
from meta_animator.media.timeline import Timeline

# Here one packet is one shown frame; in other codecs (VP8, ...) some packets show nothing, so frames must be decoded.
ONE_PACKET_PER_FRAME = frozenset({"h264", "hevc", "mpeg4", "mjpeg", "vp9", "prores", "ffv1"})
# Containers that point to further files, or hold a single picture.
NOT_A_CLIP = frozenset({"hls", "concat", "dash", "image2", "tty"})
EXPECTED = "expected a complete video file (MP4/H.264 is the safest)"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VideoFacts:
    """Facts of the first video stream.

    fps         average frames per second, as the file has it
    display     how a decoded frame is shown
    timestamps  int64 (num_frames,), of the shown frames in order of showing, in units of time_base
    keys        bool (num_frames,), the frames from which decoding can start; None where only decoding would tell
    container   names of the container, as FFmpeg has them
    """

    fps: float
    display: Display
    timestamps: np.ndarray
    time_base: Fraction
    keys: np.ndarray | None
    container: str

    @property
    def num_frames(self) -> int:
        """How many frames a player would show."""
        return len(self.timestamps)

    @property
    def width(self) -> int:
        """Width in pixels, as a player shows it: upright, with square pixels."""
        return self.display.size[0]

    @property
    def height(self) -> int:
        """Height in pixels, as a player shows it."""
        return self.display.size[1]

    @property
    def timeline(self) -> Timeline:
        """When each frame is shown."""
        return Timeline((self.timestamps - self.timestamps[0]) * float(self.time_base), self.fps)


def probe_video(path: Path, *, verify: bool = True) -> VideoFacts:
    """Reads the facts of a video; with `verify` also decodes the last frame, which finds truncated files.

    Raises UserError for a file that is missing, empty, cut off or not a video.
    """
    check_file(path)
    import av

    try:
        return _probe(path, verify)
    except (av.error.FFmpegError, av.error.EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        check_handles(error, path)
        raise UserError(f"{path}: cannot be read as a video ({_reason(error)}); {EXPECTED}") from error


def check_file(path: Path) -> None:
    """Raises UserError unless `path` is a file that holds something, and no web page or Git LFS pointer in its place."""
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: is a folder, not a file; name one file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty (0 bytes); copy or export it again")
    refuse_impostor(path)


def _probe(path: Path, verify: bool) -> VideoFacts:
    with open_stream(path) as (container, stream):
        first = next(iter(container.decode(stream)), None)
        if first is None:
            raise UserError(f"{path}: no frame of it can be decoded; {EXPECTED}")
        fps, time_base = float(stream.average_rate or stream.guessed_rate or 0), stream.time_base
        declared, duration_s = stream.frames, _declared_duration_s(stream)
        display, name = read_display(first, stream, path), container.format.name
    timestamps, keys, packets = _timestamps(path)
    if not len(timestamps) or fps <= 0:
        raise UserError(f"{path}: has no usable time stamps or frame rate; re-encode it as MP4/H.264")
    facts = VideoFacts(
        fps=fps, display=display, timestamps=timestamps, time_base=time_base, keys=keys, container=name
    )  # fmt: skip
    shown_s = float((timestamps[-1] - timestamps[0]) * time_base) + 1 / fps
    tolerance_s = 1.5 / fps if declared else max(0.5, 1.5 / fps)
    missing = (not declared or packets < declared) and shown_s < duration_s - tolerance_s
    if missing or (verify and not _last_decodes(path, int(timestamps[-1]))):
        raise UserError(f"{path}: is cut off or damaged: its last frames do not decode; {EXPECTED}")
    return facts


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[tuple[Any, Any]]:
    """(container, its first video stream); each pass opens the file anew, since not all formats can be rewound."""
    import av

    with av.open(str(path)) as container:
        if set(container.format.name.split(",")) & NOT_A_CLIP or container.format.name.endswith("_pipe"):
            raise UserError(f"{path}: is a picture, a text or a playlist, not a video; {EXPECTED}")
        if not container.streams.video:
            raise UserError(f"{path}: holds no video stream; {EXPECTED}")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{path}: is encoded in a way that no decoder here knows; {EXPECTED}")
        stream.codec_context.thread_count = 1
        yield container, stream


def _declared_duration_s(stream: Any) -> float:
    """Length of the stream as its headers have it; 0 where they do not say."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska, WebM
    return sum(float(part) * unit for part, unit in zip(clock.groups(), (3600, 60, 1), strict=True)) if clock else 0.0


def _timestamps(path: Path) -> tuple[np.ndarray, np.ndarray | None, int]:
    """(sorted time stamps of the shown frames, which of them are key frames, number of packets)."""
    with open_stream(path) as (container, stream):
        packets = [(p.pts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size > 0]
        codec = stream.codec_context.name
        if codec in ONE_PACKET_PER_FRAME and all(pts is not None for pts, _, _ in packets):
            shown = {pts: key for pts, key, discard in packets if not discard}
            order = sorted(shown)
            return np.array(order, np.int64), np.array([shown[pts] for pts in order], bool), len(packets)
    with open_stream(path) as (container, stream):
        stamps = sorted({frame.pts for frame in container.decode(stream) if frame.pts is not None})
        return np.array(stamps, np.int64), None, len(packets)


def _last_decodes(path: Path, last: int) -> bool:
    for seek in (True, False):  # where seeking misses the frame, everything is decoded
        with open_stream(path) as (container, stream):
            if seek:
                container.seek(last, stream=stream)
            seen = [frame.pts for frame in container.decode(stream) if frame.pts is not None and not frame.is_corrupt]
        if seen and max(seen) == last:
            return True
    return False


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().splitlines()[0]
