"""Flags and files: typed alike, rejected alike."""

import dataclasses
import json

import pytest
import transformers

from atom_hf import AtomError, AtomTrainingArguments
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import as_flags, parse_flags, parse_kinds
from atom_hf.training.bounds import TRAINING_BOUNDS
from atom_hf.utils.bounds import check_bounds
from helpers.commands import SHORT, parse, train

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
    file.write_text("config_overrides: {hidden_sizes: [8, 16], layer_type: basic, dropout: 0.1, bias: false}\n")
    run, _ = parse_flags("train", ["--config", str(file)], KINDS)
    expected = {"hidden_sizes": [8, 16], "layer_type": "basic", "dropout": 0.1, "bias": False}
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


# Files of flags


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "dataset: digits\nlearning_rate: 1e-3\nmax_steps: 7\natom: true\natom_weight: 2\nhorizontal_flip: true\n"
        "config_overrides:\n  hidden_size: 16\n  hidden_act: relu\n  qkv_bias: false\n",
        encoding="utf-8",
    )
    file = str(tmp_path / "recipe.yaml")
    run, args = parse(["--config", file])
    assert (run.dataset, run.horizontal_flip, args.learning_rate, args.max_steps) == ("digits", True, 1e-3, 7)
    assert args.atom is True and args.atom_weight == 2.0
    for flags in (["--config", file, "--max_steps", "2"], ["--max_steps", "2", f"--config={file}"]):
        run, args = parse([*flags, "--atom", "false", "--config_overrides", "hidden_size=8"])
        assert (args.max_steps, args.atom, run.config_overrides) == (2, False, "hidden_size=8")
        assert (args.learning_rate, run.dataset) == (1e-3, "digits")


@pytest.mark.usefixtures("own_cache")
def test_overrides_as_a_mapping_reach_the_model(tmp_path):
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 12, "num_hidden_layers": 1}
    lines = [
        f"  {name}: {value}" for name, value in {**sizes, "num_attention_heads": 2, "intermediate_size": 8}.items()
    ]
    text = "\n".join(["model_type: vit", "dataset: digits", "config_overrides:", *lines, "  qkv_bias: false"])
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    train(f"--config {tmp_path / 'recipe.yaml'} {SHORT} --output_dir {tmp_path / 'run'}")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "run")
    assert {name: getattr(config, name) for name in sizes} == sizes and config.qkv_bias is False


# Numbers that cannot be

NUMBERS = {
    "seed": ["-1", "4294967296"],
    "data_seed": ["-1"],
    "sample_seed": ["-1"],
    "learning_rate": ["nan", "inf", "-1"],
    "num_train_epochs": ["nan", "inf", "-2"],
    "max_steps": ["-2", "9" * 30],
    "warmup_steps": ["nan", "-1"],
    "weight_decay": ["nan", "-0.1"],
    "adam_beta1": ["1", "-0.1"],
    "adam_beta2": ["2", "nan"],
    "adam_epsilon": ["-1e-8", "inf"],
    "max_grad_norm": ["nan"],
    "label_smoothing_factor": ["1.5", "-0.1", "nan"],
    "neftune_noise_alpha": ["nan"],
    "per_device_train_batch_size": ["0", "-4"],
    "per_device_eval_batch_size": ["0", "-1"],
    "gradient_accumulation_steps": ["0", "-2"],
    "eval_accumulation_steps": ["0"],
    "logging_steps": ["nan", "inf", "-5"],
    "eval_steps": ["nan", "inf", "-5"],
    "save_steps": ["nan", "inf", "-5"],
    "eval_delay": ["nan", "-1"],
    "dataloader_num_workers": ["-1"],
    "dataloader_prefetch_factor": ["0"],
    "vocabulary_size": ["-5", "0", "9" * 20],
    "max_train_samples": ["9" * 30],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NUMBERS.items() for value in values])
def test_a_number_that_cannot_be_is_rejected_before_any_arguments_are_made(name, value, tmp_path, monkeypatch):
    def never(self):
        raise AssertionError("the arguments were made")

    monkeypatch.setattr(transformers.TrainingArguments, "__post_init__", never)
    with pytest.raises(AtomError, match=f"^--{name} must be "):
        parse_flags("train", [f"--{name}={value}"], KINDS)
    file = tmp_path / "run.yaml"
    file.write_text(f"{name}: {value}\n")
    with pytest.raises(AtomError, match=f"--{name}"):
        parse_flags("train", ["--config", str(file)], KINDS)


def test_every_number_of_the_training_arguments_that_has_bounds_exists():
    assert set(TRAINING_BOUNDS) <= {f.name for f in dataclasses.fields(AtomTrainingArguments)}
    defaults = vars(AtomTrainingArguments(report_to=[]))
    check_bounds(defaults, TRAINING_BOUNDS)
