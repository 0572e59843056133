"""Command-line arguments of a run: model, data, explainer, early stopping."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from transformers.trainer_utils import IntervalStrategy

from ..builtin import BUILT_IN_DATASETS, BUILT_IN_MODELS
from ..data.columns import GENERATION, TASKS
from ..data.load import TaskData, load_data
from ..errors import AtomError
from ..explainer.collect import FEWEST
from ..explainer.fit import COPIES, SAMPLES, SETS
from ..explainer.masked_samples import passes_of
from ..training.arguments import AtomTrainingArguments
from ..utils.bounds import COUNT, SEED, Bound


def _flag(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class RunArguments:
    """The model and the data. Everything else is in `AtomTrainingArguments`."""

    bounds: ClassVar[dict[str, Bound]] = {"sample_seed": SEED, "vocabulary_size": COUNT}

    model: str | None = _flag("The checkpoint: a Hub id, a folder, or one of " + ", ".join(BUILT_IN_MODELS) + ".")
    dataset: str | None = _flag(
        "The data: a Hub id, a folder of images, a csv, tsv, jsonl, parquet or npz file or folder, or one of "
        + ", ".join(BUILT_IN_DATASETS)
        + "."
    )
    task: str | None = _flag(
        "One of " + ", ".join(TASKS) + "; found from the data if not given. For train also " + GENERATION + "."
    )
    dataset_config: str | None = _flag("The configuration of a Hub data set, such as cola of nyu-mll/glue.")
    eval_dataset: str | None = _flag("Data to evaluate on, if not a split of --dataset: named in the same way.")
    train_split: str | None = _flag("The split to train on; train if there is one.")
    eval_split: str | None = _flag(
        "The split to evaluate on; by default validation or test; without one, rows are held out."
    )
    eval_fraction: float = _flag("The fraction of rows to hold out for evaluation if there is no split for it.", 0.2)
    hold_out: bool = _flag("Hold rows out even if there is a split to evaluate on: to choose settings with.", False)
    text_column: str | None = _flag("The column of texts; found if not given.")
    text_pair_column: str | None = _flag("The column of second texts, for pairs; found if not given.")
    image_column: str | None = _flag("The column of images; found if not given.")
    label_column: str | None = _flag("The column of labels; found if not given.")
    max_train_samples: int | None = _flag(
        "Train on this many samples, drawn in proportion to the classes with --sample_seed."
    )
    max_eval_samples: int | None = _flag("Evaluate on this many samples, drawn in the same way.")
    sample_seed: int = _flag("Seed with which samples and held-out rows are drawn.", 0)
    max_length: int = _flag("Truncate texts to this many tokens.", 128)
    horizontal_flip: bool = _flag("Flip training images horizontally at random.", False)
    model_type: str | None = _flag("Train from scratch: a model type of Transformers (vit, bert, gpt2, ...).")
    config_overrides: str | None = _flag("name=value,name=value, or JSON, for the model's configuration.")
    tokenizer: str | None = _flag("A tokenizer other than the model's: a Hub id or a folder.")
    vocabulary_size: int = _flag("With --model_type: size of the byte-level BPE trained on the training texts.", 4000)
    model_revision: str | None = _flag("A branch, tag or commit of the model on the Hub.")


_RUN = {one.name: one for one in fields(RunArguments)}


def as_in_train(name: str) -> Any:
    """A flag of another command that is the same in `atom-hf train`."""
    return field(default=_RUN[name].default, metadata=dict(_RUN[name].metadata))


DATA_FIELDS = [
    *("task", "dataset_config", "eval_dataset", "train_split", "eval_split", "eval_fraction", "hold_out"),
    *("text_column", "text_pair_column", "image_column", "label_column"),
    *("max_train_samples", "max_eval_samples", "sample_seed"),
]


def load_run_data(run: RunArguments) -> TaskData:
    """The data that the arguments name."""
    if run.task == GENERATION:
        raise AtomError(f"--task {GENERATION} is one of atom-hf train alone; give one of {', '.join(TASKS)}")
    return load_named_data(run)


def load_named_data(run: RunArguments, **changes: Any) -> TaskData:
    """The data that the arguments name, of any task, with other values for some of the `DATA_FIELDS`."""
    if run.dataset is None:
        raise AtomError("give --dataset: a Hub id, a file or folder, or one of " + ", ".join(BUILT_IN_DATASETS))
    return load_data(run.dataset, **{name: getattr(run, name) for name in DATA_FIELDS} | changes)


def data_flags(run: RunArguments) -> list[str]:
    """The flags that name the same data again."""
    changed = [f for f in fields(run) if f.name in ("dataset", *DATA_FIELDS) and getattr(run, f.name) != f.default]
    return [part for f in changed for part in (f"--{f.name}", str(getattr(run, f.name)))]


@dataclass
class ExplainerArguments:
    """The explainer that a run with --atom fits at its end: importance fitted to the prediction."""

    help_title: ClassVar[str] = "Explainer (importance fitted to the prediction)"
    explainer: bool = field(
        default=True,
        metadata={
            "help": "When a classifier has been trained with --atom, fit the importance of its tokens to what masking them "
            "does to the predicted probability. The model itself does not change."
        },
    )
    explainer_samples: int = field(
        default=SAMPLES,
        metadata={
            "help": "Training samples that the explainer is fitted on; each takes "
            f"{passes_of(COPIES, SETS, 2)} forward passes."
        },
    )
    explainer_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Seconds that fitting the explainer may take, masking included: it is fitted on fewer samples where they "
            "would not do for all, and on 16 at least."
        },
    )

    def checked(self) -> int:
        """The samples to fit on; 0 for no explainer. Raises `AtomError`."""
        if self.explainer and self.explainer_samples < FEWEST:
            raise AtomError(
                f"--explainer_samples must be at least {FEWEST}, got {self.explainer_samples}; --no_explainer fits none"
            )
        if self.explainer_seconds is not None and not self.explainer_seconds > 0:
            raise AtomError(
                f"--explainer_seconds must be above 0, got {self.explainer_seconds}; --no_explainer fits none"
            )
        return self.explainer_samples if self.explainer else 0


CARD_SAMPLES, CARD_SAMPLES_BOUND = 3, Bound(0, 50, whole=True)


def card_samples_flag() -> Any:
    """The flag `--card_samples`, of a command that writes a model's card."""
    return field(
        default=CARD_SAMPLES,
        metadata={
            "help": "Number of evaluation rows that the model's card shows, with the prediction, and that are published where "
            "the model is pushed; 0 for none, and no picture of them."
        },
    )


def target_flag() -> Any:
    """The flag `--target`, of a command that reads importance."""
    return _flag(
        "What importance is for: a class or label by its name or index; what is predicted by default. By masking also a text "
        "that a language model could write, or an answer."
    )


def method_flag() -> Any:
    """The flag `--method`, of a command that reads importance."""
    return _flag(
        "'explainer' reads the importance in one forward pass; 'masking' masks token by token, at a forward pass for each, of "
        "models without atoms too.",
        "explainer",
    )


@dataclass
class CardArguments:
    """What the card of a run with --atom shows."""

    help_title: ClassVar[str] = "Model card"
    bounds: ClassVar[dict[str, Bound]] = {"card_samples": CARD_SAMPLES_BOUND}
    card_samples: int = card_samples_flag()


@dataclass
class StoppingArguments:
    """Early stopping, by Transformers' EarlyStoppingCallback."""

    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop training after this many evaluations in a row without a better --metric_for_best_model. Give "
            "--eval_strategy too, and --load_best_model_at_end true to end with the best model."
        },
    )

    def checked(self, args: AtomTrainingArguments) -> int | None:
        """The patience, if any. Raises `AtomError` for one that cannot stop a run of these arguments."""
        patience = self.early_stopping_patience
        if patience is None:
            return None
        given = f"--early_stopping_patience {patience}"
        if patience < 1:
            raise AtomError(
                f"--early_stopping_patience must be at least 1, got {patience}; leave it out to train to the end"
            )
        if args.eval_strategy == IntervalStrategy.NO:
            raise AtomError(f"{given} counts evaluations during training: give --eval_strategy steps or epoch")
        if args.metric_for_best_model is None:
            raise AtomError(
                f"{given} needs the metric to compare evaluations by: give --metric_for_best_model, such as loss or accuracy"
            )
        return patience


@dataclass
class DryRunArguments:
    """A look at a run before it starts."""

    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Print what would be trained on what, with three rows, and stop. Nothing is trained or saved."
        },
    )
