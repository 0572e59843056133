"""Model cards, as runs and trainers write them."""

import contextlib
import io

from huggingface_hub import ModelCard

from atom_hf import AtomTrainer
from atom_hf.cli.main import main
from helpers.card_rules import empty_values, metadata_errors
from helpers.models import collator_for, rows_for, tiny
from helpers.training import arguments

SECRET = "hf_aSecretThatNobodyMayRead"
DIGITS = [
    "--model",
    "vit-fashion-mnist",
    "--dataset",
    "digits",
    "--max_train_samples",
    "40",
    "--max_eval_samples",
    "50",
]
DIGITS += ["--max_steps", "2", "--per_device_train_batch_size", "8", "--use_cpu", "--save_strategy", "no"]


def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(list(arguments)) == 0


def check(card):
    """That the Hub takes the metadata of a card, and that nothing in it is empty."""
    data = ModelCard(card).data.to_dict()
    assert data and metadata_errors(card) == [] and empty_values(data) == []


def section(card, title):
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def make_trainer(folder, name="bert", cls=AtomTrainer, model=None, **options):
    return cls(
        model=model or tiny(name),
        args=arguments(folder, **{"atom": True, **options}),
        train_dataset=rows_for(name),
        eval_dataset=rows_for(name)[:6],
        data_collator=collator_for(name),
    )
