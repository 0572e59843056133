"""Arguments that are checked before a run."""

import pytest

from atom_hf import AtomError, AtomTrainingArguments
from atom_hf.finetune.arguments import StoppingArguments
from atom_hf.finetune.flags import parse_flags
from helpers.commands import command


def patience(line):
    args, stopping = parse_flags("train", [*line.split(), "--use_cpu"], [AtomTrainingArguments, StoppingArguments])
    return stopping.checked(args)


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            "--early_stopping_patience 2",
            "--early_stopping_patience 2 counts evaluations during training: give --eval_str",
        ),
        ("--early_stopping_patience 2 --metric_for_best_model loss", "give --eval_strategy steps or epoch"),
        (
            "--early_stopping_patience 3 --eval_strategy epoch",
            "3 needs the metric to compare .* --metric_for_best_model",
        ),
        ("--early_stopping_patience 0 --eval_strategy epoch", "--early_stopping_patience must be at least 1, got 0"),
        ("--early_stopping_patience -1", "--early_stopping_patience must be at least 1, got -1"),
        ("--early_stopping_patience two", "--early_stopping_patience.*: invalid int value"),
        ("--early_stopping_patience 1.5", "--early_stopping_patience.*: invalid int value"),
    ],
)
def test_a_patience_that_cannot_stop_a_run_is_rejected(flags, says):
    with pytest.raises(AtomError, match=says):
        patience(flags)


def test_a_patience_that_can():
    assert patience("--eval_strategy epoch") is None
    assert patience("--early_stopping_patience 2 --eval_strategy steps --metric_for_best_model accuracy") == 2
    # The loss is chosen by where the best model is to be loaded.
    assert (
        patience("--early_stopping_patience 1 --eval_strategy epoch --save_strategy epoch --load_best_model_at_end")
        == 1
    )


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
def test_it_is_rejected_before_anything_is_loaded(tmp_path):
    flags = f"--model vit-fashion-mnist --dataset digits --output_dir {tmp_path / 'run'} --early_stopping_patience 2"
    status, out, err = command(f"train {flags}")
    assert (status, out) == (2, "") and not (tmp_path / "run").exists()
    assert err.splitlines()[-1].startswith("atom-hf: error: --early_stopping_patience 2 counts evaluations")
