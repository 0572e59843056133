"""Flags and files: typed alike, refused alike."""

import json

import pytest

from atom_hf import AtomError, AtomTrainingArguments
from atom_hf.flags import as_flags, parse_flags, parse_kinds
from atom_hf.run import RunArguments

KINDS = [RunArguments, AtomTrainingArguments]


def test_a_mapping_is_the_flags_that_say_the_same():
    values = {"atom": True, "learning_rate": "1e-4", "model": None, "label_names": ["a", "b"]}
    assert as_flags(values) == ["--atom", "True", "--learning_rate", "1e-4", "--label_names", "a", "b"]
    overrides = {"n_embd": 8, "hidden_sizes": [8, 16]}
    assert as_flags({"config_overrides": overrides}) == ["--config_overrides", '{"n_embd": 8, "hidden_sizes": [8, 16]}']


def test_mappings_of_training_arguments_keep_their_types(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("lr_scheduler_kwargs: {num_cycles: 2}\nactivation_checkpointing_kwargs: {use_reentrant: false}\n")
    _, args = parse_flags("train", ["--config", str(file)], KINDS)
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}
    assert args.activation_checkpointing_kwargs == {"use_reentrant": False}


def test_configuration_overrides_of_a_file_reach_the_run_with_their_types(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("config_overrides: {hidden_sizes: [8, 16], layer_type: basic, dropout: 0.1, tie: false}\n")
    run, _ = parse_flags("train", ["--config", str(file)], KINDS)
    expected = {"hidden_sizes": [8, 16], "layer_type": "basic", "dropout": 0.1, "tie": False}
    assert json.loads(run.config_overrides) == expected


def test_flags_win_over_the_file_and_are_typed_like_it(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 1e-4\nmodel: 3\natom: true\nseed: 7\n")
    run, args = parse_flags("train", ["--config", str(file), "--seed", "8", "--atom", "false"], KINDS)
    assert (run.model, args.learning_rate, args.seed, args.atom) == ("3", 1e-4, 8, False)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--atm"], "no such flag: --atm"),
        (["--seed", "many"], "--seed"),
        (["--seed"], "--seed"),
        (["--atom", "perhaps"], "perhaps"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(flags, says):
    with pytest.raises(AtomError, match=says):
        parse_kinds("train", flags, KINDS)
