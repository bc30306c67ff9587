"""Reading frames of a video by number, and writing videos that every player shows."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.media.probe import EXPECTED, VideoFacts, open_stream, probe_video


class VideoSource:
    """Frames of one video file, by number. Not to be shared between threads; one per sample is cheap.

    decord reads where it is exact; PyAV takes over where it is missing or known to miscount (edit lists, AV1).
    """

    def __init__(self, path: str | Path, *, verify: bool = True) -> None:
        """Opens `path`; `verify` decodes the last frame first, which finds files that were cut off.

        Raises UserError for a file that is missing, empty, cut off or not a video.
        """
        self.path = Path(path)
        self.facts: VideoFacts = probe_video(self.path, verify=verify)
        self._decord = _open_decord(self.path, self.facts)

    @property
    def num_frames(self) -> int:
        """Number of frames a player would show."""
        return self.facts.num_frames

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.facts.fps

    @property
    def width(self) -> int:
        """Width in pixels, after the rotation flag."""
        return self.facts.width

    @property
    def height(self) -> int:
        """Height in pixels, after the rotation flag."""
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
        return _read_with_pyav(self.path, self.facts, wanted)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, *, crf: int = 17, gop: int = 24) -> Path:
    """Writes uint8 (h, w, 3) RGB frames as MP4: H.264, yuv420p, BT.709, no B-frames, playable while it loads.

    Odd sizes are made even by repeating the last row or column. The file appears under its name only when complete.
    Raises ValueError for no frames, or frames of other shape or type; UserError where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: videos are written as MP4; give a name that ends in .mp4")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    with whole_file(path) as part:
        _encode(part, frames, Fraction(fps).limit_denominator(1001), crf, gop)
    return path


def _encode(part: Path, frames: Iterable[np.ndarray], rate: Fraction, crf: int, gop: int) -> None:
    import av

    with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
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


def _open_decord(path: Path, facts: VideoFacts) -> Any | None:
    """A decord reader, or None where decord is missing or would give other frames than a player shows."""
    try:
        import decord

        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) != facts.num_frames or float(reader.get_frame_timestamp(0)[0]) < -1e-3:
            return None
    except Exception:  # an import error, or decord's own error type for what it cannot open
        return None
    return reader


def _read_with_pyav(path: Path, facts: VideoFacts, wanted: Sequence[int]) -> np.ndarray:
    import av

    missing = set(wanted)
    found: dict[int, np.ndarray] = {}
    try:
        while missing:
            first = min(missing)
            # Some files cannot be sought in, or seeking lands behind the frame: then everything is decoded.
            got = _decode_run(path, facts, missing, seek=True)
            if first not in got:
                got = _decode_run(path, facts, missing, seek=False)
            if first not in got:
                raise UserError(f"{path}: frame {first} does not decode; {EXPECTED}")
            found.update(got)
            missing -= got.keys()
    except (av.error.FFmpegError, av.error.EOFError) as error:
        raise UserError(f"{path}: frame {min(missing)} does not decode; {EXPECTED}") from error
    return np.stack([found[index] for index in wanted])


def _decode_run(path: Path, facts: VideoFacts, missing: set[int], *, seek: bool) -> dict[int, np.ndarray]:
    """What is missing, from the first such frame on, until a gap of a second in which nothing is."""
    place = {pts: index for index, pts in enumerate(facts.timestamps)}
    first = min(missing)
    found: dict[int, np.ndarray] = {}
    with open_stream(path) as (container, stream):
        if seek:
            container.seek(facts.timestamps[first], stream=stream)
        for frame in container.decode(stream):
            index = place.get(frame.pts)
            if index is None:
                continue
            if index in missing:
                found[index] = np.rot90(frame.to_ndarray(format="rgb24"), round(facts.rotation / 90))
            ahead = min(missing - found.keys(), default=None)
            if ahead is None or (seek and index > first and first not in found):
                break
            if first in found and ahead > index + facts.fps:
                break
    return found
