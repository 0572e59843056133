"""Tying importance from the command line: flags of `atom-hf train`, and `atom-hf tie`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .builtin import BUILT_IN_MODELS
from .errors import AtomError
from .folders import check_output_folder
from .loading import load_atom_model
from .modeling import default_device
from .run import RunArguments, load_run_data
from .tasks import encode_rows, load_processor
from .tie import COPIES, FEWEST, SAMPLES, SETS, Tie, make_erasers, tie_importance
from .wrapped import inside

BATCH = 16


@dataclass
class TieArguments:
    """How `train` ties importance to the prediction when a run with --atom ends."""

    tie: bool = field(
        default=True,
        metadata={
            "help": "When a classifier has been trained with --atom, fit the importance of its tokens to what its prediction "
            "loses without them. The model itself stays as it is."
        },
    )
    tie_samples: int = field(
        default=SAMPLES,
        metadata={"help": "By how many training samples; each is passed forward about a hundred times, in parts."},
    )

    def checked(self) -> int:
        """The samples to tie by; 0 for none. Raises `AtomError`."""
        if self.tie and self.tie_samples < FEWEST:
            raise AtomError(f"--tie_samples must be at least {FEWEST}, got {self.tie_samples}; --no_tie leaves it out")
        return self.tie_samples if self.tie else 0


@dataclass
class TieModelArguments:
    """How much is erased, and where the model goes."""

    samples: int = field(
        default=SAMPLES, metadata={"help": "By how many samples of the training split; they need no labels."}
    )
    copies: int = field(
        default=COPIES,
        metadata={"help": "How many times each is explained: as it is, and with some tokens taken away."},
    )
    sets: int = field(
        default=SETS, metadata={"help": "How many sets of tokens are left of each of these, a multiple of 4."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Where to save the model; back to its folder."})


def tie_model(run: RunArguments, options: TieModelArguments) -> tuple[Tie, str]:
    """Ties the importance of a saved model and saves it. Returns how far that went, and where the model is.

    Raises:
        AtomError: no model or data, a model without heads or without classes, a model on the Hub without an --output_dir.
    """
    if run.model is None or run.model in BUILT_IN_MODELS:
        raise AtomError("give --model: a folder or Hub id of a model that was trained with --atom")
    folder = Path(options.output_dir or run.model).expanduser()
    if not options.output_dir and not folder.is_dir():
        raise AtomError(f"--model {run.model!r} is no folder here: give --output_dir for what comes of it")
    check_output_folder(folder)
    model = load_atom_model(run.model, revision=run.model_revision)
    model.to(default_device())
    data = load_run_data(run)
    processor = load_processor(run.tokenizer or run.model, data.is_image, revision=run.model_revision)
    make_erasers(inside(model), processor)  # refuses before anything is read
    rows = data.train.shuffle(seed=run.sample_seed)

    def batches() -> Iterator[dict[str, Any]]:
        for start in range(0, len(rows), BATCH):
            part = rows.select(range(start, min(start + BATCH, len(rows))))
            yield encode_rows(list(part), model, processor, run.max_length)

    sizes = {"samples": options.samples, "copies": options.copies, "sets": options.sets}
    found = tie_importance(model, processor, batches(), seed=run.sample_seed, **sizes)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return found, str(folder)
