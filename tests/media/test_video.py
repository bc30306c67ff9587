"""Frames by number, exactly, through everything that makes frame numbers slip; and clear errors for broken files."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from meta_animator.errors import UserError
from meta_animator.media.video import VideoSource, write_video

BITS = 8


def numbered(index: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A frame with its number burnt in as eight black or white bars below a grey moving background."""
    frame = np.full((height, width, 3), 90 + index % 60, np.uint8)
    for bit in range(BITS):
        x0, x1 = bit * width // BITS, (bit + 1) * width // BITS
        frame[height // 2 :, x0:x1] = 255 if index >> bit & 1 else 0
    return frame


def number_of(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum(int(frame[3 * height // 4, x, 1] > 127) << bit for bit, x in enumerate(centres))


def encode(path: Path, count: int, *, rotation: int = 0, codec: str = "libx264", **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 96, "yuv420p", options
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(index), format="rgb24")))
        container.mux(stream.encode())
    return path


def copy_from(source: Path, target: Path, first_pts_s: float) -> Path:
    """Copies the packets without re-encoding so that an edit list hides what is before `first_pts_s`."""
    keep = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    with av.open(str(source)) as reader, av.open(str(target), "w", options=keep) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        shift = round(first_pts_s / stream.time_base)
        for packet in reader.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                writer.mux(packet)
    return target


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord")
    return request.param


def test_written_frames_come_back_by_number(tmp_path, backend):
    write_video(tmp_path / "clip.mp4", (numbered(i) for i in range(60)), fps=30)
    source = VideoSource(tmp_path / "clip.mp4", reader=backend)
    assert (source.num_frames, source.width, source.height, source.backend) == (60, 128, 96, backend)
    assert source.fps == pytest.approx(30)
    order = [59, 0, 31, 31, 30, 7, 58]
    frames = source.read(order)
    assert frames.shape == (7, 96, 128, 3) and frames.dtype == np.uint8
    assert [number_of(frame) for frame in frames] == order
    assert source.read([]).shape == (0, 96, 128, 3)
    with pytest.raises(IndexError, match="60"):
        source.read([60])


def test_frame_numbers_with_b_frames_and_long_groups(tmp_path, backend):
    source = VideoSource(encode(tmp_path / "b.mp4", 80, bf="3", g="40", **{"x264-params": "b-pyramid=normal"}), reader=backend)
    assert source.num_frames == 80 and source.backend == backend
    for order in (list(range(80)), [79, 41, 40, 39, 2], [13]):
        assert [number_of(frame) for frame in source.read(order)] == order


def test_an_edit_list_does_not_shift_frame_numbers(tmp_path):
    cut = copy_from(encode(tmp_path / "whole.mp4", 90, bf="2", g="30"), tmp_path / "cut.mp4", 10 / 25)
    source = VideoSource(cut, reader="decord")
    first = number_of(source.read([0])[0])
    assert first == 10 and source.num_frames == 80 and source.backend == "pyav"
    for order in (list(range(80)), [79, 3, 50]):
        assert [number_of(frame) for frame in source.read(order)] == [first + i for i in order]


def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path):
    frame = np.tile(np.linspace(20, 230, 37).astype(np.uint8)[None, :, None], (25, 1, 3))
    write_video(tmp_path / "odd.mp4", [frame] * 4, fps=12.5)
    read = VideoSource(tmp_path / "odd.mp4").read([3])[0]
    assert read.shape == (26, 38, 3)
    assert np.abs(read[:25, :37].astype(int) - frame).mean() < 4
    assert np.abs(read[:25, 37].astype(int) - frame[:, 36]).mean() < 6


def test_colours_survive_and_are_tagged(tmp_path):
    colours = [(230, 30, 40), (20, 200, 60), (30, 60, 220), (200, 120, 40)]
    frame = np.concatenate([np.full((64, 32, 3), colour, np.uint8) for colour in colours], axis=1)
    write_video(tmp_path / "c.mp4", [frame] * 3, fps=24)
    read = VideoSource(tmp_path / "c.mp4").read([1])[0]
    for i, colour in enumerate(colours):
        assert np.abs(read[32, 32 * i + 16].astype(int) - colour).max() <= 4
    with av.open(str(tmp_path / "c.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, int(context.colorspace)) == ("h264", "yuv420p", 1)
    head = (tmp_path / "c.mp4").read_bytes()
    assert head.find(b"moov") < head.find(b"mdat")


def test_ntsc_rate(tmp_path):
    write_video(tmp_path / "n.mp4", [numbered(i) for i in range(5)], fps=30000 / 1001)
    assert VideoSource(tmp_path / "n.mp4").fps == pytest.approx(float(Fraction(30000, 1001)), rel=1e-6)


def test_broken_files_are_named(tmp_path):
    good = write_video(tmp_path / "good.mp4", (numbered(i) for i in range(50)), fps=25).read_bytes()
    cases = {"missing.mp4": None, "empty.mp4": b"", "text.mp4": b"hello, no video here\n" * 50}
    cases |= {"half.mp4": good[: len(good) // 2], "tail.mp4": good[:-300], "head.mp4": good[:200]}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            VideoSource(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="folder"):
        VideoSource(tmp_path)


def test_a_picture_is_not_a_video(tmp_path):
    from PIL import Image

    Image.fromarray(numbered(3)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo\.png: is a picture"):
        VideoSource(tmp_path / "photo.png")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_video(tmp_path / "v.mp4", [numbered(0)] * 3, fps=25)
    before = path.read_bytes()

    def broken():
        yield numbered(1)
        raise RuntimeError("renderer broke")

    with pytest.raises(RuntimeError):
        write_video(path, broken(), fps=25)
    with pytest.raises(ValueError, match="one size"):
        write_video(path, [numbered(0), numbered(0, 64, 64)], fps=25)
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], fps=25)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
    with pytest.raises(UserError, match=r"\.mp4"):
        write_video(tmp_path / "v.avi", [numbered(0)], fps=25)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("b.mkv", "libx264", {"bf": "3"}),
        ("c.avi", "mpeg4", {"bf": "2"}),
        ("d.ts", "libx264", {"bf": "2"}),
    ],
)
def test_frame_numbers_in_other_containers(tmp_path, backend, name, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    source = VideoSource(encode(tmp_path / name, 50, codec=codec, **options), reader=backend)
    assert source.num_frames == 50
    assert [number_of(frame) for frame in source.read([49, 0, 1, 30, 12])] == [49, 0, 1, 30, 12]
    if name != "d.ts":  # a transport stream does not say how long it is
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(UserError, match=r"cut_.*(cut off|cannot be read)"):
            VideoSource(tmp_path / f"cut_{name}")
