"""Text of a model card's sections, from the facts of the model."""

from __future__ import annotations

from dataclasses import fields
from numbers import Real
from typing import TYPE_CHECKING, Any

import transformers

from ..atoms.config import FORMS, AtomConfig
from ..utils.tables import format_number
from .escape import cell, code, literal

if TYPE_CHECKING:
    from .card import CardFacts

NO_REPOSITORY = "path/to/model"

MOST_LABELS = 20


def summary(facts: CardFacts) -> str:
    """One sentence: the class, the base and the data set."""
    base, trained = None, bool(facts.training)
    if facts.base_model:
        base = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})"
    elif facts.base_name:
        base = code(facts.base_name) + (f" ({facts.base_note})" if facts.base_note else "")
    what = f"A {code(facts.model_class)}" if facts.model_class else "A model"
    if facts.library == "peft":
        what = f"An adapter of {base or what[2:]}" + (f" for {code(facts.model_class)}" if base else "")
        base = None
    origin = "trained from scratch" if facts.from_scratch else "trained"
    if base:
        origin = f"fine-tuned from {base}"
        what += "" if trained else f" with the weights of {base} or what became of them"
    data = f" on {_dataset(facts)}" if facts.dataset else ""
    how = f", {origin}{data}{',' if ' ' in origin + data else ''}" if trained else ""
    return (
        f"{what}{how} with the atom {'loss' if trained else 'heads'} of *Dynamic Latent "
        "Separation for Deep Learning* ([arXiv 2210.03728](https://arxiv.org/abs/2210.03728)), by atom-hf."
    )


def plain_lines(facts: CardFacts) -> str:
    """Python code that loads the model without this package; empty for a class that Transformers does not have."""
    name, repo = facts.model_class, literal(facts.repo_id or NO_REPOSITORY)
    if not name or not hasattr(transformers, name):
        return ""
    if facts.library != "peft":
        return f"from transformers import {name}\n\nmodel = {name}.from_pretrained({repo})"
    base = f"{name}.from_pretrained({literal(facts.base_model or 'path/to/base')})"
    imports = f"from peft import PeftModel\nfrom transformers import {name}"
    return f"{imports}\n\nmodel = PeftModel.from_pretrained({base}, {repo})"


def data_lines(facts: CardFacts) -> list[str]:
    """The data set, the numbers of samples, the classes and the notes on data."""
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


def settings_rows(config: AtomConfig | None) -> list[tuple[str, str, str]]:
    """(name, value, default) of each field that has a value; the name is bold where the value is not the default."""
    rows = []
    for f in fields(config) if config else ():
        value = getattr(config, f.name)
        # A field without a default describes the model that the heads were made for.
        default = FORMS.get(config.form, {}).get(f.name, f.default)
        if value is not None:
            name = f"**{f.name}**" if default not in (None, value) else f.name
            rows.append((name, cell(value), "" if default is None else cell(default)))
    return rows


def limits(facts: CardFacts) -> list[str]:
    """The limits that are known, and those that every card states."""
    lines = list(facts.limits)
    if facts.comparison is None:
        lines.append(
            "No comparison with a plain run was found beside this model: nothing here says what the atom loss changed."
        )
    if facts.metrics or facts.comparison:
        lines.append("Nothing was measured beyond the results above: no other data, no robustness, no bias.")
    else:
        lines.append("How good the model is has not been measured, as far as this card knows.")
    lines.append(
        "The heads belong to exactly these weights. If the weights change without them, their importances mean nothing."
    )
    return lines


def number(value: Any) -> str:
    """A metric's value; text is escaped."""
    return format_number(value) if isinstance(value, Real) else cell(value)


def span(seeds: list[int]) -> str:
    """Seeds in words: "42 to 51", "3, 5"."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _dataset(facts: CardFacts) -> str:
    return _data_link(facts.dataset, facts.dataset_id, facts.dataset_config)


def _data_link(name: str | None, data_id: str | None, config: str | None = None) -> str:
    if data_id:
        link = f"[{data_id}](https://huggingface.co/datasets/{data_id})"
        return link + (f" ({code(config)})" if config else "")
    return code(name)
