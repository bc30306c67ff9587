import numpy as np
import pytest
from PIL import Image

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
