"""What a log tells."""

import json

from meta_animator.app.progress import Bar, parse, read_learning, read_progress

LOG = """$ first run
error: of before
$ second run

== who is it: photos (about 5 min 0 s left)
note: first use
advice on the photos of anna: add a profile

looking for people:   0%|          | 0/8 [00:00<?, ?frame/s]\rlooking for people:  25%|██▌       | 2/8 [00:01<00:03,  2.00frame/s]
== how do they move: dance.mp4 (about 4 min 40 s left)

== learning anna (stage 2) (about 4 min 0 s left)
note: left off: seg, which nothing shows
reference:   0%|          | 0/200 [00:00<?, ?step/s]\rreference:  10%|█         | 20/200 [00:30<04:30,  1.50s/step, loss=0.2]"""


def test_the_step_its_bar_and_the_time_left():
    found = parse(LOG)
    assert (found.step, found.place, found.error) == (3, "learning", "")
    assert found.bar == Bar("reference", 20, 200, 30.0, 270.0)
    assert found.left == 270, "its own bar knows better than the 3 min 30 s that were thought to be left"
    assert found.notes == ("first use", "left off: seg, which nothing shows", "add a profile")
    shorter = parse(LOG.replace("00:30<04:30", "00:30<00:30"))
    assert shorter.left == 210, "sampling comes after it"
    assert parse(LOG.replace(" (about 4 min 0 s left)", "")).left == 270
    assert "of before" not in "".join(found.lines) and parse("").step == 0


def test_the_last_error_counts_and_a_crash_is_one_line():
    assert parse(LOG + "\nerror: one\nerror: two\n").error == "two"
    crash = "\nTraceback (most recent call last):\n  File ...\nKeyError: 'x'\n"
    assert parse(LOG + crash).error == "KeyError: 'x' (a bug: the log says where)"


def test_a_log_that_is_not_there_or_is_cut_in_a_letter(tmp_path):
    assert read_progress(tmp_path / "none").step == 0
    (tmp_path / "log").write_bytes(LOG.encode() + "█".encode()[:1])
    assert read_progress(tmp_path / "log").step == 3


def test_curves_are_means_over_tasks_and_half_a_line_is_left_out(tmp_path):
    rows = [{"step": 1, "task": "a", "loss": 1.0}, {"step": 1, "task": "b", "loss": 3.0}, {"step": 2, "loss": 1.5, "face": None}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 3, "lo')
    found = read_learning(tmp_path)
    assert found.curves == {"loss": [(1, 2.0), (2, 1.5)]} and not found.previews
