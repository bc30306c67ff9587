"""TFLite files as functions."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from meta_animator.errors import UserError

Network = Callable[[np.ndarray], list[np.ndarray]]  # float32 (1, size, size, 3) -> its outputs


def load_network(path: Path) -> Network:
    """The network of a .tflite file, on one thread of the CPU. Raises UserError where it cannot be read."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _quiet():
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as a TFLite network ({error})") from error
    entry = interpreter.get_input_details()[0]["index"]
    outputs = [output["index"] for output in interpreter.get_output_details()]

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(entry, pixels)
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in outputs]

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the runtime writes to the standard error of the process, past Python: which kernels it has chosen."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -80, 80)))
