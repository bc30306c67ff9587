"""Keypoints and masks beside photos and films: each photo's own, by name or in counting order; what does not fit is said."""

import numpy as np
import pytest

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from meta_animator.preparation.prepare import PrepareConfig, prepare
from tests.data.people import layers_of_person

SIZES = {"1.png": (96, 64), "2.png": (64, 100), "10.png": (80, 70)}  # in counting order; the widths need padding bits


@pytest.fixture
def photos(tmp_path):
    """A folder with three photos of three sizes, the layers of each by name."""
    (tmp_path / "photos").mkdir()
    layers = {name: layers_of_person(*size, seed=k) for k, (name, size) in enumerate(SIZES.items())}
    for name, layer in layers.items():
        write_image(tmp_path / "photos" / name, layer.frame)
    return layers


def packed(layers) -> np.ndarray:
    return np.packbits(layers.mask, axis=-1)


def padded(layers) -> np.ndarray:
    masks = np.zeros((len(layers), 96, 104), bool)
    for mask, layer in zip(masks, layers, strict=True):
        mask[: layer.size[0], : layer.size[1]] = layer.mask
    return np.packbits(masks, axis=-1)


def made(folder, keypoints, inputs=None, **more):
    """The clips of the photos, prepared with this file or folder of keypoints."""
    summary = prepare(PrepareConfig(inputs=inputs or [folder / "photos"], keypoints=keypoints, output=folder / "out", **more))
    return summary, read_manifest(folder / "out")


def same(clips, photos) -> None:
    assert len(clips) == len(photos)
    for clip, layers in zip(clips, photos.values(), strict=True):
        shown = clip.load(0)
        for name in ("frame", "mask", "keypoints"):
            np.testing.assert_array_equal(getattr(shown, name), getattr(layers, name), err_msg=name)


def test_photos_of_several_sizes_have_masks_of_their_own(tmp_path, photos, capsys):
    points = np.stack([layer.keypoints for layer in photos.values()])
    sizes = np.array(list(SIZES.values()))
    for number, more in enumerate(({}, {"sizes": sizes})):
        np.savez(tmp_path / "all.npz", keypoints=points, mask=padded(photos.values()), **more)
        same(made(tmp_path, tmp_path / "all.npz", overwrite=number > 0)[1], photos)
    np.savez(tmp_path / "all.npz", keypoints=points, mask=padded(photos.values()), sizes=sizes[::-1])
    with pytest.raises(UserError, match=r"all\.npz: was made for 70x80, but 1\.png is 64x96"):
        made(tmp_path, tmp_path / "all.npz", overwrite=True)
    centred = np.roll(np.unpackbits(padded(photos.values()), axis=-1), 30, axis=2)
    np.savez(tmp_path / "all.npz", keypoints=points, mask=np.packbits(centred, axis=-1))
    with pytest.raises(UserError, match=r"mask of 1\.png goes on beyond its 64x96 pixels; expected it in the upper left"):
        made(tmp_path, tmp_path / "all.npz", overwrite=True)


@pytest.mark.parametrize("beside", [False, True])
def test_each_photo_may_have_a_file_of_its_own(tmp_path, photos, beside):
    folder = tmp_path / ("photos" if beside else "points")
    folder.mkdir(exist_ok=True)
    for number, (name, layers) in enumerate(photos.items()):
        entry = {"keypoints": layers.keypoints, "mask": packed(layers)}
        entry = {key: value[None] for key, value in entry.items()} if number == 1 else entry
        np.savez(folder / f"{name[:-4]}.npz", width=layers.size[1], height=layers.size[0], **entry)
    same(made(tmp_path, folder)[1], photos)
    (folder / "10.npz").unlink()
    with pytest.raises(UserError, match=r"has no 10\.npz for 10\.png"):
        made(tmp_path, folder, overwrite=True)


def test_entries_go_by_their_names_else_in_counting_order(tmp_path, photos, capsys):
    """2 comes before 10, which is said where nothing but the order tells whose entries they are."""
    about = {name: {"keypoints": layers.keypoints, "mask": mask} for (name, layers), mask in zip(
        photos.items(), padded(photos.values()), strict=True)}  # fmt: skip

    def store(whose, **more):
        stacked = {key: np.stack([about[name][key] for name in whose]) for key in ("keypoints", "mask")}
        np.savez(tmp_path / "all.npz", **stacked, **more)
        return tmp_path / "all.npz"

    same(made(tmp_path, store(SIZES))[1], photos)
    assert "has no 'names'; its entries are taken for the photos in counting order, 2.png before 10" in capsys.readouterr().out
    order = ["10.png", "1.png", "2.png"]
    for names in (order, ["10", "1", "2"], [f"C:\\photos\\{name}" for name in order]):
        same(made(tmp_path, store(order, names=names), overwrite=True)[1], photos)
    assert "note" not in capsys.readouterr().out
    inputs = [tmp_path / "photos" / name for name in ("2.png", "1.png")]
    del photos["10.png"]
    same(made(tmp_path, store(order, names=order), inputs, overwrite=True)[1], photos)
    assert "1 entries are of photos that are not there (10.png)" in capsys.readouterr().out
    for names, message in (
        (["1.png", "2.png", "3.png"], r"names no entry for 10\.png; its names: 1\.png"),
        (["1.png", "2.png", "2.png"], "'2.png' is named twice"),
        (["1.png", "2.png"], "2 names for 3 entries"),
    ):
        with pytest.raises(UserError, match=message):
            made(tmp_path, store(order, names=names), overwrite=True)


def test_arrays_of_arrays_are_refused_with_what_to_write_instead(tmp_path, photos):
    ragged = np.empty(3, object)
    ragged[:] = [packed(layers) for layers in photos.values()]
    np.savez(tmp_path / "all.npz", keypoints=np.stack([layer.keypoints for layer in photos.values()]), mask=ragged)
    with pytest.raises(UserError, match=r"takes a pickle and is not read; write one \.npz per photo .* or masks") as caught:
        made(tmp_path, tmp_path / "all.npz")
    assert "\n" not in str(caught.value)


def test_points_outside_and_people_seldom_seen_are_said_with_their_share(tmp_path):
    layers = layers_of_person(96, 128)
    video = write_video(tmp_path / "film.mp4", [layers.frame] * 10, fps=10)
    points = np.stack([layers.keypoints] * 10)
    points[:6, :, 2] = 0
    points[6, :23, 0] += 128  # 23 of the 133 points in one of the four frames that count
    np.savez(tmp_path / "film.npz", keypoints=points)
    summary, _ = made(tmp_path, tmp_path / "film.npz", [video])
    assert (summary.empty, summary.of) == (6, 10)
    assert summary.notes[0].startswith("4% of the points that count as seen lie outside of the picture")
    np.savez(tmp_path / "film.npz", keypoints=np.stack([layers.keypoints * [4, 4, 1]] * 10))
    with pytest.raises(UserError, match=r"% of the points lie outside of .*film\.mp4 \(128x96\); they belong to a picture"):
        made(tmp_path, tmp_path / "film.npz", [video], overwrite=True)
