"""What a video file really holds, learnt by walking through its packets with PyAV."""

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

from meta_animator.errors import UserError

# Here one packet is one shown frame; in other codecs (VP8, ...) some packets show nothing, so frames must be decoded.
ONE_PACKET_PER_FRAME = frozenset({"h264", "hevc", "mpeg4", "mjpeg", "vp9", "prores", "ffv1"})
# Containers that point to further files, or hold a single picture.
NOT_A_CLIP = frozenset({"hls", "concat", "dash", "image2", "tty"})
EXPECTED = "expected a complete video file (MP4/H.264 is the safest)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """Facts of the first video stream; width and height are those after the rotation flag has been applied."""

    width: int
    height: int
    fps: float
    rotation: int  # degrees counter-clockwise, to be applied to each decoded frame
    timestamps: tuple[int, ...]  # of the shown frames in order of showing, in units of time_base
    time_base: Fraction

    @property
    def num_frames(self) -> int:
        """How many frames a player would show."""
        return len(self.timestamps)


def probe_video(path: Path, *, verify: bool = True) -> VideoFacts:
    """Reads the facts of a video; with `verify` also decodes the last frame, which finds truncated files.

    Raises UserError for a file that is missing, empty, cut off or not a video.
    """
    check_file(path)
    import av

    try:
        with av.open(str(path)) as container:
            return _probe(container, path, verify)
    except (av.error.FFmpegError, av.error.EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as a video ({_reason(error)}); {EXPECTED}") from error


def check_file(path: Path) -> None:
    """Raises UserError unless `path` is a file that holds something."""
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: is a folder, not a file; name one file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty (0 bytes); copy or export it again")


def _probe(container: Any, path: Path, verify: bool) -> VideoFacts:
    formats = set(container.format.name.split(","))
    if formats & NOT_A_CLIP or container.format.name.endswith("_pipe"):
        raise UserError(f"{path}: is a picture, a text or a playlist, not a video; {EXPECTED}")
    if not container.streams.video:
        raise UserError(f"{path}: holds no video stream; {EXPECTED}")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    first = next(iter(container.decode(stream)), None)
    if first is None:
        raise UserError(f"{path}: no frame of it can be decoded; {EXPECTED}")
    declared = stream.frames
    container.seek(0)
    timestamps, packets = _timestamps(container, stream)
    duration = None if stream.duration is None else float(stream.duration * stream.time_base)
    facts = VideoFacts(
        width=first.height if abs(first.rotation) == 90 else first.width,
        height=first.width if abs(first.rotation) == 90 else first.height,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        rotation=int(first.rotation),
        timestamps=tuple(timestamps),
        time_base=stream.time_base,
    )
    if not timestamps or facts.fps <= 0:
        raise UserError(f"{path}: has no usable time stamps or frame rate; re-encode it as MP4/H.264")
    shown_s = float((timestamps[-1] - timestamps[0]) * stream.time_base) + 1 / facts.fps
    missing = packets < declared and duration is not None and shown_s < duration - 1.5 / facts.fps
    if missing or (verify and not _decodes(container, stream, timestamps[-1])):
        raise UserError(f"{path}: is cut off or damaged: its last frames do not decode; {EXPECTED}")
    return facts


def _timestamps(container: Any, stream: Any) -> tuple[list[int], int]:
    """(sorted time stamps of the shown frames, number of packets)."""
    if stream.codec_context.name not in ONE_PACKET_PER_FRAME:
        found = [frame.pts for frame in container.decode(stream) if frame.pts is not None]
        return sorted(set(found)), len(found)
    packets = [packet for packet in container.demux(stream) if packet.size > 0]
    shown = [packet.dts if packet.pts is None else packet.pts for packet in packets if not packet.is_discard]
    return sorted({pts for pts in shown if pts is not None}), len(packets)


def _decodes(container: Any, stream: Any, last: int) -> bool:
    container.seek(last, stream=stream)
    seen = None
    for frame in container.decode(stream):
        if frame.is_corrupt:
            return False
        seen = frame.pts if seen is None or (frame.pts or 0) > seen else seen
    return seen == last


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().splitlines()[0]
