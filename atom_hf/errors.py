"""`AtomError`: the one error that a user's input can cause."""


class AtomError(ValueError):
    """An argument, file or data set that cannot be used.

    The message names the argument, says what was given and what would work, so that the command line can print it as it is
    (one line, exit code 2). It is raised before training starts.
    """

    def __init__(self, message: object = "") -> None:
        # A worker of a DataLoader raises it again with its whole traceback as the message, which ends in the message itself.
        super().__init__(str(message).rpartition(f"{__name__}.AtomError: ")[2].rstrip("\n"))


def first_line(error: Exception) -> str:
    """The first line of another library's error message: the rest is advice about that library."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()
