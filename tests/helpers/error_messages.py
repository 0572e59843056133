"""Check an error's message."""

import pytest

from atom_hf import AtomError


def error_message(call, *words):
    """The message of the AtomError that `call` raises, which must hold all of `words`."""
    with pytest.raises(AtomError) as caught:
        call()
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
    return message
