import contextlib
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from meta_animator.errors import UserError
from meta_animator.media.images import read_alpha, read_image, read_map, write_image
from meta_animator.media.sheets import grid, strip

RGB = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)


def test_png_round_trips(tmp_path):
    grey, deep = RGB[..., 0], RGB[..., 0].astype(np.uint16) * 256 + RGB[..., 1]
    assert np.array_equal(read_image(write_image(tmp_path / "rgb.png", RGB)), RGB)
    assert np.array_equal(read_map(write_image(tmp_path / "grey.png", grey)), grey)
    assert np.array_equal(read_map(write_image(tmp_path / "deep.png", deep)), deep)
    assert np.array_equal(read_map(write_image(tmp_path / "mask.png", grey > 99)) > 0, grey > 99)
    assert len(list(tmp_path.iterdir())) == 4


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to show upright
    Image.fromarray(RGB).save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "phone.png"), np.rot90(RGB, -1))


@pytest.mark.parametrize("way", range(1, 9))
def test_a_turned_photo_with_an_odd_tag_is_turned(tmp_path, way):
    """Pillow cannot write a resolution that is a text, which it does where it turns a picture."""
    tags = struct.pack("<H", 2) + struct.pack("<HHII", 0x0112, 3, 1, way) + struct.pack("<HHI4s", 0x0128, 2, 4, b"two\0")
    held = b"Exif\0\0II*\0\x08\0\0\0" + tags + bytes(4)
    for name, exif in (("odd", held), ("plain", None)):
        plain = Image.Exif()
        plain[0x0112] = way
        Image.fromarray(RGB).save(tmp_path / f"{name}.png", exif=exif or plain)
    with Image.open(tmp_path / "odd.png") as picture, contextlib.suppress(struct.error):
        ImageOps.exif_transpose(picture)
        assert way == 1, "Pillow can, so that nothing is tested here"
    assert np.array_equal(read_image(tmp_path / "odd.png"), read_image(tmp_path / "plain.png"))


def test_alpha_over_a_background(tmp_path):
    alpha = np.full(RGB.shape[:2], 255, np.uint8)
    alpha[:, :10], alpha[:, 10:15] = 0, 128
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "cut.png")
    read = read_image(tmp_path / "cut.png", background=(10, 20, 30))
    assert np.array_equal(read[:, 15:], RGB[:, 15:])
    assert (read[:, :10] == (10, 20, 30)).all()
    assert np.abs(read[:, 10:15] - (RGB[:, 10:15] * 0.5 + np.array([5, 10, 15]))).max() < 2
    assert (read_image(tmp_path / "cut.png")[:, :10] == 255).all()
    assert np.array_equal(read_alpha(tmp_path / "cut.png"), alpha > 127)
    assert read_alpha(write_image(tmp_path / "full.png", RGB)) is None


def test_other_modes(tmp_path):
    deep = np.linspace(0, 65535, 20 * 31).reshape(20, 31).astype(np.uint16)
    write_image(tmp_path / "deep.png", deep)
    assert np.abs(read_image(tmp_path / "deep.png")[..., 1] - deep / 257).max() <= 0.5
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert read_image(tmp_path / "print.jpg").shape == RGB.shape
    flat = Image.fromarray(np.full((8, 9, 3), (255, 0, 10), np.uint8)).quantize(4)
    flat.save(tmp_path / "palette.png")
    assert np.abs(read_image(tmp_path / "palette.png").astype(int) - (255, 0, 10)).max() < 3
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.jpg")
    assert read_image(tmp_path / "grey.jpg").shape == RGB.shape


def test_unreadable_pictures_are_named(tmp_path):
    good = write_image(tmp_path / "good.png", RGB).read_bytes()
    cases = {"none.png": None, "empty.png": b"", "text.jpg": b"not a picture", "cut.png": good[: len(good) // 2]}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="xyz"):
        write_image(tmp_path / "a.xyz", RGB)


def test_grid_places_every_picture():
    red, blue = np.full((40, 30, 3), (255, 0, 0), np.uint8), np.full((20, 30, 3), (0, 0, 255), np.uint8)
    sheet = grid([[red, blue], [None, red]], ["one", "a very long title for a small cell"], ["first", "2"], title="T")
    assert (sheet == (255, 0, 0)).all(-1).sum() == 2 * red[..., 0].size
    assert (sheet == (0, 0, 255)).all(-1).sum() == blue[..., 0].size
    assert sheet.shape[0] > 80 and sheet.shape[1] > 60
    plain = grid([[red, blue]], gap=0)
    assert plain.shape == (40, 60, 3)
    with pytest.raises(ValueError):
        grid([[]])


def test_strip_takes_first_and_last():
    frames = [np.full((10, 10, 3), i, np.uint8) for i in range(20)]
    sheet = strip(frames, count=3)
    values = set(np.unique(sheet[-11]).tolist())
    assert {0, 10, 19} <= values or {0, 9, 19} <= values
    assert strip(frames[:2], count=8, cell=40).shape[1] > 80


def swapped_profile() -> bytes:
    """An ICC profile whose red is sRGB's blue and the reverse."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = data.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")).replace(b"sRGB built", b"test built")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_profiles_are_applied(tmp_path, mode):
    picture = Image.fromarray(np.full((8, 9, 3), (200, 30, 60), np.uint8))
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "profile.png", icc_profile=swapped_profile())
    assert np.abs(read_image(tmp_path / "profile.png")[4, 4].astype(int) - (60, 30, 200)).max() <= 2
    picture.save(tmp_path / "same.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert read_image(tmp_path / "same.png")[4, 4].tolist() == [200, 30, 60]


def test_a_colour_profile_that_does_not_fit_is_said(tmp_path):
    for mode, profile in (("L", swapped_profile()), ("RGB", b"no profile at all")):
        Image.fromarray(RGB).convert(mode).save(tmp_path / "odd.png", icc_profile=profile)
        with pytest.warns(UserWarning, match=r"odd\.png: its colour profile cannot be used .*; read as sRGB"):
            read = read_image(tmp_path / "odd.png")
        assert np.array_equal(read, np.asarray(Image.fromarray(RGB).convert(mode).convert("RGB")))


def test_alpha_is_a_mask_only_where_it_outlines_something(tmp_path):
    y, x = np.mgrid[:40, :60]
    figure = (y - 20) ** 2 + ((x - 30) / 1.5) ** 2 < 15**2
    corner = (y > 0) | (x > 2)
    for name, opaque, low, expected in (
        ("figure", figure, 0, True), ("faint", figure, 100, True), ("opaque", figure, 255, False), ("half", figure, 200, False),
        ("nothing", np.zeros_like(figure), 0, False), ("a corner", corner, 0, False),
    ):  # fmt: skip
        alpha = np.where(opaque, 255, low).astype(np.uint8)
        Image.fromarray(np.dstack([np.full((40, 60, 3), 90, np.uint8), alpha])).save(tmp_path / "a.png")
        found = read_alpha(tmp_path / "a.png")
        assert np.array_equal(found, opaque) if expected else found is None, name


def test_a_heic_photo_is_said_or_read_whatever_its_name(tmp_path, monkeypatch):
    head = b"\x00\x00\x00\x18ftypheic" + b"\x00" * 100
    (tmp_path / "IMG_1.JPG").write_bytes(head)
    monkeypatch.setattr("meta_animator.media.images.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"IMG_1\.JPG: is a HEIC photo; to read it: pip install pillow-heif"):
        read_image(tmp_path / "IMG_1.JPG")
    monkeypatch.undo()
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.repeat([[(200, 30, 60)] * 32, [(20, 90, 200)] * 32], 16, axis=0).astype(np.uint8)
    heif.from_pillow(Image.fromarray(picture)).save(tmp_path / "turned.heic", exif=exif.tobytes(), quality=95)
    assert np.abs(read_image(tmp_path / "turned.heic").astype(int) - np.rot90(picture, -1)).mean() < 3
