"""What hangs is said, and ends: processes that wait for each other, and data-loader processes."""

import os
import time

import psutil
import pytest
import torch.distributed
from torch.utils.data import _utils

from meta_animator.data.samples import SampleSet
from meta_animator.errors import UserError
from meta_animator.stages import train as training
from meta_animator.stages import workers
from meta_animator.stages.train import train
from meta_animator.training.engine import Trainer
from meta_animator.training.processes import BEFORE_STEPS, WITHIN_STEPS


def test_a_data_loader_process_that_hangs_is_one_line_and_gone(make_config, monkeypatch):
    main, original = os.getpid(), SampleSet.__getitem__

    def hang(self, draw):
        while draw.number >= 4 and os.getpid() != main:
            time.sleep(1)
        return original(self, draw)

    monkeypatch.setattr(SampleSet, "__getitem__", hang)
    monkeypatch.setattr(workers, "LOADING_SECONDS", 3)
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(UserError, match=r"no batch came for 3 s: a data-loader process hangs.*data.num_workers=0") as caught:
        train(make_config(data__num_workers=1, data__cache_latents=False))
    assert "\n" not in str(caught.value)
    left = set(psutil.Process().children(recursive=True)) - before
    assert not psutil.wait_procs(left, timeout=10)[1]


def test_processes_wait_long_before_the_first_step_and_not_long_after_it(make_config, monkeypatch):
    waits = []

    def timeout() -> None:
        group = torch.distributed.group.WORLD
        waits.append(group._get_backend(torch.device("cpu")).options._timeout)

    class Seen(Trainer):
        def run(self):
            timeout()

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=BEFORE_STEPS)
    try:
        timeout()
        monkeypatch.setattr(training, "Trainer", Seen)
        train(make_config())
    finally:
        torch.distributed.destroy_process_group()
    assert waits == [BEFORE_STEPS, WITHIN_STEPS] and WITHIN_STEPS < BEFORE_STEPS / 10
