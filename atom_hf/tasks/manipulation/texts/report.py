"""The page of an editor of texts: what was measured, and edits with their changed words marked."""

from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from ....visualization.page import Table, write_page
from ....visualization.values import clean
from ..card import result_rows
from ..report import PAGE_NAME, shown_rows
from .evaluation import changed_words
from .manipulator import TextManipulator
from .rows import TextRows

LONGEST = 400  # characters of a text on the page

INTRO = (
    "An editor (fill) was trained against a frozen copy of the classifier {classifier}{tuned} to write any of its classes into "
    "texts. It hides the words that the classifier leans on most, {share:.0%} of the tokens, and a masked language model that is "
    "told the class fills the gaps: what it writes is read, and the text's own words are written again when its own class is."
    "\n\nEverything here was measured on evaluation rows that neither the editor nor its judge has seen. The texts shown were not "
    "picked: they are the first of each class."
)


def write_text_report(
    folder: Path, manipulator: TextManipulator, rows: TextRows, found: dict[str, Any], samples: int
) -> list[Path]:
    """Write the page; returns its path in a list.

    Args:
        rows: the evaluation rows, of which some are shown.
        found: what was measured, as `metrics.json` holds it.
        samples: texts to show.
    """
    config = manipulator.config
    tuned = f", tuned with {config.hidden_share:.0%} of the words hidden," if config.hidden_share else ""
    intro = INTRO.format(classifier=config.classifier_name or "that was given", tuned=tuned, share=config.share)
    tables = [edits_table(manipulator, rows.take(shown_rows(rows, samples))), *text_tables(found)]
    title = f"{config.dataset or 'Data'}: a classifier as an editor of texts"
    return [write_page(folder / PAGE_NAME, title=title, intro=intro, tables=tables)]


def edits_table(manipulator: TextManipulator, rows: TextRows) -> Table:
    """Texts and their edits to every class but their own, with changed words marked."""
    labels, lines = manipulator.config.labels, []
    own = manipulator.classify(rows.texts).argmax(1)
    edited = [manipulator.edit(rows.texts, to, own=own) for to in range(len(labels))]
    sure = [manipulator.classify(texts).softmax(1)[:, to].tolist() for to, texts in enumerate(edited)]
    for row, text in enumerate(rows.texts):
        for to, label in enumerate(labels):
            if to != int(rows.labels[row]):
                before, after = marked(text[:LONGEST], edited[to][row][:LONGEST])
                lines.append([before, labels[int(rows.labels[row])], after, label, f"{sure[to][row]:.2f}"])
    return Table(
        "Edits",
        ["text", "class", "edited", "to", "P(to)"],
        lines,
        "Struck out: words of the text that are gone. Underlined: words that were written. P(to) is what the classifier that the "
        "editor was trained against reads from the edit.",
    )


def marked(before: str, after: str) -> tuple[Markup, Markup]:
    """A text with the words that are gone struck out, and another with the words that are new underlined, as HTML."""
    gone, new = changed_words(before, after)
    return _marked(before, set(gone), "del"), _marked(after, set(new), "ins")


def _marked(text: str, places: set[int], tag: str) -> Markup:
    parts: list[str] = []
    for place, word in enumerate(text.split()):
        safe = escape(clean(word))
        parts.append(Markup("<{0}>{1}</{0}>").format(Markup(tag), safe) if place in places else safe)
    return Markup(" ").join(parts)


def text_tables(found: dict[str, Any]) -> list[Table]:
    """What was measured, as tables of a page."""
    note = (
        f"{found['edits']} edits of {found['rows']} texts, each to another class than the text's own. "
        f"Judge: {found['judge_name']}."
    )
    tables = [Table("Results", ["measure", "value"], [list(row) for row in result_rows(found)], note)]
    names = ("judge", "kept", "half_kept", "judge_half")
    heads = ["editor", "read as the class by the judge", "words kept", "half of the words kept", "both"]
    rows = [["manipulator", *(f"{found[name]:.3f}" for name in names)]]
    rows += [[name, *(f"{one[key]:.3f}" for key in names)] for name, one in found.get("compared", {}).items()]
    tables.append(Table("Compared", heads, rows, "Shares of edits; of words the mean over edits."))
    if found["often"]:
        often = [[word, f"{share:.3f}"] for word, share in found["often"]]
        tables.append(Table("Words written most often", ["word", "share of all that were written"], often))
    if agreed := found.get("agreement"):
        rows = [
            ["share of changed words among the most important", f"{agreed['agreement']:.3f}"],
            ["its 95 % interval", f"{agreed['low']:.3f} to {agreed['high']:.3f}"],
            ["by chance", f"{agreed['chance']:.3f}"],
        ]
        note = (
            "The words that an edit changed, and as many whose masking lowers the probability of the text's class most. Mean "
            f"over {agreed['rows']} texts."
        )
        tables.append(Table("Edits and importance", ["measure", "value"], rows, note))
    return tables
