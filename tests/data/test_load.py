"""Arguments of data sets that are rejected, and evaluation data beside training data."""

import pytest

from atom_hf.data.columns import GENERATION, TASKS
from helpers.tables import error_of, write

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
def test_wrong_arguments(tmp_path):
    assert (
        error_of("verse", task="poetry") == f"--task 'poetry' is unknown; give one of {', '.join((*TASKS, GENERATION))}"
    )
    assert "--max_train_samples is 0; give 1 or more" in error_of("verse", max_train_samples=0)
    assert "--max_eval_samples is -1; give 1 or more" in error_of("verse", max_eval_samples=-1)
    for fraction in (0, 1, 1.5, -0.1):
        assert f"--eval_fraction is {fraction}; give a number between" in error_of("verse", eval_fraction=fraction)
    assert "--dataset_config 'x' is for data sets on the Hub" in error_of("verse", dataset_config="x")
    path = write(tmp_path / "a.csv")
    message = f"--train_split 'test': {path!r} has no such split; give one of train"
    assert error_of(path, train_split="test") == message


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_evaluation_data_that_does_not_fit(tmp_path):
    path = write(tmp_path / "a.csv")
    other = write(tmp_path / "b.csv", {"sentence": ["a", "b"], "label": ["good", "ugly"]})
    message = error_of(path, eval_dataset=other)
    assert message.startswith(f"--eval_dataset {other!r}: labels ugly in 'label' are not among those of the training")
    assert message.endswith("give data with bad, good only")
    other = write(tmp_path / "c.csv", {"words": ["a", "b"], "label": ["good", "bad"]})
    assert "has no column sentence as the training data has; it has words, label" in error_of(path, eval_dataset=other)
    other = write(tmp_path / "d.csv", {"sentence": [1, 2], "label": ["good", "bad"]})
    assert "column 'sentence' does not hold strings" in error_of(path, eval_dataset=other)
