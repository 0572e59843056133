"""Model cards: what is known of a model, as the README.md that a folder or repository of it carries.

`card_facts.py` gathers what is known; nothing is said here that is not a fact of it.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.modelcard import METRIC_TAGS

from ..atoms.config import AtomConfig
from ..errors import AtomError
from ..utils.tables import format_number
from .escape import cell, code, literal, plain, shown

CARD_NAME = "README.md"

TEMPLATE = Path(__file__).parent / "template.md"

TRAINER_MARK = "This model card has been generated automatically according to the information the Trainer had access to"

MARK = (
    "<!-- Written by atom-hf from what it knew of this model, and written anew whenever the model is saved again: "
    "take this line out, and the card is yours. -->"
)

NO_REPOSITORY = "path/to/model"

# How atom-hf's own metrics are called on the Hub. Any other is in the text of the card alone.
METRIC_IDS = {**{name: name for name in METRIC_TAGS}, "mcc": "matthews_correlation", "perplexity": "perplexity"}

MOST_LABELS = 20

EARLIER = "an earlier state of this repository"


class Comparison(NamedTuple):
    """Paired runs with and without the atom loss: as a table, and the mean over seeds of each arm's numbers."""

    header: list[str]
    rows: list[list[str]]
    seeds: list[int]
    train_samples: int
    eval_samples: int
    means: dict[str, dict[str, float]]


@dataclass
class CardFacts:
    """What is known of a model. What is None or empty is not known, and the card is silent about it.

    Text may be anybody's: it is made harmless where it is printed. Markdown of our own, printed as it is, are alone
    `base_note`, `data_notes`, `metrics_of`, `importance_of`, the names in `training`, `preface`, `limits` and `citations`:
    whoever puts a stranger's text into one of them makes it harmless first (`card_text.py`).
    """

    name: str | None = None
    repo_id: str | None = None
    model_class: str | None = None
    pipeline_tag: str | None = None
    library: str = "transformers"
    """"transformers", or "peft" for an adapter."""
    base_model: str | None = None
    """The id of the base on the Hub."""
    base_name: str | None = None
    """What a base is called that has no id there: never a path."""
    base_note: str | None = None
    """What else is known of such a base, in a few words."""
    from_scratch: bool = False
    license: str | None = None
    language: str | list[str] | None = None
    tags: list[str] = field(default_factory=list)

    dataset: str | None = None
    """What the data set is called: never a path."""
    dataset_id: str | None = None
    """Its id on the Hub."""
    datasets: list[str] = field(default_factory=list)
    """The ids of all data sets, where there are several."""
    dataset_config: str | None = None
    train_split: str | None = None
    eval_dataset: str | None = None
    """What the evaluation data are called, where they are of another data set; `eval_split` is one of theirs then."""
    eval_dataset_id: str | None = None
    """Its id on the Hub."""
    eval_split: str | None = None
    """None of a data set that is known: rows that were held out."""
    eval_is_part: bool = False
    """Whether the evaluation samples may be a part of their split only: they are no result on the split then."""
    train_samples: int | None = None
    eval_samples: int | None = None
    labels: list[str] | None = None
    data_notes: list[str] = field(default_factory=list)

    metrics: dict[str, float] = field(default_factory=dict)
    metric_names: dict[str, str] = field(default_factory=dict)
    metrics_of: str | None = None
    """What was measured when, as a sentence; where there is none, the metrics stand in the metadata alone."""
    comparison: Comparison | None = None
    importance: dict[str, float] = field(default_factory=dict)
    """importance (the mean of its size), positive_share and negative_share."""
    importance_of: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    atoms: AtomConfig | None = None
    versions: dict[str, str] = field(default_factory=dict)
    preface: str | None = None
    limits: list[str] = field(default_factory=list)
    citations: list[str] = field(default_factory=list)

    def __post_init__(self):
        for name in ("repo_id", "base_model", "dataset_id", "eval_dataset_id"):
            setattr(self, name, hub_id(getattr(self, name)))
        self.datasets = [name for name in self.datasets if hub_id(name)]
        if self.base_model and self.base_model == self.repo_id and self.library != "peft":
            self.base_model, self.base_name, self.base_note = None, self.base_model, EARLIER


def check_facts(facts: Mapping[str, Any], flag: str) -> None:
    """Refuses facts by other names than those of `CardFacts`. Raises `AtomError`, naming `flag`."""
    names = [f.name for f in fields(CardFacts)]
    if unknown := sorted(set(map(str, facts)) - set(names)):
        raise AtomError(f"{flag} has {', '.join(unknown)}, which no card knows; it may have {', '.join(names)}")


def hub_id(name: Any) -> str | None:
    """`name` if it can be the id of a repository on the Hub, else None."""
    try:
        validate_repo_id(name)
    except (HFValidationError, TypeError):
        return None
    return name


def model_card(facts: CardFacts) -> ModelCard:
    """The card of a model: valid metadata of the Hub, and Markdown."""
    name = plain(facts.name or "") or plain(facts.model_class or "model")
    values = {
        "facts": facts,
        "mark": MARK,
        "title": shown(name),
        "summary": _summary(facts),
        "repo": literal(facts.repo_id or NO_REPOSITORY),
        "plain_lines": _plain_lines(facts),
        "metrics": [(_metric_name(facts, key), _number(value)) for key, value in facts.metrics.items()],
        "metrics_of": facts.metrics_of,
        "comparison": facts.comparison,
        "seeds": span(facts.comparison.seeds) if facts.comparison else "",
        "data": _data_lines(facts),
        "training": facts.training.items(),
        "settings": (settings := _settings(facts.atoms)),
        "changed": any(name.startswith("*") for name, _, _ in settings),
        "importance": {key: _number(value) for key, value in facts.importance.items()},
        # What a run says of its importances is of the charges: the explainer is fitted last.
        "fitted": facts.atoms is not None and facts.atoms.has_explainer,
        "limits": _limits(facts),
        "versions": ", ".join(f"{key} {plain(value)}" for key, value in facts.versions.items()),
    }
    helpers = {"cell": cell, "thousands": lambda number: f"{number:,}"}
    card = ModelCard.from_template(_metadata(facts, name), template_path=str(TEMPLATE), **values, **helpers)
    # What is not known leaves only blank lines behind, and a table bears none between its rows.
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", card.text))
    card.text = re.sub(r"\|\n\n(?=\|)", "|\n", text).rstrip("\n") + "\n"
    return card


def is_own(folder: str | Path) -> bool:
    """Whether the card of a folder is somebody's own, which is never written over."""
    file = Path(folder, CARD_NAME)
    try:
        return not is_generated(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True


def is_generated(text: str) -> bool:
    """Whether a card is ours or Trainer's, which asks to take its comment out of a card that somebody has mended."""
    return MARK in text or TRAINER_MARK in text


def write_card(facts: CardFacts, folder: str | Path) -> None:
    """Writes the card into a folder, which must exist, so that no reader ever sees half of it."""
    file = Path(folder, CARD_NAME)
    part = file.with_name(f".{CARD_NAME}.{os.getpid()}")
    model_card(facts).save(part)
    part.replace(file)


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
        **more,
    )


def _summary(facts: CardFacts) -> str:
    base, trained = None, bool(facts.training)
    if facts.base_model:
        base = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})"
    elif facts.base_name:
        base = code(facts.base_name) + (f" ({facts.base_note})" if facts.base_note else "")
    what = f"A {code(facts.model_class)}" if facts.model_class else "A model"
    if facts.library == "peft":
        what = f"An adapter of {base or what[2:]}" + (f" for {code(facts.model_class)}" if base else "")
        base = None
    origin = "trained from nothing" if facts.from_scratch else "trained"
    if base:
        origin = f"fine-tuned from {base}"
        what += "" if trained else f" with the weights of {base} or what became of them"
    data = f" on {_dataset(facts)}" if facts.dataset else ""
    how = f", {origin}{data}{',' if ' ' in origin + data else ''}" if trained else ""
    return (
        f"{what}{how} with the atom {'loss' if trained else 'heads'} of *Dynamic Latent "
        "Separation for Deep Learning* ([arXiv 2210.03728](https://arxiv.org/abs/2210.03728)), by atom-hf."
    )


def _dataset(facts: CardFacts) -> str:
    return _data_link(facts.dataset, facts.dataset_id, facts.dataset_config)


def _data_link(name: str | None, data_id: str | None, config: str | None = None) -> str:
    if data_id:
        link = f"[{data_id}](https://huggingface.co/datasets/{data_id})"
        return link + (f" ({code(config)})" if config else "")
    return code(name)


def _plain_lines(facts: CardFacts) -> str:
    """The Python that loads the model without this package; nothing for a class that Transformers does not have."""
    name, repo = facts.model_class, literal(facts.repo_id or NO_REPOSITORY)
    if not name or not hasattr(transformers, name):
        return ""
    if facts.library != "peft":
        return f"from transformers import {name}\n\nmodel = {name}.from_pretrained({repo})"
    base = f"{name}.from_pretrained({literal(facts.base_model or 'path/to/base')})"
    imports = f"from peft import PeftModel\nfrom transformers import {name}"
    return f"{imports}\n\nmodel = PeftModel.from_pretrained({base}, {repo})"


def _data_lines(facts: CardFacts) -> list[str]:
    lines = [f"Data set: {_dataset(facts)}."] if facts.dataset else []
    other = _data_link(facts.eval_dataset, facts.eval_dataset_id) if facts.eval_dataset else None
    for what, count, split, data in (
        ("Training", facts.train_samples, facts.train_split, None),
        ("Evaluation", facts.eval_samples, facts.eval_split, other),
    ):
        if count is not None or data:
            of = [f"split {code(split)}"] if split else []
            of += [f"another data set, {data}"] if data else []
            shown_count = f"{count:,} samples" if count is not None else "samples"
            lines.append(f"{what}: {' of '.join([shown_count, *of])}.")
    if facts.labels:
        names = ", ".join(map(code, facts.labels[:MOST_LABELS]))
        more = len(facts.labels) - MOST_LABELS
        lines.append(f"Classes ({len(facts.labels)}): {names}{f' and {more} more' if more > 0 else ''}.")
    return lines + facts.data_notes


def _settings(config: AtomConfig | None) -> list[tuple[str, str, str]]:
    """(name, value, default) of each field that has a value; the name is bold where the value is not the default."""
    rows = []
    for f in fields(config) if config else ():
        value = getattr(config, f.name)
        if value is not None:
            # What has no default describes the model that the heads were made for.
            name = f"**{f.name}**" if f.default not in (None, value) else f.name
            rows.append((name, cell(value), "" if f.default is None else cell(f.default)))
    return rows


def _limits(facts: CardFacts) -> list[str]:
    lines = list(facts.limits)
    if facts.comparison is None:
        lines.append(
            "No comparison with a plain run was found beside this model: nothing here says what the atom loss changed."
        )
    if facts.metrics or facts.comparison:
        lines.append("Nothing was measured but what stands above: no other data, no robustness, no bias.")
    else:
        lines.append("How good the model is has not been measured, as far as this card knows.")
    lines.append(
        "The heads belong to these very weights. Where the weights change without them, their importances say nothing."
    )
    return lines


def _metric_name(facts: CardFacts, key: str) -> str:
    return facts.metric_names.get(key, key)


def _number(value: Any) -> str:
    return format_number(value) if isinstance(value, Real) else cell(value)


def span(seeds: list[int]) -> str:
    """Seeds in words: "42 to 51", "3, 5"."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
