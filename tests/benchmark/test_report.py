"""Turns, pairs and tables of measurements."""

import copy

import pytest
import torch

from meta_animator.benchmark.measuring import Meter, alternate, ratio
from meta_animator.benchmark.report import compare
from meta_animator.errors import UserError
from meta_animator.json_files import write_json

REPORT = {
    "benchmark": 1, "command": "train", "asked": {"repeats": 3}, "settings": {"train": {"batch_size": 8}},
    "machine": {"threads": 2, "load": 0.3, "versions": {"torch": "2.14"}}, "against": {},
    "results": {"step": {"seconds": {"median": 0.5, "values": [0.5, 0.6]}, "counts": {"total": {"calls": 100, "casts": 0}}}},
}  # fmt: skip


def test_contestants_take_turns_and_warming_up_does_not_count():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    meters = alternate(steps, torch.device("cpu"), warmup=1, repeats=2)
    assert "".join(order) == "abbaab"
    assert [len(values) for one in meters.values() for values in (one.seconds, one.peak, one.at_rest)] == [2] * 6


def test_ratios_are_of_pairs():
    ours, theirs = Meter(torch.device("cpu")), Meter(torch.device("cpu"))
    ours.seconds, theirs.seconds = [1.0, 2.0, 4.0], [3.0, 4.0, 4.0]
    found = ratio(ours, theirs)
    assert (found["values"], found["median"], found["upper_quartile"]) == ([3.0, 2.0, 1.0], 2.0, 2.5)
    assert ours.numbers([2, 2, 8], "images")["images_per_second"] == 2.0, "the median of 2, 1 and 2"


def test_compared_reports_give_ratios_and_say_what_else_differs(tmp_path):
    other = copy.deepcopy(REPORT)
    other["results"]["step"] = {"seconds": {"median": 0.25, "values": [1.0]}, "counts": {"total": {"calls": 50, "casts": 0}}}
    other["settings"]["train"]["batch_size"], other["machine"]["threads"], other["machine"]["load"] = 4, 1, 2.0
    for name, report in (("a.json", REPORT), ("b.json", other)):
        write_json(tmp_path / name, report)
    lines = [line.split() for line in compare(tmp_path / "a.json", tmp_path / "b.json").splitlines()]
    assert lines[:2] == [["note:", "train.batch_size:", "8,", "4"], ["note:", "threads:", "2,", "1"]]
    assert lines[3:] == [["step.seconds.median", "0.5", "0.25", "0.500"], ["step.counts.total.calls", "100", "50", "0.500"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": "cache"}, "measured train, .* cache"), ({"benchmark": None}, "is no report"),
        ({"results": {}}, "no number in common"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(tmp_path, changes, said):
    write_json(tmp_path / "a.json", REPORT)
    write_json(tmp_path / "b.json", REPORT | changes)
    with pytest.raises(UserError, match=said):
        compare(tmp_path / "a.json", tmp_path / "b.json")
