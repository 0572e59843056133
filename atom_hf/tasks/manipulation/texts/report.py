"""The page of an editor of texts: what was measured, and edits with their changed words marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from ....utils.files import write_atomically
from ....visualization.page import Table, write_page
from ....visualization.text_edits_picture import TextLine, text_edits_sheet
from ....visualization.values import clean
from ..card import PICTURE_NAME, result_rows
from ..report import PAGE_NAME, shown_rows
from .evaluation import changed_words
from .manipulator import TextManipulator
from .rows import TextRows

LONGEST = 400  # characters of a text on the page

PICTURED = 8  # edits in the picture

INTRO = (
    "An editor (fill) was trained against a frozen copy of the classifier {classifier}{tuned} to write any of its classes into "
    "texts. It hides the words that the classifier leans on most, at most {share:.0%} of the tokens, and a masked language "
    "model that is told the class fills the gaps: what it writes is read, and the text's own words are written again when its "
    "own class is.\n\nEverything here was measured on evaluation rows that neither the editor nor its judge has seen. The "
    "texts shown were not picked: they are the first of each class."
)


def write_text_report(
    folder: Path, manipulator: TextManipulator, rows: TextRows, found: dict[str, Any], samples: int
) -> list[Path]:
    """Write the page, and a PNG beside it; returns their paths.

    Args:
        rows: the evaluation rows, of which some are shown.
        found: what was measured, as `metrics.json` holds it.
        samples: texts to show.
    """
    config = manipulator.config
    tuned = f", tuned with {config.hidden_share:.0%} of the words hidden," if config.hidden_share else ""
    intro = INTRO.format(classifier=config.classifier_name or "that was given", tuned=tuned, share=config.share)
    some = rows.take(shown_rows(rows, samples))
    pairs = shown_edits(manipulator, some)
    tables = [edits_table(pairs), *text_tables(found)]
    title = f"{config.dataset or 'Data'}: a classifier as an editor of texts"
    page = write_page(folder / PAGE_NAME, title=title, intro=intro, tables=tables)
    return [page, write_atomically(folder / PICTURE_NAME, edits_picture(pairs[:PICTURED]))]


class ShownEdit(NamedTuple):
    """A text and its edit to a class."""

    before: str
    label: str
    after: str
    to: str
    sure: float
    """The probability of the class, as the classifier reads it that the editor was trained against."""


def shown_edits(manipulator: TextManipulator, rows: TextRows) -> list[ShownEdit]:
    """Texts and their edits to every class but their own."""
    labels, found = manipulator.config.labels, []
    own = manipulator.classify(rows.texts).argmax(1)
    edited = [manipulator.edit(rows.texts, to, own=own) for to in range(len(labels))]
    sure = [manipulator.classify(texts).softmax(1)[:, to].tolist() for to, texts in enumerate(edited)]
    for row, text in enumerate(rows.texts):
        mine = int(rows.labels[row])
        found += [
            ShownEdit(text[:LONGEST], labels[mine], edited[to][row][:LONGEST], label, sure[to][row])
            for to, label in enumerate(labels)
            if to != mine
        ]
    return found


def edits_table(pairs: Sequence[ShownEdit]) -> Table:
    """Texts and their edits, with changed words marked."""
    lines = []
    for one in pairs:
        before, after = marked(one.before, one.after)
        lines.append([before, one.label, after, one.to, f"{one.sure:.2f}"])
    note = (
        "Struck out: words of the text that are gone. Underlined: words that were written. P(to) is what the classifier reads "
        "from the edit that the editor was trained against."
    )
    return Table("Edits", ["text", "class", "edited", "to", "P(to)"], lines, note)


def edits_picture(pairs: Sequence[ShownEdit]) -> bytes:
    """The same as a PNG."""
    lines = []
    for one in pairs:
        gone, new = changed_words(one.before, one.after)
        lines.append(TextLine(one.label, one.before.split(), set(gone)))
        lines.append(TextLine(f"to {one.to}", one.after.split(), set(new), is_edit=True))
    return text_edits_sheet(lines, note="Struck out: words that are gone. Underlined: words that were written.")


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
