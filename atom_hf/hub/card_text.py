"""Text of a model card's sections, from the facts of the model."""

from __future__ import annotations

from dataclasses import fields
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..atoms.config import AtomConfig
from ..atoms.explainer_sizes import explainer_quality
from ..atoms.forms import FORMS
from ..utils.tables import format_number
from .escape import cell, code

if TYPE_CHECKING:
    from .card import CardFacts, ClassResult, Example

MOST_LABELS = 20

MOST_LOSSES = 12  # rows of the table of losses

LOSSES = {
    "step": "step",
    "epoch": "epoch",
    "loss": "training loss",
    "task_loss": "task loss",
    "atom_energy": "atom energy",
    "eval_loss": "evaluation loss",
}


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


def class_rows(results: list[ClassResult]) -> list[list[str]]:
    """Ready cells of each class: name, samples, precision, recall, F1; of many classes those with the least F1."""
    shown = results if len(results) <= MOST_LABELS else sorted(results, key=lambda each: each.f1)[:MOST_LABELS]
    return [
        [cell(each.name), f"{each.samples:,}", *map(format_number, (each.precision, each.recall, each.f1))]
        for each in shown
    ]


def example_rows(examples: list[Example]) -> list[list[str]]:
    """A header, and ready cells of each example, with the columns that are known of any."""
    columns = {
        "text": [cell(each.text) for each in examples],
        "second text": [cell(each.pair) if each.pair is not None else "" for each in examples],
        "predicted": [cell(each.predicted) if each.predicted is not None else "" for each in examples],
        "confidence": [f"{each.confidence:.0%}" if each.confidence is not None else "" for each in examples],
        "true": [cell(each.label) if each.label is not None else "" for each in examples],
    }
    known = {name: cells for name, cells in columns.items() if any(cells)}
    return [list(known), *map(list, zip(*known.values(), strict=True))] if known else []


def loss_table(losses: list[dict[str, float]]) -> list[list[str]]:
    """A header, and at most `MOST_LOSSES` rows, evenly chosen, of what was logged; the last is always among them."""
    names = [name for name in LOSSES if any(name in line for line in losses)]
    if not {"loss", "eval_loss"} & set(names):
        return []
    count = len(losses)
    places = sorted(
        {round(i * (count - 1) / max(1, MOST_LOSSES - 1)) for i in range(MOST_LOSSES)} if count > 1 else {0}
    )
    rows = []
    for line in (losses[place] for place in places):
        values = {**line, **({"epoch": round(line["epoch"], 2)} if "epoch" in line else {})}
        rows.append([f"{values[name]:g}" if name in ("step", "epoch") else _number(values.get(name)) for name in names])
    return [[LOSSES[name] for name in names], *rows]


def _number(value: float | None) -> str:
    return "" if value is None else format_number(value)


def about_explainer(facts: CardFacts) -> dict[str, Any]:
    """Whether the importance is fitted to the prediction, and how good it is.

    The importances that a run logs are the charges all the same: the explainer is fitted after it.
    """
    if facts.atoms is None:
        return {"fitted": False, "quality": ""}
    return {"fitted": facts.atoms.has_explainer, "quality": explainer_quality(facts.atoms)}


def picture_says(facts: CardFacts) -> str:
    """What the picture of a card shows, in a sentence."""
    what = {"text": "the words of evaluation texts", "image": "evaluation pictures"}.get(facts.inputs or "", "samples")
    fitted = facts.atoms is not None and facts.atoms.has_explainer
    says = (
        "orange: the prediction leans on it; blue: it speaks against it"
        if fitted
        else "orange: positive; blue: negative"
    )
    return f"{what[0].upper()}{what[1:]} under their importance ({says}), with the predicted class."


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
