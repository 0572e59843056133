"""What arms have in common, and the rejection of arms whose metrics are not of the same thing."""

import dataclasses

import pytest

from atom_hf.errors import AtomError
from atom_hf.experiments.arms import ArmArguments, read_arms
from atom_hf.experiments.comparability import check_starts, in_common, load_arms, look_at, may_start_otherwise
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_kinds
from atom_hf.finetune.run import prepare_run, unlogged_run
from atom_hf.training.arguments import AtomTrainingArguments

pytestmark = pytest.mark.usefixtures("own_folder")

SIZES = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
VIT = f"--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,{SIZES} --dataset digits"
DIGITS = f"{VIT} --max_train_samples 20 --max_eval_samples 20 --max_steps 4 --per_device_train_batch_size 8"
BERT = f"--model_type bert --config_overrides {SIZES} --vocabulary_size 300"
GPT2 = "--model_type gpt2 --config_overrides n_embd=16,n_layer=1,n_head=2 --vocabulary_size 300 --task causal-lm"


@pytest.fixture(autouse=True)
def files(tmp_path):
    """Rows with two texts and two labels each; another file with the same labels; one in another order."""
    rows = [(f"title {i}", f"a longer text {i}", ("good", "bad")[i % 2], ("x", "y")[i // 2 % 2]) for i in range(8)]

    def write(name, rows):
        text = "title,body,label,kind\n" + "".join(",".join(row) + "\n" for row in rows)
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")

    write("train", rows)
    write("cleaned", [(row[0].upper(), *row[1:]) for row in rows])
    write("test", rows[:4])
    write("other", [("other", *row[1:]) for row in rows[:4]])
    write("three", [*rows, ("a", "b", "new", "x")])


def arms_of(flags, *change):
    run, args = parse_kinds("", flags.split(), [RunArguments, AtomTrainingArguments])
    return read_arms(run, args, ArmArguments(change=list(change)))


def starts_of(arms):
    found = {}
    for name, arm in arms.runs.items():
        with unlogged_run(*arm, 1) as arguments:
            found[name] = look_at(prepare_run(*arguments, save=False), may_start_otherwise(arms))
    return found


def said(flags, *change):
    arms = arms_of(flags, *change)
    return in_common(arms, load_arms(arms), starts_of(arms))


CSV = f"{BERT} --dataset train.csv --eval_dataset test.csv --text_column title --label_column label --max_steps 2"
REJECTED = [
    (CSV, "label_column=kind", "'label_column label' and 'label_column kind' have different classes"),
    (CSV, "eval_dataset=other.csv", "is evaluated on 4 rows and 'eval_dataset other.csv' on 4 others"),
    (CSV, "eval_split=nosuch", "--eval_split 'nosuch'"),
    (CSV, "dataset=three.csv", "have different classes, so that their metrics cannot be compared; give both the same"),
    (DIGITS, "max_eval_samples=10", "is evaluated on 20 rows and 'max_eval_samples 10' on 10 others"),
    (DIGITS, "hold_out=true", "is evaluated on 20 rows and 'hold_out' on 20 others"),
    (f"{VIT} --task image-classification", "dataset=test.csv", "image-classification"),
    (
        f"{BERT} --dataset train.csv --text_column title --label_column label --task text-classification",
        "task=causal-lm",
        "the task of 'task text-classification' is text-classification and that of 'task causal-lm' causal-lm",
    ),
]


@pytest.mark.promise(
    "Paired runs share their rows, seeds and order; metrics of other rows, classes or tokens are not compared."
)
@pytest.mark.parametrize("flags, change, says", REJECTED, ids=[change for _, change, _ in REJECTED])
def test_arms_of_other_tasks_classes_or_rows_are_rejected(flags, change, says):
    with pytest.raises(AtomError) as error:
        load_arms(arms_of(flags, change))
    assert says in str(error.value) and len(str(error.value).splitlines()) == 1


def test_the_same_rows_may_be_read_in_another_way():
    """Which column the texts are in is a setting like others: rows and labels stay."""
    data = load_arms(arms_of(CSV, "text_column=body"))
    first, second = data.values()
    assert first.eval["label"][:] == second.eval["label"][:] and first.eval["text"][:] != second.eval["text"][:]


def test_other_training_rows_are_a_difference_that_is_told():
    line = said(CSV, "dataset=cleaned.csv")
    assert line.startswith("What differs: dataset (train.csv, cleaned.csv), and with that the training rows")
    assert "The same in all runs of a seed: evaluation rows, initial weights and number of steps (2)." in line


def test_the_line_says_what_differs_and_what_is_the_same():
    assert said(DIGITS, "learning_rate=1e-4") == (
        "What differs: learning_rate (5e-5, 1e-4). The same in all runs of a seed: evaluation rows, training rows, "
        "initial weights, order of rows and number of steps (4)."
    )
    assert said(DIGITS, "max_steps=6").endswith(
        "max_steps (4, 6), and with that the number of steps (4, 6). The same in all runs of a seed: evaluation rows, "
        "training rows, initial weights and order of rows."
    )
    fewer = said(DIGITS, "max_train_samples=10")
    assert "and with that the training rows and order of rows. The same" in fewer


def test_whether_models_start_alike_is_looked_at():
    """Dropout has no weights: the same model with another one starts alike."""
    wider = said(DIGITS, "config_overrides.hidden_size=32")
    assert ", and with that the initial weights. The same" in wider
    assert ", initial weights, " in said(DIGITS, "config_overrides.hidden_dropout_prob=0.5")
    assert ", initial weights, " in said(DIGITS, "atom=true")


@pytest.mark.promise(
    "Paired runs share their rows, seeds and order; metrics of other rows, classes or tokens are not compared."
)
def test_language_models_must_predict_the_same_tokens():
    flags = f"{GPT2} --dataset train.csv --text_column body --max_steps 2"
    for change in ("vocabulary_size=260", "max_length=5"):
        arms = arms_of(flags, change)
        starts = starts_of(arms)
        with pytest.raises(AtomError, match="cut the evaluation texts into different tokens"):
            check_starts(arms, starts)
    arms = arms_of(flags, "label_smoothing_factor=0.1")
    with pytest.raises(AtomError, match="Trainer smooths the labels in evaluation too"):
        check_starts(arms, starts_of(arms))
    arms = arms_of(flags, "learning_rate=1e-4")
    check_starts(arms, starts := starts_of(arms))
    assert "GPT-2" not in in_common(arms, load_arms(arms), starts)
    name = list(starts)[1]
    other = {**starts, name: starts[name]._replace(model_class="LlamaForCausalLM")}
    assert "divides a GPT-2's by one token too many" in in_common(arms, load_arms(arms), other)


def test_data_are_loaded_once_where_the_flags_of_the_data_are_the_same():
    first, second = load_arms(arms_of(DIGITS, "learning_rate=1e-4")).values()
    assert first is second
    run = dataclasses.asdict(next(iter(arms_of(DIGITS).runs.values())).run)
    assert run["dataset"] == "digits"
