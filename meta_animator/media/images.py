"""Reading any ordinary picture as uint8 RGB (sRGB), and writing pictures.

Where a frame, of a photo or a film, is transparent, it is laid over white.
"""

import io
import struct
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from meta_animator.errors import UserError, check_handles
from meta_animator.files import whole_file
from meta_animator.media.probe import check_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
HEIC_SUFFIXES = (".heic", ".heif")  # read with pillow-heif
PHOTO_SUFFIXES = IMAGE_SUFFIXES + HEIC_SUFFIXES
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC_ADVICE = "to read it: pip install pillow-heif; or export it as JPEG"
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
WHITE = (255, 255, 255)
MIN_TRANSPARENT, MIN_OPAQUE = 0.01, 0.001  # shares of a picture below which its alpha outlines nobody


def read_image(path: str | Path, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The picture as uint8 (h, w, 3) in sRGB, upright (EXIF), transparent parts laid over `background`.

    Grey, 16-bit, palette and CMYK pictures are converted, by their own colour profile where they have one. Raises UserError
    for what is missing or not a picture.
    """
    picture = _open(path)
    rgb = _to_srgb(picture, path)
    if not _has_alpha(picture):
        return rgb
    alpha = np.asarray(picture.convert("RGBA"), np.float32)[..., 3:] / 255
    blend = rgb * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return np.rint(blend).astype(np.uint8)


def read_alpha(path: str | Path) -> np.ndarray | None:
    """bool (h, w), True where the picture is more than half opaque; None where that outlines nobody: it is opaque but for a
    rounded corner or so, or all of it is as transparent."""
    picture = _open(path)
    if not _has_alpha(picture):
        return None
    opaque = np.asarray(picture.convert("RGBA"))[..., 3] > 127
    return opaque if MIN_OPAQUE <= opaque.mean() <= 1 - MIN_TRANSPARENT else None


def can_read_heic() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def read_map(path: str | Path) -> np.ndarray:
    """The stored numbers of a PNG without any conversion: uint8 or uint16, (h, w) or (h, w, 3)."""
    array = np.asarray(_open(path))
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)  # how some versions of Pillow give a 16-bit grey PNG
    if array.dtype not in (np.uint8, np.uint16, np.bool_) or array.ndim not in (2, 3):
        raise UserError(f"{path}: holds {array.dtype} {array.shape}; expected an 8- or 16-bit PNG")
    return array


def write_image(path: str | Path, image: np.ndarray, *, quality: int = 95) -> Path:
    """Writes uint8 (h, w, 3) RGB, uint8 or uint16 or bool (h, w); the suffix gives the format (.png keeps all).

    The file appears under its name only when complete. Raises UserError where it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{path}: unknown kind of picture; the name must end in one of {', '.join(IMAGE_SUFFIXES)}")
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    flat = image.ndim == 2 and image.dtype in (np.uint8, np.uint16)
    if not flat and not (image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
        raise ValueError(f"expected uint8 (h, w, 3) or uint8, uint16, bool (h, w); got {image.dtype} {image.shape}")
    lossy = path.suffix.lower() in (".jpg", ".jpeg", ".webp")
    options = {"quality": quality} if lossy else {"compress_level": 3}
    with whole_file(path) as part:
        Image.fromarray(np.ascontiguousarray(image)).save(part, **options)
    return path


def _open(path: Any) -> Image.Image:
    """Of a path, or of what has as much of one as `data.shards.ShardPath`."""
    path = Path(path) if isinstance(path, str) else path
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(12)
            file.seek(0)
            heic = head[4:8] == b"ftyp" and head[8:] in HEIC_BRANDS
            picture = _open_heic(path) if heic else Image.open(file)
            picture.load()
            return _turned(picture)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        check_handles(error, path)
        kinds = "PNG, JPEG or WebP"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as a picture ({reason}); expected a complete {kinds} file") from error


def _turned(picture: Image.Image) -> Image.Image:
    """As its EXIF says that it is to be shown."""
    try:
        return ImageOps.exif_transpose(picture)
    except (struct.error, TypeError):  # another tag of an unusual kind, which Pillow cannot write anew
        way = TURNS.get(picture.getexif().get(ORIENTATION, 1))
        return picture if way is None else picture.transpose(way)


def _open_heic(path: Path) -> Image.Image:
    if not can_read_heic():
        raise UserError(f"{path}: is a HEIC photo; {HEIC_ADVICE}")
    import pillow_heif

    return pillow_heif.open_heif(path).to_pillow()


def _to_srgb(picture: Image.Image, path: str | Path) -> np.ndarray:
    """uint8 (h, w, 3) without regard to transparency."""
    flat = _to_8_bit(picture)
    if flat.mode not in ("L", "RGB", "CMYK", "LAB"):
        flat = flat.convert("L" if flat.mode in ("LA", "1") else "RGBA" if _has_alpha(flat) else "RGB")
        flat = flat.convert("RGB") if flat.mode == "RGBA" else flat
    profile = picture.info.get("icc_profile")
    if profile:
        try:
            flat = _by_profile(flat, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"{path}: its colour profile cannot be used ({reason}); read as sRGB", stacklevel=4)
    return np.asarray(flat.convert("RGB"))


def _by_profile(flat: Image.Image, profile: bytes) -> Any:
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if ImageCms.getProfileDescription(own).startswith("sRGB"):
        return flat
    return ImageCms.profileToProfile(flat, own, ImageCms.createProfile("sRGB"), outputMode="RGB")


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


def _to_8_bit(picture: Image.Image) -> Image.Image:
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture, np.float64)
    scale = 255 / 65535 if picture.mode != "F" else 255 / max(float(values.max()), 1e-12)
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
