"""Errors: `AtomError` for input that cannot be used, and two that end a run that had started."""


class AtomError(ValueError):
    """An argument, file or data set that cannot be used.

    The message names the argument, says what was given and what would work, so that the command line can print it as it is
    (one line, and the exit status of the class). It is raised before training starts.
    """

    exit_status = 2

    def __init__(self, message: object = "") -> None:
        # A worker of a DataLoader raises it again with its whole traceback as the message, which ends in the message itself.
        super().__init__(str(message).rpartition(f"{__name__}.AtomError: ")[2].rstrip("\n"))


class WriteError(AtomError, OSError):
    """A file that could not be written, because the disk is full or read-only, for one. What was there before is kept."""

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason


class DivergedError(AtomError):
    """A training run whose model ended with weights that are not finite numbers: nothing was wrong with its arguments."""

    exit_status = 1


class UnfinishedError(AtomError):
    """Work of which parts have failed, while the others were done and kept."""

    exit_status = 1


def first_line(error: Exception) -> str:
    """The first line of another library's error message: the rest is advice about that library."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()
