import json
import os

import numpy as np
import pytest

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.json_files import write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with whole_file(path) as part:
        part.write_text("new")
        assert part.suffix == ".txt" and not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(KeyError), whole_file(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "new" and os.listdir(path.parent) == ["a.txt"]


def test_what_the_system_refuses_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"a\.txt: cannot be written") as caught, whole_file(tmp_path / "file" / "a.txt"):
        pass
    assert "\n" not in str(caught.value)


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"video": {"psnr": np.float32(20.5), "face_psnr": None}, "frames": np.int64(3)})
    assert json.loads(path.read_text()) == {"video": {"psnr": 20.5, "face_psnr": None}, "frames": 3}
    with pytest.raises(ValueError):
        write_json(path, {"psnr": float("nan")})
    assert json.loads(path.read_text())["frames"] == 3 and os.listdir(tmp_path) == ["metrics.json"]
