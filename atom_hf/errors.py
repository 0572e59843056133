"""The one error that a user's input can cause, and how it is put in a line."""

import re

_TOKEN = re.compile(r"\b(hf_(oauth|jwt)_[\w.-]+|(hf|api_org)_[A-Za-z0-9]{16,})")



class AtomError(ValueError):
    """An argument, file or data set that cannot be used.

    The message names the argument, says what was given, and says what would do instead, so that the command line can
    print it as it is (one line, exit status 2). It is raised before training starts.
    """



def first_line(error: Exception) -> str:
    """The first line of another library's message: the rest is advice about that library."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()



def without_token(text: str) -> str:
    """`text` without anything that looks like a token of the Hub, or is the one in use."""
    from huggingface_hub import get_token

    token = get_token()
    return _TOKEN.sub("<token>", text.replace(token, "<token>") if token else text)

