"""A room for every case."""

from pathlib import Path

import pytest

from tests.bad_input.room import Room


@pytest.fixture
def room(tmp_path, tiny_base, puppet_data, prepared):
    return Room(tmp_path, tiny_base, puppet_data, Path(prepared))
