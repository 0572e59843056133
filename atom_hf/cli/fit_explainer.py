"""`atom-hf fit-explainer`: fit a saved model's importance to its prediction."""

from ..explainer.fit import COPIES
from ..explainer.fit import SAMPLES
from ..explainer.fit import SETS
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from ..errors import AtomError
from ..builtin import BUILT_IN_MODELS
from collections.abc import Iterator
from pathlib import Path
from ..finetune.arguments import RunArguments
from ..explainer.fit import Tie
from ..utils.files import check_output_folder
from ..modeling.inference import default_device
from ..data.encoding import encode_rows
from ..modeling.unwrap import inside
from ..modeling.load import load_atom_model
from ..finetune.pretrained import load_processor
from ..finetune.arguments import load_run_data
from ..explainer.fit import make_erasers
from ..explainer.fit import tie_importance
from ..utils.tables import format_number

BATCH = 16



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



def tie(arguments: list[str]) -> None:
    """`atom-hf tie`."""
    from ..finetune.flags import parse_flags
    from ..finetune.arguments import RunArguments

    run, options = parse_flags("tie", arguments, [RunArguments, TieModelArguments])
    found, folder = tie_model(run, options)
    print(f"samples   {found.samples}, erased {found.passes} times")
    print(f"explained {format_number(found.explained)} of what erasing tokens of held-out samples changes")
    print(f"model     {folder}")

