"""Where a run's numbers go: metrics.jsonl, TensorBoard, and Weights & Biases if a project is named."""

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from meta_animator.files import whole_file


class Tracker:
    """A line of JSON per task and logged step, and the same numbers as TensorBoard scalars.

    On resume, lines after the checkpoint's step are dropped, so that the file equals that of an uninterrupted run.
    """

    def __init__(self, folder: Path, first_step: int, wandb_project: str = ""):
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "metrics.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= first_step]
        with whole_file(path) as part:
            part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(folder / "tensorboard", purge_step=first_step + 1)
        self.wandb = None
        if wandb_project:
            import wandb

            told = folder / "wandb_id"  # the same for a continued run, another one for another run of the same folder's name
            if not told.is_file():
                with whole_file(told) as part:
                    part.write_text(secrets.token_hex(6), encoding="utf-8")
            name = told.read_text(encoding="utf-8")
            self.wandb = wandb.init(project=wandb_project, name=folder.name, id=name, dir=folder, resume="allow")

    def log(self, step: int, lines: Sequence[Mapping[str, float | str]], overall: Mapping[str, float]) -> None:
        """Lines of numbers, one for each task since the last lines; as scalars also the means over all tasks."""
        numbers = {name: value for name, value in overall.items() if math.isfinite(value)}
        for values in lines:
            finite = {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in values.items()}
            self.file.write(json.dumps({"step": step, **finite}) + "\n")
            if len(lines) > 1:
                numbers |= {f"{values['task']}/{k}": v for k, v in finite.items() if not isinstance(v, str | None)}
        self.file.flush()
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(numbers, step=step)

    def close(self) -> None:
        self.file.close()
        self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _lines(path: Path) -> list[str]:
    """Whole lines; a last line without its newline was cut off and is dropped."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]
