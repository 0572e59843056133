"""Fine-tuned models of a recipe, in this process: what the studies of this folder read channels of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PrinterCallback

from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import as_flags, parse_flags
from atom_hf.finetune.run import Prepared, prepare_run
from atom_hf.training.arguments import AtomTrainingArguments

RECIPES = Path(__file__).parents[1]
RUNS = Path("runs/fragments")

ARMS = {
    "plain": {"atom": False},
    "paper": {"atom": True, "atom_form": "paper"},
    "separation": {"atom": True, "atom_form": "separation"},
}
"""What is changed of a recipe."""


def prepared(recipe: str, seed: int, **flags: Any) -> Prepared:
    """A run of a recipe before it is trained: `trainer`, `data` and `task` (with the tokenizer or image processor)."""
    given = {"seed": seed, "output_dir": str(RUNS / "trainer"), "disable_tqdm": True, "report_to": "none", **flags}
    arguments = ["--config", str(RECIPES / recipe / "plain.yaml"), *as_flags(given)]
    run, args = parse_flags("train", arguments, [RunArguments, AtomTrainingArguments])
    found = prepare_run(run, args, save=False)
    found.trainer.remove_callback(PrinterCallback)
    return found


def trained(recipe: str, seed: int, changes: Mapping[str, Any] | None = None, **flags: Any) -> Prepared:
    """The same run, trained; nothing is saved."""
    found = prepared(recipe, seed, save_strategy="no", **{**(changes or {}), **flags})
    found.trainer.train()
    found.trainer.model.eval()
    return found
