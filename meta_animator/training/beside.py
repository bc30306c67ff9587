"""What is written beside the training, in a thread: the loop goes on."""

import sys
import threading
from collections.abc import Callable
from typing import Any


class Beside:
    """One task at a time. What a task raises is raised where the next one is started, or where it is waited for.

    As a context: no task outlives the block. Where that ends with an exception, a task's own is said in one line.
    """

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def start(self, task: Callable[[], Any]) -> None:
        """Begin a task, once the one before has ended."""
        self.wait()
        self.thread = threading.Thread(target=self._run, args=(task,))
        self.thread.start()

    def _run(self, task: Callable[[], Any]) -> None:
        try:
            task()
        except BaseException as error:
            self.error = error

    def wait(self) -> None:
        """Until the task has ended, if there is one. Raises what it raised, once."""
        if self.thread is not None:
            self.thread.join()
        error, self.thread, self.error = self.error, None, None
        if error is not None:
            raise error

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            self.wait()
        except BaseException as error:
            if kind is None:
                raise
            print(f"error: {str(error) or type(error).__name__}".splitlines()[0], file=sys.stderr)
