"""The few-shot benchmark: its plan, its statistics, its report, and one small run of all of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_animator.benchmark.fewshot import prepare
from meta_animator.benchmark.fewshot.cells import Bench, Size, cells_of, read_rows
from meta_animator.benchmark.fewshot.judges import JOINTS, PoseJudge, pose_error
from meta_animator.benchmark.fewshot.methods import FULL, METHODS, chosen
from meta_animator.benchmark.fewshot.people import TEST, TUNING, make_people, photos_of
from meta_animator.benchmark.fewshot.prepare import size_of
from meta_animator.benchmark.fewshot.report import METRICS, _means, _pace, by_person, write_report
from meta_animator.benchmark.fewshot.statistics import interval, paired
from meta_animator.config import load_config
from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from scripts.benchmark_fewshot import part_of, part_of_cells

ROOT = Path(__file__).parents[2]


def test_an_interval_holds_the_mean_of_whom_it_was_drawn_from():
    """Of 95 % intervals of ten normal values each, most, and not all, hold the true mean; one of constants is a point."""
    values = np.random.default_rng(0).normal(3.0, 2.0, (200, 10))
    held = [found.low <= 3.0 <= found.high for found in map(interval, values)]
    assert 0.85 < np.mean(held) < 0.97
    assert interval([2.0] * 5)[:3] == (2.0, 2.0, 2.0) and interval([2.0] * 5).excludes_zero
    few = interval([5.0, 5.0, 5.0])
    assert few.mean == 5.0 and not few.excludes_zero, "three people show nothing"
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_differences_are_of_the_same_people():
    ours = {k: 10.0 * k + 1 for k in range(6)}
    theirs = {k: 10.0 * k for k in range(1, 9)}
    gap = paired(ours, theirs)
    assert (gap.mean, gap.low, gap.high, gap.count) == (1.0, 1.0, 1.0, 5) and gap.excludes_zero
    assert paired({1: 2.0}, {2: 1.0}) is None


def test_steps_are_compared_where_both_were_scored():
    """Of four people: the rival's best is after 500 steps, which we reach after 100; a person of ours alone does not count."""
    values = {FULL: {100: 5.0, 1000: 6.0}, "control_pose": {250: 4.0, 500: 4.5, 1000: 4.2}}
    rows = [
        {"method": method, "photos": 5, "steps": steps, "person": person, "person_psnr": value + person}
        for method, scored in values.items() for steps, value in scored.items() for person in range(4)
    ]  # fmt: skip
    rows.append({"method": FULL, "photos": 5, "steps": 100, "person": 9, "person_psnr": -90.0})
    rows.append({"method": FULL, "photos": 5, "steps": 1000, "person": 9, "person_psnr": -90.0})
    said = _pace(rows, "control_pose", 5)
    assert said.endswith("is best after 500, 6.00 dB; Meta-Animator reaches that after 100 of its own")
    worse = [row | {"person_psnr": row["person_psnr"] - 3} if row["method"] == FULL else row for row in rows]
    assert _pace(worse, "control_pose", 5).endswith("reaches that not in 1000 of its own")
    assert _pace(rows[:-8], "control_pose", 5) == _pace(rows, "dreambooth", 5) == "", "too few people, or none"


def test_a_mean_of_fewer_people_says_so():
    def row(method, person):
        return dict.fromkeys(METRICS, 1.0) | {"method": method, "person": person, "steps": 5, "seconds": None}

    table = _means({FULL: [row(FULL, person) for person in range(5)], "no_hybrid": [row("no_hybrid", 0), row("no_hybrid", 1)]})
    assert "| stage 2 as it is shipped | 1.00 [" in table and "| without the image loss (2 of 5 people) | 1.00 |" in table


def test_each_ablation_changes_settings_that_exist():
    for method in METHODS.values():
        config = load_config(ROOT / "configs/demo/step2.yaml", list(method.stage2))
        load_config(ROOT / "configs/demo/step3.yaml", list(method.stage3))
        assert "dwpose" in config.model.tasks
    assert load_config(ROOT / "configs/demo/step2.yaml", list(METHODS["no_glt"].stage2)).model.tasks[-1] == "bg_outpainting"
    with pytest.raises(UserError, match="--methods: 'x' is none; there are first_photo, "):
        chosen(["x"])


def test_the_cells_are_every_person_with_every_method_once(tmp_path):
    size = Size(people=TEST[:2], photos=(1, 5), methods=("first_photo", FULL), seeds=(0, 1), steps=(10, 20))
    cells = list(cells_of(size, chosen(list(size.methods))))
    assert len({cell.name for cell in cells}) == len(cells) == 2 * 2 * (1 + 2), "photos alone have no seed"
    assert [cell.steps(size) for cell in cells[:2]] == [(0,), (10, 20)]
    assert not set(TEST) & set(TUNING)
    assert part_of("2/3") == (2, 3)
    for wrong in ("0/3", "4/3", "2", "a/b"):
        with pytest.raises(UserError, match="--part: expected I/N"):
            part_of(wrong)


def test_what_samples_from_another_method_s_stage_2_stays_in_its_part():
    methods = chosen([FULL, "no_motion", "no_hybrid", "auxiliary", "stage0"])
    cells = list(cells_of(Size(people=TEST[:3], photos=(5,), methods=()), methods))
    assert [cell.training for cell in cells[:5]] == [
        f"{TEST[0]}-{name}-5-0" for name in (FULL, FULL, "no_hybrid", "auxiliary", "stage0")
    ]
    parts = [part_of_cells(cells, part, 2) for part in (1, 2)]
    assert [{cell.person for cell in part} for part in parts] == [{TEST[0], TEST[2]}, {TEST[1]}]
    assert sum(map(len, parts)) == len(cells)


def test_rows_of_several_machines_and_a_cut_off_line(tmp_path):
    row = {"cell": "a", "steps": 5, "person": 1, "person_psnr": 1.0}
    (tmp_path / "results-1.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"cell": "b"})[:20])
    more = [row | {"person_psnr": 3.0}, row | {"steps": 9}]
    (tmp_path / "results-2.jsonl").write_text("".join(json.dumps(one) + "\n" for one in more))
    rows = read_rows(tmp_path)
    assert [(r["steps"], r["person_psnr"]) for r in rows] == [(5, 3.0), (9, 1.0)]
    assert by_person([*rows, {"person": 2, "person_psnr": None}], "person_psnr") == {1: 2.0}


def test_more_photos_begin_with_the_fewer(tmp_path):
    for photos in (1, 3):
        make_people(tmp_path, [TEST[0]], photos, frames=2, size=64, others=1)
    one, three = (read_manifest(photos_of(tmp_path, TEST[0], k)) for k in (1, 3))
    assert len(one) == 1 and len(three) == 3
    assert np.array_equal(one[0].load(0, ("frame",)).frame, three[0].load(0, ("frame",)).frame)


def test_a_folder_holds_one_kind_of_benchmark(tmp_path, monkeypatch):
    """Judges and people of a smoke run would else be kept for the real one, rows of trainings of other lengths be averaged."""
    made = []
    monkeypatch.setattr(prepare, "make_people", lambda *how: made.append(how))
    monkeypatch.setattr(prepare, "_train_face_judge", lambda *how: None)
    monkeypatch.setattr(prepare, "train_pose_judge", lambda *how: 0.1)
    monkeypatch.setattr(prepare.FaceEmbedder, "from_pretrained", lambda folder: torch.nn.Identity())
    monkeypatch.setattr(prepare.PoseJudge, "load", lambda folder: torch.nn.Identity())
    prepare.open_bench(tmp_path, size_of("smoke"))
    with pytest.raises(UserError, match=r"\(frames 4, not 24; .*steps 4, not 1000\); name another folder with --output"):
        prepare.open_bench(tmp_path, size_of("usual"))
    assert len(made) == 1
    with pytest.raises(UserError, match="steps 4, not 9"):
        prepare.open_bench(tmp_path, size_of("smoke", steps=(9,)))
    prepare.open_bench(tmp_path, size_of("smoke", steps=(1, 4), people=3))


def test_sizes_by_name_and_what_is_given():
    assert size_of("usual", steps=(500, 100, 500)).steps == (100, 500)
    assert size_of("usual", people=12).people == TEST[:12] and size_of("smoke", tuning=True, people=2).people == TUNING[:2]
    with pytest.raises(UserError, match="--people: there are 16 people, not 17"):
        size_of("full", people=17)


def test_a_cell_is_done_when_all_its_steps_are(tmp_path):
    size = Size(people=TEST[:1], photos=(5,), methods=(), steps=(10, 20))
    cells = list(cells_of(size, chosen(["first_photo", FULL])))
    bench = Bench(folder=tmp_path, size=size, face=None, pose=None)
    rows = [{"cell": cells[0].name, "steps": 0, "last": True}, {"cell": cells[1].name, "steps": 20, "last": True}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bench.done(cells) == {cells[0].name}
    (tmp_path / "results-2.jsonl").write_text(json.dumps({"cell": cells[1].name, "steps": 10}))
    assert bench.done(cells) == {cell.name for cell in cells}


def test_a_report_needs_no_judges_and_holds_people_of_one_kind(tmp_path):
    """Rows of other machines alone in a folder; people by whom settings were chosen are in no table of the test."""
    rows = [
        dict.fromkeys(METRICS, 1.0 + person % 2000) | {"cell": f"{person}-x", "method": "stage0", "person": person}
        | {"photos": 5, "seed": 0, "steps": 0, "seconds": None, "last": True}
        for person in (*TEST[:2], TUNING[0])
    ]  # fmt: skip
    (tmp_path / "results-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_report(tmp_path, size_of("usual")).read_text()
    assert "\n2 people whom" in text and "1 rows of tuning people are left out" in text and "| 1001.50 |" in text
    assert "\n1 people whom" in write_report(tmp_path, size_of("usual", tuning=True)).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "results-1.jsonl"]


def test_joints_are_placed_between_cells():
    class Fixed(PoseJudge):
        def forward(self, images):
            logits = torch.full((1, JOINTS, 32, 32), -50.0)
            logits[..., 10, 4], logits[..., 10, 5], logits[..., 30, 30] = 2.0, 2.0 - np.log(3), 1.0
            return logits

    assert torch.allclose(Fixed().joints(torch.zeros(1, 3, 64, 64)), torch.tensor([4.75, 10.5]) / 32, atol=1e-4)


def test_pose_error_is_the_distance_in_heights():
    class Fixed(PoseJudge):
        def joints(self, images):
            return torch.full((len(images), JOINTS, 2), 0.5)

    truth = np.zeros((133, 3), np.float32)
    truth[:3] = [[31.5 + 6.4, 15.5, 1], [31.5, 15.5 + 3.2, 1], [31.5, 15.5, 0.9]]
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    errors = pose_error(Fixed(), frames, [truth, None])
    assert errors[1] is None and errors[0] == pytest.approx((0.2 + 0.1 + 0) / 3, abs=1e-4)


@pytest.mark.timeout(900)
def test_a_small_benchmark_ends_with_a_report_and_does_nothing_twice(tmp_path):
    command = [
        sys.executable, "scripts/benchmark_fewshot.py", "--smoke", "--output", str(tmp_path), "--methods", "nearest_photo",
        "dreambooth", FULL,
    ]  # fmt: skip
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    rows = read_rows(tmp_path)
    assert {(row["method"], row["steps"]) for row in rows} == {("nearest_photo", 0), ("dreambooth", 4), (FULL, 2), (FULL, 4)}
    for row in rows:
        assert 5 < row["person_psnr"] < 40 and -1 <= row["face_similarity"] <= 1 and 0 < row["pose_error"] < 1
        assert 0 < row["person_warped_flicker"] < 100
    report = (tmp_path / "report.md").read_text()
    assert "cannot be told from the photo in the most similar pose" in report, "one person shows nothing"
    assert "beats" not in report and "beaten" not in report
    assert (tmp_path / "curves.png").is_file() and (tmp_path / "frames.png").is_file()
    written = (tmp_path / "results.jsonl").read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0 and "[" not in again.stdout.split("wrote")[0]
    assert (tmp_path / "results.jsonl").read_text() == written
