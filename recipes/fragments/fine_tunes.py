"""Fine-tuned models of a recipe, in this process: what the studies of this folder read channels of."""

from pathlib import Path
from typing import Any

from transformers import PrinterCallback

from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import as_flags, parse_flags
from atom_hf.finetune.run import Prepared, prepare_run
from atom_hf.training.arguments import AtomTrainingArguments
from atom_hf.utils.files import read_yaml

RECIPES = Path(__file__).parents[1]
RUNS = Path("runs/fragments")

ARMS = {"plain": {"atom": False}, "atom": {"atom": True}}
"""What is changed of a recipe: the flag, in its default form ('separation' for classifiers) rather than the recipe's."""


def trained(recipe: str, seed: int, **flags: Any) -> Prepared:
    """A run of a recipe, trained: `trainer`, `data` and `task` (with the tokenizer or image processor). Nothing is saved."""
    config = RECIPES / recipe / "plain.yaml"
    settings = {name: value for name, value in read_yaml(str(config), "recipe").items() if name != "atom_form"}
    settings |= {"output_dir": str(RUNS / "trainer"), "save_strategy": "no", "disable_tqdm": True, "report_to": "none"}
    given = as_flags({**settings, "seed": seed, **flags})
    run, args = parse_flags("train", given, [RunArguments, AtomTrainingArguments])
    found = prepare_run(run, args, save=False)
    found.trainer.remove_callback(PrinterCallback)
    rows = found.trainer.train_dataset
    found.trainer.train_dataset = [rows[place] for place in range(len(rows))]  # encoded once, not in each epoch
    found.trainer.train()
    found.trainer.model.eval()
    return found
