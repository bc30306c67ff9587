"""Names of code: another as soon as the code would do something else."""

import importlib.util
import sys

import pytest

from meta_animator.data.conditions import CONDITIONS, hands, image, pose
from meta_animator.data.versions import code_version

TOLD = '''
import functools
LIMIT = {limit}
HELPERS = {{"grow": lambda x: x + {step}}}

class Pen:
    """How it draws."""
    width: int = {width}
    def stroke(self, x):
        return _scaled(x) * self.width

def _scaled(x, by={by}):
    # {comment}
    return x * by

@functools.lru_cache
def limit():
    return LIMIT

def draw(x):
    """{comment}"""
    return min(limit(), HELPERS["grow"](Pen().stroke(x)))

def other(x):
    return x
'''
VALUES = {"limit": 9, "step": 1, "width": 2, "by": 3, "comment": "plain"}


@pytest.fixture
def module(tmp_path):
    def make(**changes):
        """A module of a package of its own, freshly read."""
        number = len(list(tmp_path.iterdir()))
        path = tmp_path / f"drawn{number}.py"
        path.write_text(TOLD.format(**(VALUES | changes)))
        spec = importlib.util.spec_from_file_location("drawn", path)
        made = importlib.util.module_from_spec(spec)
        sys.modules["drawn"] = made
        spec.loader.exec_module(made)
        return made

    yield make
    sys.modules.pop("drawn", None)


def test_a_version_holds_everything_that_is_used_and_nothing_else(module):
    first = module()
    draw, other = code_version(first.draw), code_version(first.other)
    assert draw != other
    assert code_version(module(comment="other words").draw) == draw, "comments and docstrings do nothing"
    for change in ({"limit": 8}, {"step": 2}, {"width": 1}, {"by": 4}):
        changed = module(**change)
        assert code_version(changed.draw) != draw, change
        assert code_version(changed.other) == other, change


@pytest.mark.parametrize(
    ("where", "name", "value", "tasks"),
    [
        (image, "CANNY_THRESHOLDS", (50, 100), {"canny"}),
        (image, "BLUR_SIGMA", 0.1, {"blurred"}),
        (hands, "AMBIENT", 0.5, {"pose_hamer"}),
        (pose, "JOINT_RADIUS", 9.0, {"dwpose", "pose_hamer"}),
    ],
)
def test_only_the_tasks_that_draw_with_it_have_a_new_version(monkeypatch, where, name, value, tasks):
    before = {task: code_version(condition.draw) for task, condition in CONDITIONS.items()}
    assert len(set(before.values())) == len(before)
    monkeypatch.setattr(where, name, value)
    assert {task for task, condition in CONDITIONS.items() if code_version(condition.draw) != before[task]} == tasks
