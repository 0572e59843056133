"""`atom-hf study`."""

import pytest

from atom_hf.cli.main import main
from atom_hf.experiments.study_report import REPORT_NAME
from helpers.ray_pools import KILLED, FakePool, fake_ray, without_training
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
    assert all(flag in out for flag in ("--ray [VALUE]", "--ray_cpus N", "--ray_gpus X", "pip install 'atom-hf[ray]'"))


def test_runs_that_fail_on_ray_are_named_at_the_end(tmp_path, capsys, monkeypatch):
    """After the report of the others: the same command runs what is missing."""
    without_training(monkeypatch)
    command, missing = ["study", write(tmp_path, {**SHORT, "seeds": 3}), "--ray"], "digits, 24, atom, seed 1"
    with fake_ray(monkeypatch, FakePool(lost={missing: 3})):
        assert main(command) == 1
    shown = capsys.readouterr()
    assert "| digits, 24 | accuracy | atom | 2 |" in shown.out and "written   " in shown.out
    assert f"{missing}: {KILLED}; it has no result" in shown.err
    assert shown.err.splitlines()[-1] == (
        f"atom-hf: error: 1 of 6 runs has failed and is missing: {missing}; the same command runs what is missing"
    )
    assert main([*command[:2], "--report_only"]) == 0  # which promises no more than what is there
    with fake_ray(monkeypatch, FakePool()) as pool:
        assert main(command) == 0 and len(pool.calls) == 1


def test_a_report_of_no_run_is_written_where_all_fail(tmp_path, capsys, monkeypatch):
    without_training(monkeypatch)
    titles = [f"digits, 24, {arm}, seed {seed}" for seed in range(6) for arm in ("plain", "atom")]
    with fake_ray(monkeypatch, FakePool(lost=dict.fromkeys(titles, 3))):
        assert main(["study", write(tmp_path, {**SHORT, "seeds": 6}), "--ray"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "12 of 12 runs have failed and are missing: digits, 24, plain, seed 0; " in line
    assert line.endswith("digits, 24, atom, seed 4; and 2 more; the same command runs what is missing")
