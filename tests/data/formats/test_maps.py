"""Masks, depth, normals and parts as their tools write them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meta_animator.data.formats.maps import Given, Maps, maps_of_film, maps_of_photos
from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from meta_animator.preparation.prepare import PrepareConfig, prepare
from tests.data.people import layers_of_person, tasks_shown_by

SIZE = (48, 64)
COUNT = 3


def masks() -> list[np.ndarray]:
    base = layers_of_person(*SIZE).mask
    return [np.roll(base, 4 * index, axis=1) for index in range(COUNT)]


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("kind", ["rgb", "jpg", "bits", "labels", "cut-out", "film"])
def test_masks(tmp_path, kind):
    wanted = masks()
    grey = [mask.astype(np.uint8) * 255 for mask in wanted]
    if kind == "film":
        path = write_video(tmp_path / "mask.mp4", [np.repeat(one[..., None], 3, axis=2) for one in grey], 12)
    else:
        path = tmp_path / "masks"
        for index, (mask, image) in enumerate(zip(wanted, grey, strict=True)):
            name = f"{8 + index}.{'jpg' if kind == 'jpg' else 'png'}"  # 8, 9, 10
            red = np.full((*SIZE, 3), 40, np.uint8)
            array = {"labels": mask.astype(np.uint8) * 2, "cut-out": np.dstack([red, image])}.get(kind, image)
            save(path / name, array, {"rgb": "RGB", "bits": "1"}.get(kind))
    maps = maps_of_film("mask", path, COUNT, Path("film.mp4"))
    for index, mask in enumerate(wanted):
        found = maps.read(index, SIZE)
        assert found.dtype == bool and (found != mask).mean() < (0.01 if kind in ("film", "jpg") else 1e-9)
    double = maps.read(0, (2 * SIZE[0], 2 * SIZE[1]))
    assert (double != np.kron(wanted[0], np.ones((2, 2), bool))).mean() < 0.01


def test_depth_in_8_and_16_bits_near_or_far_bright(tmp_path):
    depth = layers_of_person(*SIZE).depth
    for name, top, kind in (("a.png", 255, np.uint8), ("b.png", 65535, np.uint16)):
        path = write_image(tmp_path / name, np.rint(depth * top).astype(kind))
        assert np.abs(Maps("depth", [path]).read(0, SIZE) - depth).max() < 0.6 / top
        assert np.abs(Maps("depth", [path], bright="far").read(0, SIZE) - (1 - depth)).max() < 0.6 / top


@pytest.mark.parametrize(("axes", "signs"), [("opengl", (1, 1, 1)), ("directx", (1, -1, 1)), ("opencv", (1, -1, -1))])
def test_normals_of_other_axes_come_back_in_ours(tmp_path, axes, signs):
    wanted = np.zeros((*SIZE, 3), np.float32)
    wanted[10:30, 20:40] = (0.48, 0.6, 0.64)
    surface = np.abs(wanted).max(-1, keepdims=True) > 0
    coded = np.rint((wanted * signs + 1) * 127.5).astype(np.uint8) * surface
    maps = Maps("normal", [write_image(tmp_path / "n.png", coded)], axes=axes)
    assert np.abs(maps.read(0, SIZE) - wanted).max() < 0.01
    half = maps.read(0, (SIZE[0] // 2, SIZE[1] // 2))
    lengths = np.linalg.norm(half, axis=-1)
    assert np.abs(lengths[lengths > 0] - 1).max() < 1e-5 and (lengths > 0).sum() == 100


def test_photos_find_their_maps_by_name(tmp_path):
    wanted = masks()
    names = {"a.jpg": "a.png", "b.png": "b.png.mask.png", "c.jpeg": "c_mask.png"}
    for mask, name in zip(wanted, names.values(), strict=True):
        save(tmp_path / name, mask.astype(np.uint8) * 255)
    found = maps_of_photos("mask", tmp_path, [Path(name) for name in names])
    assert all(np.array_equal(found.read(index, SIZE), mask) for index, mask in enumerate(wanted))
    with pytest.raises(UserError, match=r"has no picture for d\.jpg; expected one, d\.png"):
        maps_of_photos("mask", tmp_path, [Path("d.jpg")])
    save(tmp_path / "a.jpg", wanted[0].astype(np.uint8))
    with pytest.raises(UserError, match=r"has both a\.jpg and a\.png for a\.jpg"):
        maps_of_photos("mask", tmp_path, [Path("a.jpg")])


def test_what_does_not_fit_is_one_line(tmp_path):
    grey, colour = np.zeros(SIZE, np.uint8), np.zeros((*SIZE, 3), np.uint8)
    colour[..., 0] = np.arange(SIZE[1])
    files = {"grey": grey + 100, "colour": colour, "labels": grey + 28, "tall": np.zeros((64, 48), np.uint8)}
    paths = {name: write_image(tmp_path / f"{name}.png", array) for name, array in files.items()}
    for layer, name, said in (
        ("depth", "colour", "is a coloured picture; expected depth in grey"),
        ("normal", "grey", "expected normals in RGB"),
        ("parts", "colour", "has 3 channels; expected labels in one channel"),
        ("parts", "labels", "has label 28; labels go from 0 to 27"),
        ("mask", "grey", "is a picture in many greys; expected a mask"),
        ("mask", "tall", "is 48x64, its picture 64x48; expected the same shape"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            Maps(layer, [paths[name]]).read(0, SIZE)
        assert str(paths[name]) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"mask of 4 frames, but film\.mp4 has 3; they must be as many"):
        maps_of_film("mask", tmp_path, 3, Path("film.mp4"))
    with pytest.raises(UserError, match="is one file; expected a folder of pictures"):
        maps_of_film("depth", paths["grey"], 1, Path("film.mp4"))


def test_a_film_with_maps_of_others_becomes_a_data_set(tmp_path):
    """All but the keypoints are given: seven of nine tasks; depth is nothing outside of the mask."""
    layers = [layers_of_person(*SIZE, seed=index) for index in range(COUNT)]
    film = write_video(tmp_path / "walk.mp4", [one.frame for one in layers], 12)
    for index, one in enumerate(layers):
        save(tmp_path / "mask" / f"{index}.png", one.mask)
        write_image(tmp_path / "depth" / f"{index}.png", np.full(SIZE, 32768, np.uint16))
        coded = np.rint((one.normal + 1) * 127.5).astype(np.uint8) * one.mask[..., None]
        write_image(tmp_path / "normal" / f"{index}.png", coded)
        write_image(tmp_path / "parts" / f"{index}.png", one.parts)
    given = Given(paths={layer: tmp_path / layer for layer in ("mask", "depth", "normal", "parts")})
    summary = prepare(PrepareConfig(inputs=[film], output=tmp_path / "out", given=given))
    assert summary.tasks == tasks_shown_by("frame", "mask", "depth", "normal", "parts")
    loaded = read_manifest(tmp_path / "out")[0].load(2)
    assert np.array_equal(loaded.mask, layers[2].mask) and np.array_equal(loaded.parts, layers[2].parts)
    assert np.abs(loaded.normal - layers[2].normal).max() < 0.01
    assert np.array_equal(loaded.depth > 0, layers[2].mask) and np.abs(loaded.depth.max() - 0.5) < 1e-4
