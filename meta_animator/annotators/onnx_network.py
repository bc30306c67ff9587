"""ONNX files as functions, through onnxruntime."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from meta_animator.errors import UserError
from meta_animator.file_kinds import refuse_impostor

THREADS = "OMP_NUM_THREADS"  # onnxruntime itself does not look there


class OnnxNetwork:
    """A network of an .onnx file, on the CPU or, for devices named cuda, on a GPU. Raises UserError where it cannot be read.

    shapes   {input: its shape, with names or None where a side is free}, in the file's order
    outputs  names of its outputs, in the file's order
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import onnxruntime

        refuse_impostor(path, "weights ")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get(THREADS) or 0)
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers(device))
        except Exception as error:  # its errors are classes of its own, without a common base
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"weights {path}: cannot be read as an ONNX network ({reason})") from error
        self.path = path
        self.shapes = {entry.name: tuple(entry.shape) for entry in self._session.get_inputs()}
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """{output: array}; an array alone is the first input."""
        given = {next(iter(self.shapes)): inputs} if isinstance(inputs, np.ndarray) else dict(inputs)
        return dict(zip(self.outputs, self._session.run(None, given), strict=True))

    @property
    def batch(self) -> int | None:
        """How many pictures it takes at once; None where that is free."""
        first = next(iter(self.shapes.values()))[0]
        return first if isinstance(first, int) and first > 0 else None

    def picture_size(self, default: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of its first input, (n, 3, height, width); `default` where a side is free."""
        sides = next(iter(self.shapes.values()))[2:4]
        fixed = len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
        return (sides[0], sides[1]) if fixed else default

    def fail(self, expected: str) -> UserError:
        """That it is another network than this one."""
        given = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())
        return UserError(f"weights {self.path}: expected {expected}; it takes {given} and gives {', '.join(self.outputs)}")


def providers(device: str) -> list:
    """onnxruntime's name for a device of torch's; the CPU, with a note, where this onnxruntime knows no GPU."""
    import onnxruntime

    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("note: this onnxruntime runs on the CPU alone; onnxruntime-gpu, in its place, uses the GPU")
        return ["CPUExecutionProvider"]
    index = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]
