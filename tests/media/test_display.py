"""Frames as a player shows them: upright, not mirrored, with square pixels and in the right colours."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from meta_animator.data.clips import driving_clip
from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.media.video import VideoSource

UNIT = 1 << 16
# Of swscale's rounding and chroma at half size, in steps of 8 bits.
ROUNDING = 3


def encode(path: Path, picture: np.ndarray, format: str = "yuv420p", codec: str = "libx264", aspect=None, matrix=None, **tags):
    """Three frames of a picture that is given in `format`; `tags` are attributes of the codec context."""
    options = {"qp": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        frame = av.VideoFrame.from_ndarray(picture, format=format)
        stream.width, stream.height, stream.pix_fmt, stream.options = frame.width, frame.height, format, options
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            if hasattr(frame, name):
                setattr(frame, name, value)
        for pts in range(3):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def quarters(height: int = 64, width: int = 96) -> np.ndarray:
    """Planes (3/2 h, w) of YUV 4:2:0 whose four quarters are of four greys."""
    luma = np.full((height, width), 40, np.uint8)
    luma[: height // 2, width // 2 :], luma[height // 2 :, : width // 2], luma[height // 2 :, width // 2 :] = 90, 150, 220
    return np.concatenate([luma, np.full((height // 2, width), 128, np.uint8)])


def corners(image: np.ndarray) -> list[int]:
    """Which quarter, by rank of its grey, is at the top left, top right, bottom left, bottom right."""
    h, w = image.shape[:2]
    greys = [int(image[y * h // 4, x * w // 4, 1]) for y, x in ((1, 1), (1, 3), (3, 1), (3, 3))]
    return [sorted(greys).index(grey) for grey in greys]


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_every_turning_and_mirroring_of_a_display_matrix(tmp_path, reader):
    for crossed, sign_x, sign_y in itertools.product((False, True), (1, -1), (1, -1)):
        a, b, c, d = (0, sign_y, sign_x, 0) if crossed else (sign_x, 0, 0, sign_y)
        matrix = [a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30]
        path = encode(tmp_path / f"{crossed}{sign_x}{sign_y}.mp4", quarters(), matrix=matrix)
        source = VideoSource(path, reader=reader)
        image = source.read([1])[0]
        assert image.shape == ((96, 64, 3) if crossed else (64, 96, 3)) == (source.height, source.width, 3)
        expected = [0] * 4
        for number, (y, x) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):  # the point (x, y) of the stored picture
            expected[2 * (b * x + d * y > 0) + (a * x + c * y > 0)] = number
        assert corners(image) == expected, matrix


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize(("rotation", "expected"), [(90, [1, 3, 0, 2]), (180, [3, 2, 1, 0]), (-90, [2, 0, 3, 1])])
def test_matroska_is_turned_too(tmp_path, reader, rotation, expected):
    angle = np.deg2rad(rotation)  # counter-clockwise; x' = a x + c y, y' = b x + d y, y downwards
    a, b, c, d = (round(v) * UNIT for v in (np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)))
    path = encode(tmp_path / "turned.mkv", quarters(), matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    source = VideoSource(path, reader=reader)
    assert corners(source.read([0])[0]) == expected
    assert (source.width, source.height) == ((96, 64) if rotation == 180 else (64, 96))


def test_a_slanted_film_is_refused(tmp_path):
    unit = round(UNIT / 2**0.5)
    path = encode(tmp_path / "slanted.mp4", quarters(), matrix=[unit, unit, 0, -unit, unit, 0, 0, 0, 1 << 30])
    with pytest.raises(UserError, match=r"slanted\.mp4: is to be shown slanted \(-?45 degrees\)"):
        VideoSource(path)


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_pixels_that_are_not_square_are_stretched(tmp_path, reader):
    for aspect, size in ((Fraction(4, 3), (128, 64)), (Fraction(3, 4), (96, 85)), (Fraction(1, 1), (96, 64))):
        source = VideoSource(encode(tmp_path / f"{aspect.numerator}.mp4", quarters(), aspect=aspect), reader=reader)
        image = source.read([2])[0]
        assert (source.width, source.height) == size == (image.shape[1], image.shape[0])
        assert corners(image) == [0, 1, 2, 3]


def test_pixels_of_an_absurd_shape_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"thin\.mp4: its pixels are 0.05 times as wide as high"):
        VideoSource(encode(tmp_path / "thin.mp4", quarters(), aspect=Fraction(1, 20)))


def rgb_of(y: int, u: int, v: int, weights: tuple[float, float], full: bool) -> np.ndarray:
    """R'G'B' in 8 bits by the definition of the matrix (BT.601, BT.709, BT.2020)."""
    luma, chroma = (y / 255, 255) if full else ((y - 16) / 219, 224)
    red, blue = weights
    r, b = luma + 2 * (1 - red) * (v - 128) / chroma, luma + 2 * (1 - blue) * (u - 128) / chroma
    return 255 * np.clip([r, (luma - red * r - blue * b) / (1 - red - blue), b], 0, 1)


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize(
    ("width", "colorspace", "color_range", "weights"),
    [
        (96, 0, 0, BT601), (96, 1, 1, BT709), (96, 1, 2, BT709), (96, 5, 2, BT601), (1280, 0, 0, BT709), (1280, 5, 1, BT601),
    ],
)  # fmt: skip
def test_matrix_and_range_as_tagged_and_by_size_where_not(tmp_path, reader, width, colorspace, color_range, weights):
    y, u, v = 140, 90, 170
    planes = np.concatenate([np.full((32, width), y, np.uint8), np.repeat([[u], [v]], 8, axis=0).repeat(width, axis=1)])
    tags = {k: value for k, value in (("colorspace", colorspace), ("color_range", color_range)) if value}
    image = VideoSource(encode(tmp_path / "c.mp4", planes.astype(np.uint8), **tags), reader=reader).read([1])[0]
    assert np.abs(image[16, width // 2] - rgb_of(y, u, v, weights, color_range == 2)).max() <= ROUNDING


def test_a_drawn_film_without_tags_is_bt601_whatever_its_size(tmp_path):
    y, u, v = 140, 90, 170
    planes = np.concatenate([np.full((32, 1280), y, np.uint8), np.repeat([[u], [v]], 8, axis=0).repeat(1280, axis=1)])
    encode(tmp_path / "pose.mp4", planes.astype(np.uint8))
    encode(tmp_path / "tagged.mp4", planes.astype(np.uint8), colorspace=1)
    for name, weights in (("pose", BT601), ("tagged", BT709)):
        image = driving_clip(tmp_path / f"{name}.mp4").load_condition("dwpose", 1)
        assert np.abs(image[16, 640] - rgb_of(y, u, v, weights, False)).max() <= ROUNDING


# High dynamic range: patches of sRGB, put into BT.2020 and HLG or PQ with SDR white at 203 cd/m2, must come back.

PATCHES = np.array([(224, 172, 150), (150, 96, 80), (200, 30, 40), (30, 140, 60), (128, 128, 128), (250, 250, 250)])


def hdr_planes(transfer: int, brightest: float = 0.0) -> np.ndarray:
    """uint16 (48, 16 x patches): limited-range 10-bit 4:2:0; the last patch is of `brightest` cd/m2, if that is given."""
    srgb = PATCHES / 255
    light = 203 * np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    if brightest:
        light[-1] = brightest
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    light = light @ to_2020.T
    if transfer == 16:  # ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = (light / 10000) ** m1
        signal = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    else:  # BT.2100 HLG at 1000 cd/m2: inverse OOTF, then OETF
        display = light / 1000
        luminance = display @ np.array([0.2627, 0.6780, 0.0593])
        scene = display * luminance[:, None] ** (1 / 1.2 - 1)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    chroma = [(signal[:, k] - luma) / (2 * (1 - weight)) for k, weight in ((2, 0.0593), (0, 0.2627))]
    wide = np.repeat(np.rint(64 + 876 * luma), 16)
    rows = [np.tile(wide, (32, 1))]
    for plane in chroma:  # half as wide and half as high: two rows lie side by side in one of the array
        rows.append(np.tile(np.repeat(np.rint(512 + 896 * plane), 8), (8, 2)))
    return np.concatenate(rows).astype(np.uint16)


def from_hdr(path: Path, transfer: int, **how: float) -> np.ndarray:
    """The patches as they are read."""
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer, "color_range": 1}
    source = VideoSource(encode(path, hdr_planes(transfer, **how), "yuv420p10le", "ffv1", **tags), reader="decord")
    assert source.backend == "pyav"
    return source.read([1])[0][16, 8::16].astype(int)


@pytest.mark.parametrize("transfer", [18, 16])
def test_hdr_comes_back_as_sdr(tmp_path, transfer):
    patches = from_hdr(tmp_path / "hdr.mkv", transfer)
    assert np.abs(patches - PATCHES).max() <= 4
    brighter = from_hdr(tmp_path / "bright.mkv", transfer, brightest=900)[-1]
    assert (brighter >= 253).all(), "what is brighter than white is white"


def test_wide_colours_in_sdr_are_brought_to_ordinary_ones(tmp_path):
    # Pure green of BT.709 lies inside BT.2020: (0.3293, 0.9195, 0.0880) in linear light.
    linear = np.array([0.3293, 0.9195, 0.0880])
    r, g, b = 1.055 * linear ** (1 / 2.4) - 0.055
    y = 0.2627 * r + 0.6780 * g + 0.0593 * b
    u, v = (b - y) / 1.8814, (r - y) / 1.4746
    rows = [np.full((32, 32), 16 + 219 * y), np.full((8, 32), 128 + 224 * u), np.full((8, 32), 128 + 224 * v)]
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 1, "color_range": 1}
    path = encode(tmp_path / "wide.mkv", np.rint(np.concatenate(rows)).astype(np.uint8), codec="ffv1", **tags)
    assert np.abs(VideoSource(path).read([0])[0][16, 16].astype(int) - (0, 255, 0)).max() <= 25  # 8 bits leave little in the dark


def test_transparent_parts_of_films_and_photos_lie_over_white(tmp_path):
    rgba = np.zeros((32, 48, 4), np.uint8)
    rgba[..., :3], rgba[:, :16, 3], rgba[:, 16:32, 3] = (200, 30, 60), 255, 128
    film = VideoSource(encode(tmp_path / "a.mkv", rgba, "bgra", "ffv1")).read([0])[0][16, [8, 24, 40]]
    from PIL import Image

    Image.fromarray(rgba).save(tmp_path / "a.png")
    photo = read_image(tmp_path / "a.png")[16, [8, 24, 40]]
    assert photo.tolist() == [[200, 30, 60], [227, 142, 157], [255, 255, 255]]
    assert np.abs(film[:, ::-1].astype(int) - photo).max() <= 1  # the film's channels are in the order b, g, r
