"""A cache that cannot be written is no unreadable file."""

import errno

import datasets
import pytest

from atom_hf.data.cache import writing_cache
from atom_hf.errors import AtomError
from helpers.tables import error_of, write

pytestmark = pytest.mark.promise(
    "The cause that an error names is the real one.",
    "a datasets cache that is missing, full, read-only or forbidden",
)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("below", ["", "cache"])
def test_a_cache_that_is_no_folder(tmp_path, monkeypatch, suffix, below):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / below))
    message = error_of(write(tmp_path / f"d{suffix}"))
    assert (
        message.startswith("HF_DATASETS_CACHE: ")
        and "cannot be written" in message
        and str(tmp_path / "file") in message
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_cache_that_is_full_or_forbidden(tmp_path, monkeypatch, number):
    def failing(*_, **__):
        try:
            raise OSError(number, "so it is", str(datasets.config.HF_DATASETS_CACHE))
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    path = write(tmp_path / "d.csv")
    monkeypatch.setattr(datasets, "load_dataset", failing)
    for name in (path, "someone/poems"):
        message = error_of(name)
        assert message.startswith("HF_DATASETS_CACHE: ") and "(so it is)" in message


def test_other_errors_are_what_they_are():
    for error in (OSError(errno.EACCES, "forbidden", "/data/d.csv"), ValueError("no json")):
        with pytest.raises(type(error)) as caught, writing_cache():
            raise error
        assert caught.value is error and not isinstance(error, AtomError)
