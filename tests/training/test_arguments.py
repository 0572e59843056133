"""The arguments of a run: each a flag, and each rejected by its name."""

import dataclasses
import typing

import pytest
from accelerate import ParallelismConfig
from transformers import HfArgumentParser

from atom_hf import AtomConfig, AtomError, AtomMixin, AtomTrainingArguments
from atom_hf.atoms.explainer_sizes import NO_EXPLAINER
from atom_hf.training.arguments import check_arguments
from helpers.error_messages import error_message
from helpers.models import tiny
from helpers.training import arguments, make

# What describes the model that was attached to, and what was fitted to it after training.
MODEL_FIELDS = {"hidden_size", "special_token_ids", "base_model_class", *NO_EXPLAINER}


def test_each_training_field_is_a_flag():
    flags = {field.name: field for field in dataclasses.fields(AtomTrainingArguments)}
    training = {field.name: field for field in dataclasses.fields(AtomConfig) if field.name not in MODEL_FIELDS}
    own = {"atom_pair_batch"}  # of how a run goes about it, not of what is computed
    assert {name for name in flags if name.startswith("atom_")} == {"atom_" + name for name in training} | own
    # Transformers' parser takes the None out of the fields' own types; the annotations stay as they are written.
    written, wanted = typing.get_type_hints(AtomTrainingArguments), typing.get_type_hints(AtomConfig)
    for name, field in training.items():
        flag = flags["atom_" + name]
        assert flag.default == field.default and written["atom_" + name] == wanted[name]
        assert flag.metadata["help"] == field.metadata["help"] and len(flag.metadata["help"]) > 20
    assert flags["atom"].default is False and flags["atom"].metadata["help"]


def test_flags_from_the_command_line(tmp_path):
    words = [
        "--output_dir",
        str(tmp_path),
        "--atom",
        "--atom_weight",
        "1",
        "--atom_layer",
        "-2",
        "--atom_tokens",
        "all",
    ]
    (args,) = HfArgumentParser(AtomTrainingArguments).parse_args_into_dataclasses(words)
    assert args.atom and args.atom_config() == AtomConfig(weight=1.0, layer=-2, tokens="all")
    (args,) = HfArgumentParser(AtomTrainingArguments).parse_args_into_dataclasses(words[:2])
    assert not args.atom and args.atom_config() == AtomConfig()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("atom_weight", -0.1),
        ("atom_weight", float("nan")),
        ("atom_weighting", "log"),
        ("atom_layer", 0.5),
        ("atom_tokens", "words"),
        ("atom_token_reduction", "max"),
        ("atom_softening", float("inf")),
        ("atom_neutrality", -1),
        ("atom_charge_floor", 1.5),
        ("atom_charge_floor_weight", "many"),
        ("atom_warmup_ratio", 2),
        ("atom_schedule", "cosine"),
        ("atom_head_learning_rate", -1e-3),
        ("atom_importance_std", 0),
    ],
)
def test_a_bad_value_is_rejected_by_the_name_of_its_flag(flag, value, tmp_path):
    model = tiny("bert")
    with pytest.raises(AtomError, match=rf"^{flag} must be .*{value}"):
        make("bert", tmp_path, model=model, atom=True, **{flag: value})
    assert not isinstance(model, AtomMixin)


def test_a_batch_of_one_is_rejected(tmp_path):
    with pytest.raises(AtomError, match=r"per_device_train_batch_size is 1.*at least 2"):
        make("bert", tmp_path, atom=True, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    for size in (0, -2):
        for pairs in ({}, {"atom_pair_batch": 4}):
            options = {"per_device_train_batch_size": size, **pairs}
            error_message(lambda: make("bert", tmp_path, atom=True, **options), "per_device_train_batch_size", size)  # noqa: B023
    make("bert", tmp_path, atom=True, per_device_train_batch_size=2)
    make("bert", tmp_path, atom=False, per_device_train_batch_size=1)


def test_a_layer_that_does_not_exist_is_rejected(tmp_path):
    with pytest.raises(AtomError, match=r"layer 3 does not exist.*-3 to 2"):
        make("bert", tmp_path, atom=True, atom_layer=3)


# Three accumulation steps of four samples on one process are twelve: pairs among 4 or 12 of them.
@pytest.mark.parametrize("pairs", [4, 12])
def test_pairs_are_drawn_from_whole_batches(pairs, tmp_path):
    make("bert", tmp_path, atom=True, atom_pair_batch=pairs, gradient_accumulation_steps=3)


@pytest.mark.parametrize("pairs", [0, -4, 2, 5, 8, 24])
def test_a_pair_batch_that_is_no_whole_number_of_batches_is_rejected(pairs, tmp_path):
    with pytest.raises(AtomError, match=rf"^atom_pair_batch is {pairs}: .*gradient_accumulation_steps \(3\).* 4, 12"):
        make("bert", tmp_path, atom=True, atom_pair_batch=pairs, gradient_accumulation_steps=3)
    make("bert", tmp_path, atom=False, atom_pair_batch=pairs, gradient_accumulation_steps=3)


def test_batches_of_one_may_be_paired(tmp_path):
    options = {"atom": True, "per_device_train_batch_size": 1}
    make("bert", tmp_path, **options, atom_pair_batch=2, gradient_accumulation_steps=4)
    with pytest.raises(AtomError, match=r"atom_pair_batch is 1: .*may be 2, 4"):
        make("bert", tmp_path, **options, atom_pair_batch=1, gradient_accumulation_steps=4)


def test_processes_that_share_samples_are_rejected(tmp_path):
    with pytest.raises(AtomError, match="split_batches"):
        make("bert", tmp_path, atom=True, accelerator_config={"split_batches": True})
    args = arguments(tmp_path, atom=True)
    args.parallelism_config = ParallelismConfig(tp_size=2)
    with pytest.raises(AtomError, match=r"parallelism_config: .*same samples"):
        make("bert", tmp_path, pieces={"args": args})


def test_a_pair_batch_of_a_batch_size_still_to_be_found_is_rejected(tmp_path):
    options = {"atom_pair_batch": 8, "gradient_accumulation_steps": 2, "auto_find_batch_size": True}
    with pytest.raises(AtomError, match="auto_find_batch_size"):
        make("bert", tmp_path, atom=True, **options)


def test_a_reference_that_follows_the_model_is_rejected(tmp_path):
    class Arguments(AtomTrainingArguments):
        sync_ref_model = True

    with pytest.raises(AtomError, match=r"sync_ref_model: .* leave it out"):
        check_arguments(Arguments(str(tmp_path), atom=True, use_cpu=True))
