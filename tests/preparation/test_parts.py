"""Shares of a large set: apart from each other, and together what one go makes."""

import json

import pytest

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.footage import find_sources
from meta_animator.preparation.footage_set import FootageConfig, prepare_footage
from meta_animator.preparation.parts import join, part_folder, prepare_part, share_of
from meta_animator.preparation.quality import Limits
from tests.preparation.fakes import FakeAnnotators, film, picture


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "in"
    for name in ("anna", "ben", "cleo"):
        (folder / name).mkdir(parents=True)
        film(folder / name / "walk.mp4", 5)
        for k in range(2):
            write_image(folder / name / f"{k}.png", picture(30 + 30 * k, seed=k))
    write_image(folder / "ben" / "nobody.png", picture(person=False))
    return folder


def config_of(home, output, **changes):
    easy = Limits(min_height=20, min_sharpness=0.0, blur_ratio=0.0)
    return FootageConfig(inputs=[home], output=output, limits=easy, alike=True, **changes)


def test_parts_join_to_what_one_go_makes(home, tmp_path):
    prepare_footage(config_of(home, tmp_path / "whole" / "set"), FakeAnnotators())
    made = tmp_path / "parts" / "set"
    for part in (3, 1, 4, 2):
        prepare_part(config_of(home, made), FakeAnnotators(), part, 4)
        assert (join(made, 4) is None) == (part != 2)
    assert join(made, 4) == join(made) == 9
    lines = (tmp_path / "whole" / "set" / "manifest.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    paths = [entry.pop("layers") for entry in entries]
    assert entries == [{key: value for key, value in json.loads(line).items() if key != "layers"} for line in lines]
    assert all(path.startswith("parts/") for layers in paths for path in layers.values())
    for one, other in zip(read_manifest(tmp_path / "whole" / "set"), read_manifest(made), strict=True):
        assert (one.load(0).frame == other.load(0).frame).all() and (one.load(0).mask == other.load(0).mask).all()
        assert (one.load_keypoints(0) == other.load_keypoints(0)).all()
    assert (made / "sheets" / "overview.png").is_file()


def test_shares_do_not_overlap_and_do_not_depend_on_the_others(home):
    everything = find_sources([home])
    shares = [share_of(everything, part, 3) for part in (1, 2, 3)]
    assert sorted(one.name for share in shares for one in share) == sorted(one.name for one in everything)
    fewer = [one for one in everything if one.identity != "ben"]
    assert [[one for one in share if one.identity != "ben"] for share in shares] == [share_of(fewer, k, 3) for k in (1, 2, 3)]
    photos = {(one.identity, k) for k, share in enumerate(shares) for one in share if one.kind == "photo"}
    assert len(photos) == 3


def test_what_does_not_join_is_said(home, tmp_path, capsys):
    made = tmp_path / "set"
    prepare_part(config_of(home, made), FakeAnnotators(), 2, 2)
    with pytest.raises(UserError, match="parts 1 of 2 are not finished"):
        join(made)
    film(home / "anna" / "late.mp4", 5)
    prepare_part(config_of(home, made), FakeAnnotators(), 1, 2)
    with pytest.raises(UserError, match="made of other inputs"):
        join(made)
    assert join(made, 2) is None and "not joined yet: " in capsys.readouterr().out
    prepare_part(config_of(home, made), FakeAnnotators(), 2, 2)
    assert join(made) == 10
    prepare_part(config_of(home, made, cut=Cut(size=(32, 32)), least=2), FakeAnnotators(), 2, 2)
    with pytest.raises(UserError, match=r"made with other settings \(cut, least\) each"):
        join(made)
    assert join(made, 2) is None
    with pytest.raises(UserError, match="nowhere: holds no parts"):
        join(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match="holds parts of a data set; add --part"):
        prepare_footage(config_of(home, made), FakeAnnotators())
    (part_folder(made, 1, 3)).mkdir()
    with pytest.raises(UserError, match="parts of one division, there are of 2 and of 3"):
        join(made)
    with pytest.raises(UserError, match="heldout-frames is for one film"):
        prepare_part(config_of(home, made, heldout=(0, 2)), FakeAnnotators(), 1, 2)
