"""`atom-hf fit-explainer`: fit a saved model's importance to its prediction."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from ..builtin import BUILT_IN_MODELS
from ..data.encoding import encode_rows
from ..errors import AtomError
from ..explainer.descent import HeadOptions
from ..explainer.fit import COPIES, SAMPLES, SETS, ExplainerFit, fit_explainer, make_maskers
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.pretrained import load_processor
from ..hub.card import CARD_NAME, is_own
from ..modeling.finite import not_finite
from ..modeling.heads_file import HEADS_NAME
from ..modeling.inference import default_device
from ..modeling.load import load_atom_model
from ..modeling.mixin import save_heads, saving
from ..modeling.unwrap import inner_model
from ..utils.files import check_output_folder
from ..utils.lock import lock_folder
from ..utils.tables import format_number

BATCH = 16


@dataclass
class FitExplainerArguments:
    """The amount of masking, and the folder of the model."""

    samples: int = field(
        default=SAMPLES, metadata={"help": "Number of samples of the training split to fit on; they need no labels."}
    )
    copies: int = field(
        default=COPIES,
        metadata={"help": "Number of versions of each sample: itself, and copies with some tokens masked."},
    )
    sets: int = field(default=SETS, metadata={"help": "Number of token subsets of each of these, a multiple of 4."})
    seconds: float | None = field(
        default=None,
        metadata={
            "help": "Seconds that the fit may take, masking included: fewer samples are used where they would not do for all, "
            "and 16 at least."
        },
    )
    masking: str | None = field(
        default=None,
        metadata={
            "help": "Masking strategy whose importance is read by default: mask or drop (text), mean or blur (images); the "
            "first of the two if not given. The fit is to both."
        },
    )
    blocks: int = field(
        default=HeadOptions.blocks,
        metadata={"help": "Attention blocks of the explainer: context beyond that of the hidden states."},
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder to save the model to; its own folder by default."}
    )


def fit_saved_explainer(run: RunArguments, options: FitExplainerArguments) -> tuple[ExplainerFit, str]:
    """Fits the explainer of a saved model and saves it. Returns how well it fits, and the model's folder.

    Raises:
        AtomError: no model or data, a model without heads or without classes, a model on the Hub without an --output_dir.
    """
    if run.model is None or run.model in BUILT_IN_MODELS:
        raise AtomError("give --model: a folder or Hub id of a model that was trained with --atom")
    folder = Path(options.output_dir or run.model).expanduser()
    if not options.output_dir and not folder.is_dir():
        raise AtomError(
            f"--model {run.model!r}: there is no such folder; for a model on the Hub give --output_dir to save it to"
        )
    flag = "--output_dir" if options.output_dir else "--model"
    check_output_folder(folder, flag)
    with lock_folder(folder, flag):
        return _fit_and_save(run, options, folder), str(folder)


def _fit_and_save(run: RunArguments, options: FitExplainerArguments, folder: Path) -> ExplainerFit:
    model = load_atom_model(run.model, revision=run.model_revision)
    if broken := not_finite(model):
        raise AtomError(
            f"--model {run.model!r} holds numbers that are not finite (NaN), in {broken[0]}: train it again"
        )
    model.to(default_device())
    data = load_run_data(run)
    processor = load_processor(run.tokenizer or run.model, data.is_image, revision=run.model_revision)
    make_maskers(inner_model(model), processor, options.masking)  # raises before any data is read
    rows = data.train.shuffle(seed=run.sample_seed)

    def inputs(part: list[dict[str, Any]]) -> dict[str, Any]:
        return encode_rows(part, model, processor, run.max_length)

    # A loader tells how many samples there are.
    batches = DataLoader(rows, BATCH, collate_fn=inputs)
    sizes = {name: getattr(options, name) for name in ("samples", "copies", "sets", "blocks")}
    budget = {"strategy": options.masking, "seconds": options.seconds}
    found = fit_explainer(model, processor, batches, seed=run.sample_seed, **sizes, **budget)
    if folder.resolve() == Path(run.model).expanduser().resolve() and (folder / HEADS_NAME).is_file():
        save_heads(model, folder)  # nothing else has changed
    else:
        with saving(folder) as part:
            model.save_pretrained(part)
            processor.save_pretrained(part)
            if is_own(folder):
                Path(part, CARD_NAME).unlink(missing_ok=True)
    return found


def main(arguments: list[str]) -> None:
    """`atom-hf fit-explainer`."""
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import parse_flags

    run, options = parse_flags("fit-explainer", arguments, [RunArguments, FitExplainerArguments])
    found, folder = fit_saved_explainer(run, options)
    print(f"samples   {found.samples}, {found.passes} masked copies")
    print(f"explained {format_number(found.explained)} of what masking tokens of held-out samples changes")
    print(f"model     {folder}")
