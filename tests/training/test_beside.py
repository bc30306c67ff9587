"""What is written in a thread: one task at a time, whose error nobody loses."""

import threading

import pytest

from meta_animator.errors import Stopped, UserError
from meta_animator.training.beside import Beside


def fail() -> None:
    raise UserError("disk: full")


def test_tasks_come_one_after_another():
    go, order, beside = threading.Event(), [], Beside()
    beside.start(lambda: (go.wait(10), order.append(1)))
    assert order == [], "the loop goes on"
    threading.Timer(0.05, go.set).start()
    beside.start(lambda: order.append(2))
    beside.wait()
    assert order == [1, 2]


@pytest.mark.parametrize("then", [lambda beside: beside.wait(), lambda beside: beside.start(lambda: None)])
def test_an_error_is_raised_once_where_the_loop_comes_back(then):
    beside = Beside()
    beside.start(fail)
    with pytest.raises(UserError, match="disk: full"):
        then(beside)
    beside.wait()


def test_no_task_outlives_its_block_and_an_error_is_never_lost(capsys):
    done = []
    with pytest.raises(UserError, match="disk: full"), Beside() as beside:
        beside.start(fail)
    with pytest.raises(Stopped), Beside() as beside:
        beside.start(lambda: (threading.Event().wait(0.1), done.append(1)))
        raise Stopped("SIGTERM", 15)
    assert done == [1] and capsys.readouterr().err == ""
    with pytest.raises(Stopped), Beside() as beside:
        beside.start(fail)
        raise Stopped("SIGTERM", 15)
    assert capsys.readouterr().err == "error: disk: full\n"
