"""JSON as files; without torch, which takes seconds to load."""

import json
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.file_kinds import refuse_impostor
from meta_animator.files import whole_file


def read_json(path: Path) -> dict:
    """Raises UserError where the file is missing or is not JSON."""
    refuse_impostor(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def write_json(path: Path, value: dict) -> None:
    """Nested mappings of numbers (also numpy's), strings and None. Raises ValueError for NaN, UserError where `path` cannot
    be written."""
    text = json.dumps(value, indent=2, allow_nan=False, default=lambda number: number.tolist())  # of numpy
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
