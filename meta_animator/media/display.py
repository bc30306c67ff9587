"""From a decoded frame to the RGB picture that a player shows: colours, shape of pixels, turning and mirroring."""

import dataclasses
import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from meta_animator.errors import UserError
from meta_animator.media.hdr import to_sdr

# Numbers of ITU-T H.273, as FFmpeg has them.
BT709, BT601, BT2020 = 1, 5, 9
RGB_MATRIX, UNTAGGED = 0, 2
YUV_WEIGHTS = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}  # of red and blue
MATRICES = {RGB_MATRIX: BT709, BT709: BT709, 4: BT601, 5: BT601, 6: BT601, 7: 7, BT2020: BT2020}  # for swscale
PRIMARIES = {BT2020: "bt2020", 11: "p3", 12: "p3"}
TRANSFERS = {16: "pq", 18: "hlg"}
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
WIDEST = 8  # shape of pixels, width to height, beyond which a file is not believed
NEARLY_SQUARE = 0.005  # pixels whose shape is off by less are taken as square


@dataclasses.dataclass(frozen=True, kw_only=True)
class Display:
    """How the frames of a stream are shown.

    stored       (width, height) of the decoded frame
    stretched    (width, height) once its pixels are square
    transposed, flip_x, flip_y   what is then done to it, in this order: rows and columns swapped, mirrored
    matrix       of its YUV, a value of MATRICES; `tagged`: the file says so, else it is guessed from the size
    full_range   0 to 255, not 16 to 235
    transfer, primaries   as `hdr.to_sdr` has them
    alpha        it has transparent parts, which are laid over white
    """

    stored: tuple[int, int]
    stretched: tuple[int, int]
    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False
    matrix: int = BT709
    tagged: bool = True
    full_range: bool = False
    transfer: str = "sdr"
    primaries: str = "bt709"
    alpha: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        return self.stretched[::-1] if self.transposed else self.stretched

    @property
    def ordinary(self) -> bool:
        """Opaque, with square pixels and the colours of SDR, whether turned or not."""
        plain = self.transfer == "sdr" and self.primaries == "bt709" and not self.alpha
        return plain and self.stored == self.stretched

    def drawn(self) -> "Display":
        """The same for pictures that a program drew: OpenCV, imageio and FFmpeg write RGB as BT.601 where they do not tag it,
        whatever its size, while cameras and players mean BT.709 by no tag in HD."""
        return self if self.tagged else dataclasses.replace(self, matrix=BT601)

    @property
    def turns(self) -> bool:
        """It is shown turned or mirrored."""
        return self.transposed or self.flip_x or self.flip_y


def read_display(frame: Any, stream: Any, path: Path) -> Display:
    """The display of a stream, from its first decoded frame. Raises UserError for what is not read here: slanted pictures
    and rare colour systems."""
    context, stored = stream.codec_context, (frame.width, frame.height)
    matrix, tagged = _matrix(_tag(frame, context, "colorspace"), stored, path)
    primaries = PRIMARIES.get(_tag(frame, context, "color_primaries"), "bt709")
    transposed, flip_x, flip_y = _orientation(frame, path)
    return Display(
        stored=stored, stretched=_stretched(stored, stream.sample_aspect_ratio, path),
        transposed=transposed, flip_x=flip_x, flip_y=flip_y, matrix=matrix, tagged=tagged,
        full_range=_tag(frame, context, "color_range", untagged=0) == FULL_RANGE,
        transfer=TRANSFERS.get(_tag(frame, context, "color_trc"), "sdr"), primaries=primaries,
        alpha=any(component.is_alpha for component in frame.format.components),
    )  # fmt: skip


def show(frame: Any, display: Display, convert: Callable[..., Any]) -> np.ndarray:
    """The picture of a decoded frame: uint8 (h, w, 3) RGB. `convert` is what `swscale` gives, kept between frames.

    Raises ValueError for a frame of another size than the stream's first.
    """
    if (frame.width, frame.height) != display.stored:
        raise ValueError(f"a frame of {frame.width}x{frame.height} among frames of {display.stored[0]}x{display.stored[1]}")
    if display.transfer != "sdr" or display.primaries != "bt709":
        picture = to_sdr(_signal(frame, display, convert), display.transfer, display.primaries)
    elif display.alpha:
        picture = over_white(_converted(frame, display, convert, "rgba"))
    else:
        picture = _converted(frame, display, convert, "rgb24")
    if display.stretched != display.stored:
        picture = cv2.resize(picture, display.stretched, interpolation=cv2.INTER_LINEAR)
    picture = picture.swapaxes(0, 1) if display.transposed else picture
    return picture[:: -1 if display.flip_y else 1, :: -1 if display.flip_x else 1]


def swscale() -> Callable[..., Any]:
    """A converter of frames, PyAV's, on one thread."""
    import av
    from av.video.reformatter import VideoReformatter

    several = int(av.__version__.split(".")[0]) >= 17  # earlier ones have one thread and no word for it
    return functools.partial(VideoReformatter().reformat, **({"threads": 1} if several else {}))


def over_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 4), colours not multiplied by alpha, laid over white: uint8 (h, w, 3)."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _converted(frame: Any, display: Display, convert: Callable[..., Any], format: str) -> np.ndarray:
    """The frame through swscale; its matrix and range are said here, since swscale takes BT.601 for what is not tagged."""
    own_range = FULL_RANGE if display.full_range else 1
    return convert(
        frame, format=format, src_colorspace=display.matrix, dst_colorspace=BT709, src_color_range=own_range,
        dst_color_range=FULL_RANGE,
    ).to_ndarray()  # fmt: skip


def _signal(frame: Any, display: Display, convert: Callable[..., Any]) -> np.ndarray:
    """R'G'B' float32 (h, w, 3), about 0 to 1, without loss of depth: swscale only makes 16-bit YUV 4:4:4 of the frame, since
    its 16-bit RGB stops at 255/256 of white."""
    if frame.format.is_rgb:
        return convert(frame, format="rgb24").to_ndarray().astype(np.float32) / 255
    own_range = FULL_RANGE if display.full_range else 1
    same = {"src_colorspace": display.matrix, "dst_colorspace": display.matrix}
    same |= {"src_color_range": own_range, "dst_color_range": own_range}
    yuv = convert(frame, format="yuv444p16le", **same).to_ndarray().astype(np.float32) / 256  # in units of 8 bits
    black, span, chroma = (0, 255, 255) if display.full_range else (16, 219, 224)
    red, blue = YUV_WEIGHTS.get(display.matrix, YUV_WEIGHTS[BT709])
    green = 1 - red - blue
    from_u = (0, -2 * blue * (1 - blue) / green, 2 * (1 - blue))
    from_v = (2 * (1 - red), -2 * red * (1 - red) / green, 0)
    parts = zip(from_u, from_v, strict=True)
    rows = [[1 / span, u / chroma, v / chroma, -black / span - 128 * (u + v) / chroma] for u, v in parts]
    return cv2.transform(yuv, np.array(rows, np.float32))


def _tag(frame: Any, context: Any, name: str, untagged: int = UNTAGGED) -> int:
    """A colour tag of the frame, or where it has none of its stream."""
    value = int(getattr(frame, name, untagged))
    return value if value != untagged else int(getattr(context, name, untagged))


def _matrix(number: int, stored: tuple[int, int], path: Path) -> tuple[int, bool]:
    """(matrix for swscale, whether the file names it); untagged films of more than SD size have BT.709, as in players."""
    if number == UNTAGGED:
        return (BT709 if stored[0] >= 1280 or stored[1] > 576 else BT601), False
    if number not in MATRICES:
        raise UserError(f"{path}: has colours of a kind that is not read here (matrix {number} of H.273); re-encode it as BT.709")
    return MATRICES[number], True


def _stretched(stored: tuple[int, int], aspect: Any, path: Path) -> tuple[int, int]:
    """The size with square pixels: the side that is too short grows, so that nothing is lost."""
    width, height = stored
    if aspect and not 1 / WIDEST <= aspect <= WIDEST:
        raise UserError(f"{path}: its pixels are {float(aspect):.3g} times as wide as high; re-encode it with square ones")
    if not aspect or abs(aspect - 1) < NEARLY_SQUARE:
        return stored
    return (max(1, round(width * aspect)), height) if aspect > 1 else (width, max(1, round(height / aspect)))


def _orientation(frame: Any, path: Path) -> tuple[bool, bool, bool]:
    """(transposed, flip_x, flip_y) from the display matrix: x' = a x + c y, y' = b x + d y."""
    data = frame.side_data.get("DISPLAYMATRIX")
    a, b, _, c, d, *_ = (1, 0, 0, 0, 1) if data is None else struct.unpack("=9i", bytes(data))
    if not (a or b or c or d):  # written by tools that know no matrix
        return False, False, False
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) * 50 < straight:
        return False, a < 0, d < 0
    if max(abs(a), abs(d)) * 50 < crossed:
        return True, c < 0, b < 0
    raise UserError(f"{path}: is to be shown slanted ({-frame.rotation} degrees); turn it upright and export it again")
