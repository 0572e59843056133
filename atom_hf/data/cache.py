"""Tell errors of the cache of `datasets` apart from errors of the data."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import datasets

from ..errors import AtomError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def writing_cache() -> Iterator[None]:
    """Context manager: turns an error of writing the cache, whatever it is wrapped in, into an `AtomError` that says so."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and _is_of_cache(cause):
                cache = str(datasets.config.HF_DATASETS_CACHE)
                raise AtomError(
                    f"HF_DATASETS_CACHE: {cache!r}, the cache of data sets, cannot be written to "
                    f"({cause.strerror or cause}); set it to a folder that can, with room"
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise


def _is_of_cache(error: OSError) -> bool:
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    cache = str(datasets.config.HF_DATASETS_CACHE)
    # The lock of a data set has its own folder in the cache, and a full disk is named by no file.
    return error.errno in NO_ROOM or any(name.startswith(cache) for name in named)
