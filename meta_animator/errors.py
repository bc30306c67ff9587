"""The exceptions that entry points turn into a single line and an exit code."""


class UserError(ValueError):
    """Something the user can put right. The message is one line: what is wrong, where, what would be right."""


class Stopped(Exception):
    """A run that a signal asked to stop, and that has saved what it did."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
