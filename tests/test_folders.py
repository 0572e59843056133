"""Folders that a command writes to."""

import pytest

from atom_hf.errors import AtomError
from atom_hf.folders import check_output_folder


def test_a_file_where_a_folder_would_be_made_is_refused(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(AtomError, match=r"^--output_dir '.*taken' is a file; give a folder$"):
        check_output_folder(tmp_path / "taken")
    with pytest.raises(AtomError, match=r"^--into '.*taken'"):
        check_output_folder(str(tmp_path / "taken"), "--into")


def test_a_folder_may_be_there_or_not(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "one")
