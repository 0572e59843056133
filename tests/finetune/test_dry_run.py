"""`atom-hf train --dry_run`: what would be trained on what, and nothing trained."""

from pathlib import Path

import pandas as pd
import pytest
import transformers

from helpers.commands import BERT, GPT2, command
from helpers.tables import write

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.promise(
        "A dry run shows what would be trained on what, and trains nothing.",
        "tables, texts, pictures, escape sequences, flags and files that cannot be used",
    ),
]

ROWS = {"title": [f"line number {i}" for i in range(20)], "mood": ["calm", "wild"] * 10, "note": ["x"] * 20}
TABLE = f"train {BERT} --vocabulary_size 300 --dataset a.csv --text_column title --label_column mood"


@pytest.fixture
def untrained(monkeypatch):
    """Runs a command in which no training may start, and returns its status, its lines by their names, and stderr."""

    def never(self, *_, **__):
        raise AssertionError("training has started")

    monkeypatch.setattr(transformers.Trainer, "_inner_training_loop", never)

    def run(line):
        status, out, err = command(line)
        return status, dict(part.split("  ", 1) for part in out.splitlines() if "  " in part), err

    return run


def shown(lines, name):
    return lines[name].strip()


def test_a_table(untrained):
    write(Path("a.csv"), ROWS)
    status, lines, _ = untrained(f"{TABLE} --atom --dry_run --output_dir out")
    assert status == 0 and not Path("out").exists() and not Path("runs").exists()
    assert shown(lines, "task") == "text-classification"
    assert shown(lines, "model").startswith("BertForSequenceClassification of a new bert, ")
    assert shown(lines, "atom") == "with the atom loss"
    assert shown(lines, "data") == "a.csv: text from column 'title', label from column 'mood'"
    assert (
        shown(lines, "train on") == "16 rows of split train"
        and shown(lines, "evaluate on") == "4 rows held out of them"
    )
    assert shown(lines, "classes") == "2: 'calm' (8), 'wild' (8)"
    rows = [name for name in lines if name.startswith("row ")]
    assert rows == ["row 0", "row 8", "row 15"]
    for name in rows:
        text, _, label = shown(lines, name).partition(" -> ")
        number = ROWS["title"].index(text.split("'")[1])
        assert label == repr(ROWS["mood"][number]) and " tokens)" in text


def test_a_language_model(untrained):
    Path("a.txt").write_text("the sea is calm\n" * 10 + "x" * 200 + "\n")
    status, lines, _ = untrained(f"train {GPT2} --dataset a.txt --eval_dataset a.txt --dry_run")
    assert status == 0 and shown(lines, "task") == "causal-lm" and "classes" not in lines
    assert shown(lines, "atom") == "without the atom loss (--atom is not given)"
    assert shown(lines, "evaluate on") == "11 rows of split train of a.txt"
    assert shown(lines, "row 10").startswith(repr("x" * 100 + "..."))


def test_pictures(untrained):
    status, lines, _ = untrained("train --model vit-fashion-mnist --dataset digits --max_train_samples 20 --dry_run")
    assert status == 0 and shown(lines, "task") == "image-classification"
    assert shown(lines, "row 0").startswith("picture 8 x 8, L, as pixels [1, 28, 28] -> ")


def test_what_a_terminal_would_obey_is_shown_as_text(untrained):
    pd.DataFrame(
        {"text": ["\x1b[31mred\x1b[0m\x07 " + str(i) for i in range(8)], "label": ["a\x1b[2J", "b"] * 4}
    ).to_csv("a.csv")
    status, lines, _ = untrained(f"train {BERT} --vocabulary_size 300 --dataset a.csv --dry_run")
    assert status == 0 and "\\x1b[31mred" in lines["row 0"] and "\x1b" not in "".join(lines.values())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--text_column nosuch", "--text_column 'nosuch' does not exist"),
        ("--atom --atom_weight -1", "atom_weight must be"),
        ("--atom --explainer_samples 0", "--explainer_samples must be at least"),
        ("--task causal-lm", "cannot be trained for causal-lm"),
        ("--accelerate_config ddp --num_processes 2", "--dry_run looks at the run in one process"),
    ],
)
def test_what_is_wrong_is_said_as_ever(untrained, flags, says):
    write(Path("a.csv"), ROWS)
    status, lines, err = untrained(f"{TABLE} --dry_run {flags}")
    assert status == 2 and not lines and says in err.splitlines()[-1]


def test_a_key_of_a_configuration_file(untrained):
    write(Path("a.csv"), ROWS)
    Path("a.yaml").write_text("dry_run: true\nmax_steps: 1\n")
    assert untrained(f"{TABLE} --config a.yaml")[1]["task"].strip() == "text-classification"
