"""The one error that a user's input can cause, and how it is put in a line."""


class AtomError(ValueError):
    """An argument, file or data set that cannot be used.

    The message names the argument, says what was given, and says what would do instead, so that the command line can
    print it as it is (one line, exit status 2). It is raised before training starts.
    """


def first_line(error: Exception) -> str:
    """The first line of another library's message: the rest is advice about that library."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()
