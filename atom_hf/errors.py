"""The one error that a user's input can cause."""


class AtomError(ValueError):
    """An argument, file or data set that cannot be used.

    The message names the argument, says what was given, and says what would do instead, so that the command line can
    print it as it is (one line, exit status 2). It is raised before training starts.
    """
