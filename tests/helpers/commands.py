"""The command line, in this process, and the tiny runs that tests ask of it."""

import contextlib
import io
import json
import shlex
from pathlib import Path

from atom_hf.cli.main import main
from atom_hf.finetune.arguments import ExplainerArguments, RunArguments
from atom_hf.finetune.flags import parse_flags
from atom_hf.training.arguments import AtomTrainingArguments

SHORT = "--max_steps 3 --per_device_train_batch_size 8 --max_train_samples 24 --max_eval_samples 16"
BERT = (
    "--model_type bert --config_overrides hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
)
GPT2 = "--model_type gpt2 --config_overrides n_embd=16,n_layer=1,n_head=2,n_positions=32 --vocabulary_size 300"
STILL = "--learning_rate 0 --atom_head_learning_rate 0"
COMMANDS = {
    "image": "--model vit-fashion-mnist --dataset digits",
    "text": f"{BERT} --dataset verse.csv --vocabulary_size 400",
    "lm": f"{GPT2} --dataset verse.jsonl --max_length 32",
    "lines": f"{GPT2} --dataset verse.txt --eval_dataset verse.jsonl --max_length 32",
}


def command(line):
    """(exit status, what it prints, what it says on stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(shlex.split(line) if isinstance(line, str) else line)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def parse(arguments):
    return parse_flags("train", arguments, [RunArguments, AtomTrainingArguments, ExplainerArguments])[:2]


def train(line, explainer=False):
    status, out, err = command(f"train {line} --explainer {explainer}")
    assert status == 0, err
    return out


def results(folder):
    values = json.loads((Path(folder) / "all_results.json").read_text(encoding="utf-8"))
    return {name.removeprefix("eval_"): value for name, value in values.items()}


def closing(out):
    """The closing table: its header, its rows, and the lines below it by their first word."""
    lines = out.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("-----"))
    end = lines.index("", rule)
    rows = dict(line.rsplit(None, 1) for line in lines[rule + 1 : end])
    return lines[rule - 1], rows, dict(line.split(None, 1) for line in lines[end + 1 :])
