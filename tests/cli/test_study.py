"""`atom-hf study`."""

import pytest

from atom_hf.cli.main import main
from atom_hf.experiments.study_report import REPORT_NAME
from helpers.studies import SHORT, write

pytestmark = pytest.mark.usefixtures("digits_once", "own_folder")


def test_the_command_runs_the_study_and_writes_its_report(tmp_path, capsys, started):
    command = ["study", write(tmp_path, SHORT), "--output_dir", "out"]
    assert main(command) == 0 and started == [0, 0, 1, 1]
    out, folder = capsys.readouterr().out, tmp_path / "out"
    assert (folder / REPORT_NAME).read_text() in out and "| digits, 24 | accuracy | atom | 2 |" in out
    for name in (REPORT_NAME, "differences.png"):
        assert f"written   out/{name}" in out and (folder / name).stat().st_size
    assert main([*command, "--report_only"]) == 0 and len(started) == 4
    assert (folder / REPORT_NAME).read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["--seeds", "3"], ["nowhere.yaml"], ["study.yaml", "--sedes", "3"], ["study.yaml", "--seeds", "1"]],
)
def test_a_command_that_cannot_be_run_is_rejected_in_one_line(tmp_path, capsys, started, arguments):
    write(tmp_path, SHORT)
    assert main(["study", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("atom-hf: error: ") and started == []
    if not arguments or arguments[0].startswith("-"):
        assert "give the study's file first" in line


def test_help_lists_the_flags(capsys):
    assert main(["study", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--seeds", "--local", "--output_dir", "--report_only"))
