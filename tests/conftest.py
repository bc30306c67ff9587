"""The tiny base model and data set, made once per session, and configs that use them; where and in which order tests run."""

import os

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported, here and in child processes: results are compared bit for bit

SLOWEST = (  # files, the longest first: of several workers, none is left alone with them at the end
    "test_embedded.py", "app/test_browser.py", "test_distributed.py", "test_demo.py", "test_chaos.py", "stages/test_memory.py",
    "stages/test_resume.py", "stages/test_animate.py", "test_launch.py", "conversion/test_lora.py", "test_scripts.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    order = {os.path.join(os.path.dirname(__file__), *name.split("/")): place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(str(item.path), len(order)))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    from tests.tiny import make_base

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory):
    from tests.tiny_wan import make_wan

    return make_wan(tmp_path_factory.mktemp("wan") / "vace")


@pytest.fixture(scope="session")
def moving_data(tmp_path_factory):
    """As puppet_data, with clips of six frames."""
    from tests.tiny import make_data

    return make_data(tmp_path_factory.mktemp("moving"), people=3, frames=6)


@pytest.fixture(scope="session")
def puppet_data(tmp_path_factory):
    from tests.tiny import make_data

    return make_data(tmp_path_factory.mktemp("puppets"))


@pytest.fixture
def make_config(tmp_path, tiny_base, puppet_data):
    """make_config(stage, name="run", **overrides) -> RunConfig of a run in tmp_path / name."""
    from tests import tiny

    def make(stage="control", name="run", **overrides):
        return tiny.make_config(tmp_path / name, tiny_base, puppet_data, stage, **overrides)

    return make


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, tiny_base, puppet_data):
    """The folder of a stage-0 run of two steps."""
    from meta_animator.stages.train import train
    from tests import tiny

    config = tiny.make_config(tmp_path_factory.mktemp("prepared"), tiny_base, puppet_data, train__max_steps=2)
    train(config)
    return config.output_dir


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """The python of tests/warm.py, in an environment of its own."""
    from tests.warm import warm_python

    with warm_python(tmp_path_factory.mktemp("env")) as python:
        yield python
