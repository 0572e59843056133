"""Single steps of a run; the runs themselves are in cli/test_main.py."""

import logging

import pytest

from atom_hf.finetune.arguments import RunArguments, data_flags
from atom_hf.finetune.resume import last_checkpoint


@pytest.mark.promise("A checkpoint of another run, or one that is incomplete, is not resumed from.")
def test_a_checkpoint_cut_short_is_passed_over(tmp_path, caplog):
    for number in (2, 10, 12):
        (tmp_path / f"checkpoint-{number}").mkdir()
    for number in (2, 10):
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text("{}")
    with caplog.at_level(logging.WARNING, "atom_hf"):
        assert last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert "checkpoint-12" in caplog.text
    assert last_checkpoint(str(tmp_path / "nothing")) is None


def test_data_flags_name_the_same_data_again():
    run = RunArguments(model="m", dataset="my data.csv", label_column="y", max_train_samples=5, max_length=9)
    assert data_flags(run) == ["--dataset", "my data.csv", "--label_column", "y", "--max_train_samples", "5"]
