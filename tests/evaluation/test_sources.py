"""What holds clips, how they are paired, and what does not pair."""

import numpy as np
import pytest

from meta_animator.data.layers import Layers
from meta_animator.data.manifest import find_clip
from meta_animator.errors import UserError
from meta_animator.evaluation.sources import load_pair, middle, pair, read_photos, read_sources
from meta_animator.json_files import write_json
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video

FILM = np.random.default_rng(0).integers(0, 256, (4, 32, 24, 3), dtype=np.uint8)


def pictures(folder, film=FILM, names="{:04d}.png"):
    for k, frame in enumerate(film):
        write_image(folder / names.format(k), frame)
    return folder


def frames(layers):
    return np.stack([one.frame for one in layers])


def test_everything_that_holds_clips(tmp_path, puppet_data):
    pictures(tmp_path / "flat", names="TiktokDance_00337_{:04d}png.png")
    pictures(tmp_path / "flat", names="TiktokDance_203_006_1x1_{:05d}jpg.png")
    pictures(tmp_path / "clips" / "one")
    pictures(tmp_path / "clips" / "two" / "frames")
    write_video(tmp_path / "clips" / "three.mp4", FILM, 8)
    assert list(read_sources(tmp_path / "flat")) == ["TiktokDance_00337", "TiktokDance_203_006_1x1"]
    assert sorted(read_sources(tmp_path / "clips")) == ["one", "three", "two"]
    assert list(read_sources(tmp_path / "clips" / "one")) == ["one"]
    assert list(read_sources(tmp_path / "clips" / "three.mp4")) == ["three"]
    assert list(read_sources(puppet_data / "train")) == ["p0", "p1", "p2", "p3"]
    assert np.array_equal(frames(read_sources(tmp_path / "clips")["two"].load(None, 0.0)), FILM)
    assert frames(read_sources(tmp_path / "clips" / "three.mp4")["three"].load(None, 0.0)).shape == FILM.shape
    (tmp_path / "empty").mkdir()
    for folder, line in ((tmp_path / "none", "no such file or folder"), (tmp_path / "empty", "holds no clip")):
        with pytest.raises(UserError, match=line):
            read_sources(folder)
    write_image(tmp_path / "clips" / "0.png", FILM[0])
    with pytest.raises(UserError, match=r"holds pictures \(0\.png\) and clips \(one\)"):
        read_sources(tmp_path / "clips")


def test_numbers_order_pictures_not_letters(tmp_path):
    pictures(tmp_path, np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8), "f{}.png")
    (source,) = read_sources(tmp_path).values()
    assert [layers.frame[0, 0, 0] for layers in source.load(None, 0.0)] == list(range(12))


def test_pairs_by_name_or_alone(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for name in ("00337", "00338"):
        pictures(ours / f"TiktokDance_{name}")
        pictures(theirs / name)
    made, true = read_sources(ours), read_sources(theirs)
    assert {name: (a.name, b.name) for name, (a, b) in pair(made, true).items()} == {
        name: (f"TiktokDance_{name}", name) for name in ("00337", "00338")
    }
    assert list(pair(made, true, ["00338"])) == ["00338"]
    assert {name: (a.name, b.name) for name, (a, b) in pair(true, made).items()} == {
        f"TiktokDance_{name}": (name, f"TiktokDance_{name}") for name in ("00337", "00338")
    }
    one = read_sources(theirs / "00338")
    assert [(a.name, b.name) for a, b in pair(one, made, ["00337"]).values()] == [("00338", "TiktokDance_00337")], "named, alone"
    with pytest.raises(UserError, match="clip '00337': several generated ones fit, TiktokDance_00337, other_00337; name clips"):
        pair({**made, "other_00337": made["TiktokDance_00337"]}, true)
    assert list(pair(read_sources(ours / "TiktokDance_00337"), read_sources(theirs / "00338"))) == ["TiktokDance_00337"]
    with pytest.raises(UserError, match=r"1 of 2 clips have no generated one: 201_002_1x1; .* has TiktokDance_00337, Tik"):
        pair(made, true, ["00337", "201_002_1x1"])
    del true["00338"]
    with pytest.raises(UserError, match=r"1 of 2 clips have no true one: TiktokDance_00338; .*theirs has 00337"):
        pair(made, true)


def test_counts_and_sizes_that_differ_are_one_line(tmp_path):
    (ours,) = read_sources(pictures(tmp_path / "a")).values()
    (fewer,) = read_sources(pictures(tmp_path / "b", FILM[:3])).values()
    (wider,) = read_sources(pictures(tmp_path / "c", np.repeat(FILM, 2, 2))).values()
    with pytest.raises(UserError, match=r"a has 4 frames, .*b has 3; expected as many"):
        load_pair(ours, fewer, None)
    with pytest.raises(UserError, match=r"a and .*c differ in size, 24x32 and 48x32 pixels; --size"):
        load_pair(ours, wider, None)
    made, true = load_pair(ours, wider, (16, 16))
    assert frames(made).shape == frames(true).shape == (4, 16, 16, 3)
    write_image(tmp_path / "a" / "0002.png", FILM[0, :20])
    with pytest.raises(UserError, match=r"0002\.png: differs in size from 0000\.png"):
        load_pair(ours, ours, None)


def test_what_stage_3_wrote_goes_with_the_frames_of_its_times(tmp_path, puppet_data):
    clip = find_clip(puppet_data / "train", "p2")
    true = np.stack([clip.load(k).frame for k in range(clip.num_frames)])
    pictures(tmp_path / "run" / "frames", true[[1, 3]])
    write_json(tmp_path / "run" / "times.json", {"fps": 6.0, "driving_frames": [1, 3]})
    ours, theirs = read_sources(tmp_path / "run")["run"], read_sources(puppet_data / "train")["p2"]
    made, real = load_pair(ours, theirs, None)
    assert np.array_equal(frames(made), frames(real)) and real[0].mask is not None and real[0].keypoints is not None


def test_the_middle_moves_keypoints_and_masks_along():
    frame = np.zeros((40, 20, 3), np.uint8)
    frame[18:22, 6:10] = 255
    points = np.zeros((133, 3), np.float32)
    points[0] = 7.5, 19.5, 1  # the middle of the bright square, whose pixels are 6 to 9 and 18 to 21
    small = middle(Layers(frame=frame, mask=frame[..., 0] > 0, keypoints=points), (10, 10))
    rows, columns = np.nonzero(small.frame[..., 0] > 127)
    assert (columns.mean(), rows.mean()) == (3.5, 4.5) and small.keypoints[0, :2] == pytest.approx([3.5, 4.5])
    assert np.array_equal(small.mask, small.frame[..., 0] > 127) and points[0, 0] == 7.5
    points[1] = 7.5, 2.0, 1  # above what is left
    assert middle(Layers(frame=frame, keypoints=points), (10, 10)).keypoints[:2, 2].tolist() == [1, 0]


def test_photos_of_a_folder_a_data_set_or_a_run(tmp_path, puppet_data):
    assert len(read_photos(pictures(tmp_path / "photos"), tmp_path)) == 4
    assert len(read_photos(tmp_path / "photos" / "0001.png", tmp_path)) == 1
    assert read_photos(None, tmp_path) == [] and len(read_photos(puppet_data / "person", tmp_path)) > 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"stage: sample\nsample:\n  reference: {tmp_path / 'photos'}\n")
    assert len(read_photos(None, tmp_path / "run")) == len(read_photos(None, tmp_path)) == 4
    with pytest.raises(UserError, match="none: holds no photos"):
        read_photos(tmp_path / "none", tmp_path)
