"""`atom-hf predict`: predictions for the rows of a file, with the importance of their words or patches."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..builtin import BUILT_IN_MODELS
from ..data.rows import read_rows
from ..errors import AtomError
from ..finetune.arguments import method_flag, target_flag
from ..finetune.pretrained import load_processor
from ..finetune.trained import load_trained
from ..importance.image import ImageScorer
from ..importance.predictions import Wanted, columns_of, make_records
from ..importance.scoring import check_target
from ..importance.text import TextScorer
from ..importance.truth import Truth
from ..modeling.layers import is_image_model
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import inner_model
from ..utils.bounds import COUNT, Bound
from ..utils.records import STANDARD_OUTPUT, RecordFile
from ..utils.tables import format_number
from ..utils.terminal import get_logger

logger = get_logger(__name__)


def _flag(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class PredictArguments:
    """The model, the files, and where the predictions go."""

    bounds: ClassVar[dict[str, Bound]] = {"batch_size": COUNT}

    model: str | None = _flag("A trained model: a Hub id or a folder. One without atoms gives predictions alone.")
    model_revision: str | None = _flag("A branch, tag or commit of the model on the Hub.")
    file: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What to predict: csv, tsv, jsonl or parquet files, texts (one per line), images, or folders of these. "
            "Where there are labels, metrics are printed too."
        },
    )
    output: str = _flag(
        "File of the predictions: JSON Lines (.jsonl) or .csv; - is standard output. The same command goes on with a file that "
        "was left unfinished.",
        "predictions.jsonl",
    )
    importance: bool = _flag("Give the importance of each word or patch too, where the model has one.", True)
    target: str | None = target_flag()
    method: str = method_flag()
    verify: bool = _flag(
        "Mask the words or patches with the largest importance, and give what really happened: ten forward passes more a row.",
        False,
    )
    batch_size: int = _flag("Number of rows in a forward pass.", 32)
    text_column: str | None = _flag("The column of texts; found if not given.")
    text_pair_column: str | None = _flag("The column of second texts, for pairs; found if not given.")
    image_column: str | None = _flag("The column of images; found if not given.")
    label_column: str | None = _flag("The column of labels, if there are any; found if not given.")


class Predicted(NamedTuple):
    """What was written."""

    count: int
    is_image: bool
    metrics: dict[str, float]


def predict_files(options: PredictArguments) -> Predicted:
    """Predicts the rows of files, and writes a record for each.

    Raises:
        AtomError: no model or file, a model that predicts nothing of a whole sample, files or columns that do not fit it, an
            output that is not this command's; before anything is predicted.
    """
    if options.model is None:
        raise AtomError("give --model: a Hub id or a folder of a trained model")
    if not options.file:
        raise AtomError("give --file: a csv, tsv, jsonl or parquet file, texts, images, or a folder of these")
    if options.model in BUILT_IN_MODELS:
        raise AtomError(f"--model {options.model!r} is to be trained first: give the folder that it went to")
    if not options.importance and (options.target is not None or options.verify):
        raise AtomError("--no_importance leaves nothing for --target and --verify: leave them out, or it")
    settings = {
        "model": [options.model, options.model_revision, _stamp(options.model)],
        "file": [[file, _stamp(file)] for file in options.file],
        "columns": [getattr(options, f"{role}_column") for role in ("text", "text_pair", "image", "label")],
        "importance": options.importance,
        "target": options.target,
        "method": options.method,
        "verify": options.verify,
        "batch_size": options.batch_size,
    }
    output = RecordFile(options.output, settings)
    model = load_trained(options.model, options.model_revision)
    importance = options.importance
    if importance and options.method == "explainer" and not isinstance(inner_model(model), AtomMixin):
        if options.target is not None or options.verify:
            raise AtomError(
                f"--model {options.model!r} has no atoms: for --target and --verify give --method masking too"
            )
        logger.info("%s has no atoms: it gives predictions, and no importance", options.model)
        importance = False
    is_image = is_image_model(model)
    processor = load_processor(options.model, is_image, revision=options.model_revision)
    scorer = (ImageScorer if is_image else TextScorer)(model, processor, importance, options.method)
    given = {role: getattr(options, f"{role}_column") for role in ("text", "text_pair", "image", "label")}
    rows = read_rows(options.file, is_image, given)
    truth = Truth(rows, model.config, asked=options.label_column is not None)
    if truth.why_not:
        logger.info("%s: it is left out", truth.why_not)
    wanted = Wanted(importance, options.target, options.verify)
    check_target(options.target, model, options.method)

    def records(start: int) -> Any:
        return make_records(scorer, rows, truth, wanted, start, options.batch_size)

    count = output.write(columns_of(rows, truth, wanted), records, truth.see)
    return Predicted(count, is_image, truth.metrics())


def _stamp(name: str) -> list[Any]:
    """What tells whether a file, or what lies in a folder, has changed: sizes and times; empty for what is no path."""
    path = Path(name).expanduser()
    if not path.exists():
        return []
    files = sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return [len(files), sum(state.st_size for state in states), max((s.st_mtime_ns for s in states), default=0)]


def main(arguments: list[str]) -> None:
    """`atom-hf predict`."""
    from ..finetune.flags import parse_flags

    files: list[str] = []
    (options,) = parse_flags("predict", arguments, [PredictArguments], files)
    options.file = [*files, *options.file]
    found = predict_files(options)
    if options.output == STANDARD_OUTPUT:
        for name, value in found.metrics.items():
            logger.info("%s %s", name, format_number(value))
        return
    kind = "image" if found.is_image else "text"
    print(f"predicted {found.count:,} {kind}{'s' if found.count != 1 else ''}")
    for name, value in found.metrics.items():
        print(f"{name:<9} {format_number(value)}")
    print(f"output    {options.output}")
