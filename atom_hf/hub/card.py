"""Model cards: the README.md of a model's folder or repository, made from `CardFacts`.

`card_facts.py` gathers the facts, `card_text.py` puts them into words; a card states nothing else.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.modelcard import METRIC_TAGS

from ..atoms.config import AtomConfig
from ..errors import AtomError
from ..utils.files import write_atomically
from .card_snippets import atom_code, pipeline_code, plain_code
from .card_text import (
    about_explainer,
    class_rows,
    data_lines,
    example_rows,
    limits,
    loss_table,
    number,
    picture_says,
    settings_rows,
    span,
    summary,
)
from .escape import cell, escape_line, plain, shown

CARD_NAME = "README.md"

TEMPLATE = Path(__file__).parent / "template.md"

TRAINER_MARK = "This model card has been generated automatically according to the information the Trainer had access to"

MARK = (
    "<!-- Written by atom-hf from what it knew of this model, and written anew whenever the model is saved again: "
    "take this line out, and the card is yours. -->"
)

# The Hub's names of metrics. Metrics without one appear only in the text of the card.
METRIC_IDS = {**{name: name for name in METRIC_TAGS}, "mcc": "matthews_correlation", "perplexity": "perplexity"}

EARLIER = "an earlier state of this repository"


class Comparison(NamedTuple):
    """Paired runs with and without the atom loss: a table, and each arm's metrics averaged over seeds."""

    header: list[str]
    rows: list[list[str]]
    seeds: list[int]
    train_samples: int
    eval_samples: int
    means: dict[str, dict[str, float]]


class Example(NamedTuple):
    """An evaluation text with what the model says of it."""

    text: str
    pair: str | None = None
    predicted: str | None = None
    label: str | None = None
    confidence: float | None = None


class ClassResult(NamedTuple):
    """What a classifier does with one class of the evaluation data."""

    name: str
    samples: int
    precision: float
    recall: float
    f1: float


@dataclass
class CardFacts:
    """What is known of a model. A field that is None or empty is unknown, and left out of the card.

    Text may be untrusted, and is escaped when it is rendered. Only `base_note`, `data_notes`, `metrics_of`, `importance_of`,
    the names in `training`, `preface`, `limits` and `citations` are Markdown, rendered as they are: escape untrusted text
    before it goes into one of them (`escape.py`).
    """

    name: str | None = None
    repo_id: str | None = None
    model_class: str | None = None
    pipeline_tag: str | None = None
    library: str = "transformers"
    """"transformers", or "peft" for an adapter."""
    inputs: str | None = None
    """"text" or "image"; None where the model takes neither, or more."""
    channels: int | None = None
    """Of the pictures that it takes."""
    has_processor: bool = False
    """Whether its tokenizer or image processor lies beside it."""
    base_model: str | None = None
    """The id of the base on the Hub."""
    base_name: str | None = None
    """The name of a base without an id on the Hub: never a path."""
    base_note: str | None = None
    """A few words about such a base."""
    from_scratch: bool = False
    license: str | None = None
    language: str | list[str] | None = None
    tags: list[str] = field(default_factory=list)

    dataset: str | None = None
    """The name of the data set: never a path."""
    dataset_id: str | None = None
    """Its id on the Hub."""
    datasets: list[str] = field(default_factory=list)
    """The ids of all data sets, if there are several."""
    dataset_config: str | None = None
    train_split: str | None = None
    eval_dataset: str | None = None
    """The name of the evaluation data set, if it is another one; `eval_split` is then a split of it."""
    eval_dataset_id: str | None = None
    """Its id on the Hub."""
    eval_split: str | None = None
    """None for a known data set: rows that were held out."""
    eval_is_part: bool = False
    """Whether the evaluation samples may be only a part of their split, so that they give no result on the split."""
    train_samples: int | None = None
    eval_samples: int | None = None
    labels: list[str] | None = None
    data_notes: list[str] = field(default_factory=list)

    metrics: dict[str, float] = field(default_factory=dict)
    metric_names: dict[str, str] = field(default_factory=dict)
    metrics_of: str | None = None
    """A sentence on what was measured when; without it the metrics appear only in the metadata."""
    by_class: list[ClassResult] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    """Evaluation texts that the card shows, and tries the model on."""
    picture: str | None = None
    """The name of a picture beside the card: evaluation samples under their importance."""
    sample_picture: str | None = None
    """The name of a picture beside the card that the model can be tried on."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """What was logged during training, in order: step, epoch, loss, task_loss, atom_energy, eval_loss, each if known."""
    comparison: Comparison | None = None
    is_compared: bool = False
    """Whether this model is one of the runs of the comparison."""
    importance: dict[str, float] = field(default_factory=dict)
    """importance (the mean of its absolute value), positive_share and negative_share."""
    importance_of: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    """The model's modules, as PyTorch prints them."""
    atoms: AtomConfig | None = None
    versions: dict[str, str] = field(default_factory=dict)
    preface: str | None = None
    limits: list[str] = field(default_factory=list)
    citations: list[str] = field(default_factory=list)

    def __post_init__(self):
        for name in ("repo_id", "base_model", "dataset_id", "eval_dataset_id"):
            setattr(self, name, hub_id(getattr(self, name)))
        if self.architecture:
            self.architecture = "\n".join(map(escape_line, self.architecture.splitlines()))
        self.datasets = [name for name in self.datasets if hub_id(name)]
        if self.base_model and self.base_model == self.repo_id and self.library != "peft":
            self.base_model, self.base_name, self.base_note = None, self.base_model, EARLIER


def check_facts(facts: Mapping[str, Any], flag: str) -> None:
    """Reject facts that `CardFacts` has no field for. Raises `AtomError`, naming `flag`."""
    names = [f.name for f in fields(CardFacts)]
    if unknown := sorted(set(map(str, facts)) - set(names)):
        raise AtomError(f"{flag} has {', '.join(unknown)}, which no card has; it may have {', '.join(names)}")


def hub_id(name: Any) -> str | None:
    """`name` if it can be the id of a repository on the Hub, else None."""
    try:
        validate_repo_id(name)
    except (HFValidationError, TypeError):
        return None
    return name


def model_card(facts: CardFacts) -> ModelCard:
    """The card of a model: metadata that the Hub accepts, and Markdown."""
    name = plain(facts.name or "") or plain(facts.model_class or "model")
    values = {
        "facts": facts,
        "mark": MARK,
        "title": shown(name),
        "summary": summary(facts),
        "plain_code": plain_code(facts),
        "atom_code": atom_code(facts),
        "pipeline_code": pipeline_code(facts),
        "picture_says": picture_says(facts),
        "by_class": class_rows(facts.by_class),
        "examples": example_rows(facts.examples),
        "losses": loss_table(facts.losses),
        "metrics": [(_metric_name(facts, key), number(value)) for key, value in facts.metrics.items()],
        "metrics_of": facts.metrics_of,
        "comparison": facts.comparison,
        "seeds": span(facts.comparison.seeds) if facts.comparison else "",
        "data": data_lines(facts),
        "training": facts.training.items(),
        "settings": (settings := settings_rows(facts.atoms)),
        "changed": any(name.startswith("*") for name, _, _ in settings),
        "importance": {key: number(value) for key, value in facts.importance.items()},
        **about_explainer(facts),
        "limits": limits(facts),
        "versions": ", ".join(f"{key} {plain(value)}" for key, value in facts.versions.items()),
    }
    helpers = {"cell": cell, "thousands": lambda number: f"{number:,}"}
    card = ModelCard.from_template(_metadata(facts, name), template_path=str(TEMPLATE), **values, **helpers)
    # Unknown facts leave blank lines behind, which must not separate the rows of a table.
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", card.text))
    card.text = re.sub(r"\|\n\n(?=\|)", "|\n", text).rstrip("\n") + "\n"
    return card


def is_own(folder: str | Path) -> bool:
    """Whether the card in a folder was written by somebody: such a card is never overwritten."""
    file = Path(folder, CARD_NAME)
    try:
        return not is_generated(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True


def is_generated(text: str) -> bool:
    """Whether atom-hf or Trainer wrote a card. (Trainer's comment asks to be removed when somebody edits the card.)"""
    return MARK in text or TRAINER_MARK in text


def write_card(facts: CardFacts, folder: str | Path) -> None:
    """Write the card to a folder."""
    write_atomically(Path(folder, CARD_NAME), model_card(facts).save)


def _metadata(facts: CardFacts, name: str) -> ModelCardData:
    numbers = {key: value for key, value in facts.metrics.items() if isinstance(value, Real) and math.isfinite(value)}
    known = {key: value for key, value in numbers.items() if key in METRIC_IDS}
    if other := facts.eval_dataset:
        data, data_id, config = other, facts.eval_dataset_id, None
    else:
        data, data_id, config = facts.dataset, facts.dataset_id, facts.dataset_config
    split, on = plain(facts.eval_split or "") or None, ""
    if facts.eval_is_part:
        on = f" on {facts.eval_samples:,} samples" if facts.eval_samples is not None else " on a part"
        split, on = None, on + (f" of {split}" if split else "")
    results = [
        EvalResult(
            task_type=facts.pipeline_tag,
            dataset_type=plain(data_id or data),
            dataset_name=plain(data),
            dataset_config=plain(config or "") or None,
            dataset_split=split,
            metric_type=METRIC_IDS[key],
            metric_value=round(float(value), 6),
            metric_name=plain(_metric_name(facts, key) + on) or None,
        )
        for key, value in known.items()
        if facts.pipeline_tag and plain(data or "")
    ]
    tags = ["atom-hf", "atom", "token-importance", *map(plain, facts.tags)]
    more = {"base_model_relation": "adapter" if facts.library == "peft" else "finetune"} if facts.base_model else {}
    return ModelCardData(
        base_model=facts.base_model,
        datasets=facts.datasets or ([facts.dataset_id] if facts.dataset_id else None),
        language=facts.language or None,
        library_name=facts.library,
        license=facts.license,
        metrics=list(dict.fromkeys(METRIC_IDS[key] for key in known)) or None,
        pipeline_tag=facts.pipeline_tag,
        tags=[tag for tag in tags if tag],
        eval_results=results or None,
        model_name=name if results else None,
        widget=_widget(facts),
        **more,
    )


def _widget(facts: CardFacts) -> list[dict[str, str]] | None:
    """Texts to try on the model's page."""
    if facts.pipeline_tag not in ("text-classification", "text-generation"):
        return None
    return [{"text": plain(each.text, 300)} for each in facts.examples if each.pair is None] or None


def _metric_name(facts: CardFacts, key: str) -> str:
    return facts.metric_names.get(key, key)
