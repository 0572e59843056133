"""The arms of a comparison: what differs, what they are called, and which cannot be compared."""

import json

import pytest

from atom_hf.errors import AtomError
from atom_hf.experiments.arms import ARMS, Arm, ArmArguments, read_arms, shown_value
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_kinds
from atom_hf.training.arguments import AtomTrainingArguments

SIZES = '{"hidden_size": 16, "num_hidden_layers": 1}'


def arms_of(flags="", **options):
    run, args = parse_kinds("", flags.split(), [RunArguments, AtomTrainingArguments])
    return read_arms(run, args, ArmArguments(**options))


def two(first, second, **options):
    (run, args), other = (
        parse_kinds("", flags.split(), [RunArguments, AtomTrainingArguments]) for flags in (first, second)
    )
    return read_arms(run, args, ArmArguments(**{"a": "a.yaml", "b": "b.yaml", **options}), Arm(*other))


def test_nothing_given_is_with_and_without_atom():
    arms = arms_of("--model minilm --atom")
    assert list(arms.runs) == ["plain", "atom"] and [arm.args.atom for arm in arms.runs.values()] == [False, True]
    assert arms.changes is ARMS and arms.differences == {"atom": [False, True]} and arms.with_atom == "atom"
    assert arms.says() == "atom (off, on)"


def test_the_flag_is_one_changed_flag_among_others():
    default, changed = arms_of("--model minilm"), arms_of("--model minilm", change=["atom=true"])
    assert list(changed.runs) == ["plain", "atom"] and changed.differences == default.differences
    for name in changed.runs:
        # Serial numbers of objects that each instance of TrainingArguments has of its own.
        assert default.runs[name].run == changed.runs[name].run
        assert default.runs[name].args.to_dict() == changed.runs[name].args.to_dict()


# (flags, changed ones, the names of the two arms, what is said of the difference)
NAMES = [
    ("", ["learning_rate=1e-4"], ("learning_rate 5e-5", "learning_rate 1e-4"), "learning_rate (5e-5, 1e-4)"),
    ("", ["num_train_epochs=5"], ("num_train_epochs 3", "num_train_epochs 5"), "num_train_epochs (3, 5)"),
    (
        "",
        ["--dataloader_drop_last=true"],
        ("no dataloader_drop_last", "dataloader_drop_last"),
        "dataloader_drop_last (off, on)",
    ),
    ("--atom", ["atom=false"], ("atom", "plain"), "atom (on, off)"),
    ("--atom", ["atom_weight=0.3"], ("atom_weight default", "atom_weight 0.3"), "atom_weight (default, 0.3)"),
    (
        "",
        ["atom=true", "atom_weight=0.3"],
        ("plain", "atom, atom_weight 0.3"),
        "atom (off, on), atom_weight (none, 0.3)",
    ),
    ("--atom", ["atom_form=paper"], ("atom_form default", "atom_form paper"), "atom_form (default, paper)"),
    ("--max_train_samples 9", ["max_train_samples=5"], ("max_train_samples 9", "max_train_samples 5"), None),
    ("--model minilm", ["model=/models/other"], ("model minilm", "model other"), "model (minilm, other)"),
    ("", ["learning_rate=1e-4", "warmup_steps=5", "weight_decay=0.1"], ("as given", "changed"), None),
    ("", ['{"learning_rate": 1e-4}'], ("learning_rate 5e-5", "learning_rate 1e-4"), None),
    (
        f"--config_overrides {SIZES.replace(' ', '')}",
        ["config_overrides.hidden_size=32"],
        ("config_overrides.hidden_size 16", "config_overrides.hidden_size 32"),
        "config_overrides.hidden_size (16, 32)",
    ),
]


@pytest.mark.parametrize("flags, change, names, says", NAMES, ids=lambda value: str(value)[:40])
def test_arms_are_named_by_what_differs(flags, change, names, says):
    arms = arms_of(flags, change=change)
    assert tuple(arms.runs) == names and arms.says() == (says or arms.says())
    assert arms.changes == {names[0]: {}, names[1]: {name: values[1] for name, values in arms.differences.items()}}


def test_changed_fields_of_the_configuration_are_added_to_those_given():
    given = f"--config_overrides {SIZES.replace(' ', '')}"
    changed = list(arms_of(given, change=["config_overrides.hidden_size=32"]).runs.values())[1]
    assert json.loads(changed.run.config_overrides) == {"hidden_size": 32, "num_hidden_layers": 1}
    pairs = "--config_overrides hidden_size=16,num_hidden_layers=1"
    arms = two(given, pairs + ",hidden_dropout_prob=0.5")
    assert arms.differences == {"config_overrides.hidden_dropout_prob": [None, 0.5]}


def test_names_are_given_or_those_of_the_files():
    assert list(arms_of(change=["learning_rate=1e-4"], name_b="fast").runs) == ["learning_rate 5e-5", "fast"]
    many = "--learning_rate 1e-4 --weight_decay 0.1 --warmup_steps 5"
    assert list(two("", many).runs) == ["a", "b"]
    assert list(two("", many, a="one/plain.yaml", b="two/plain.yaml").runs) == ["one/plain", "two/plain"]
    assert list(two("", many, a="x.yaml", b="x.yaml").runs) == ["a", "b"]


def test_a_change_counts_with_all_that_follows_from_it():
    """Of some flags TrainingArguments derives what training reads: a copy with the flag set would train as before."""
    base, changed = arms_of("--use_cpu", change=["bf16=true"]).runs.values()
    assert (base.args.mixed_precision, changed.args.mixed_precision) == ("no", "bf16")
    assert not base.args.bf16 and changed.args.bf16


@pytest.mark.parametrize(
    "change",
    [
        ["learning_rate=5e-5"],
        ["output_dir=elsewhere"],
        ["save_steps=7", "logging_steps=1", "report_to=none"],
        ["eval_strategy=epoch", "metric_for_best_model=accuracy"],
        ["atom_weight=0.7"],  # without --atom
        ["load_best_model_at_end=false"],
    ],
)
def test_what_no_result_depends_on_is_no_difference(change):
    with pytest.raises(AtomError, match="the two runs train alike"):
        arms_of(change=change)


def test_evaluations_count_where_the_schedule_goes_by_them():
    plateau = "--lr_scheduler_type reduce_lr_on_plateau --eval_strategy steps --eval_steps"
    assert two(f"{plateau} 1", f"{plateau} 2").differences == {"eval_steps": [1.0, 2.0]}


REJECTED = [
    ({"change": ["learning_rate"]}, "--change 'learning_rate' must be name=value"),
    ({"change": ["=3"]}, "--change '=3' must be name=value"),
    ({"change": ["{learning_rate"]}, "is no JSON object"),
    ({"change": ["learning_rat=3"]}, "--change sets learning_rat, which is not a flag of a training run"),
    ({"change": ["seeds=3", "page=x"]}, "--change sets page, seeds, which are not flags of a training run"),
    ({"change": ["learning_rate=fast"]}, "--change: argument --learning_rate.*invalid float value: 'fast'"),
    ({"change": ["learning_rate=1", "learning_rate=2"]}, "--change sets learning_rate twice"),
    ({"change": ["config_overrides=a=1", "config_overrides.a=2"]}, "--change sets config_overrides, and a field of it"),
    ({"change": ["atom=true", "atom_weight=-1"]}, "atom_weight"),
    ({"change": ["seed=3"]}, "--change gives seed 42 and 3: paired runs share their seeds; give --seed for all"),
    ({"change": ["sample_seed=3"]}, "--change gives sample_seed 0 and 3"),
    ({"change": ["full_determinism=true"]}, "--change: full_determinism holds for a whole process"),
    ({"change": ["learning_rate=1"], "arms": "x.yaml"}, "--change with --arms: give one of them"),
    ({"name_a": "x"}, "--name_a and --name_b name the two arms of"),
    ({"change": ["learning_rate=1"], "name_a": "x", "name_b": "x"}, "--name_a and --name_b are both 'x'"),
]


@pytest.mark.parametrize("options, says", REJECTED, ids=lambda value: str(value)[:50])
def test_arms_that_cannot_be_compared_are_rejected(options, says):
    with pytest.raises(AtomError, match=says) as error:
        arms_of(**options)
    assert len(str(error.value).splitlines()) == 1


def test_arms_of_a_file_that_train_alike_are_rejected(tmp_path):
    (tmp_path / "arms.yaml").write_text("a: {}\nb: {learning_rate: 1e-3}\nc: {learning_rate: 0.001}\n")
    with pytest.raises(AtomError, match="--arms: 'b' and 'c' train alike"):
        arms_of(arms=str(tmp_path / "arms.yaml"))


@pytest.mark.parametrize(
    "value, text",
    [
        (5e-5, "5e-5"),
        (0.0001, "1e-4"),
        (3.2e-4, "3.2e-4"),
        (0.05, "0.05"),
        (3.0, "3"),
        (1 / 3, "0.3333333333333333"),
        (True, "on"),
        (None, "none"),
        ("linear", "linear"),
        ("/somewhere/private/data.csv", "data.csv"),
        ({"num_cycles": 2}, '{"num_cycles": 2}'),
    ],
)
def test_values_are_written_as_a_user_would(value, text):
    assert shown_value(value) == text
