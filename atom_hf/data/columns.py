"""Find the columns of a table that hold the text, the image and the label."""

from __future__ import annotations

import datasets

from ..errors import AtomError
from ..utils.terminal import get_logger
from .pictures import Picture

logger = get_logger(__name__)

TASKS = ("text-classification", "image-classification", "causal-lm")

GENERATION = "unconditional-image-generation"
"""A task of images without labels. Only `atom-hf train` has it."""

LABEL_NAMES = ("label", "labels", "class", "class_id", "target", "category", "y", "fine_label")

TEXT_NAMES = ("text", "sentence", "verse", "verse_text", "line", "content", "review", "document")

TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
)

NEVER_TEXT = ("idx", "id", "index", "source")

USUAL_NAMES = {*LABEL_NAMES, *TEXT_NAMES, *NEVER_TEXT, *(name for pair in TEXT_PAIRS for name in pair)}

MOST_CLASSES = 1000  # a column of more values is not taken for one of classes


def find_columns(
    rows: datasets.Dataset, task: str | None, given: dict[str, str | None], dataset: str
) -> tuple[str, dict[str, str]]:
    """The task, and the columns of the "text", "text_pair", "image" and "label" that it needs, by role."""
    features = rows.features
    present = f"the columns of {dataset!r} are {', '.join(features)}"
    # Blanks around a name are easily overlooked: they count only where two names differ in nothing else.
    stripped = {column.strip(): column for column in reversed(features)}
    chosen = {
        role: column if column in features else stripped.get(column.strip(), column)
        for role, column in given.items()
        if column is not None
    }
    for role, column in chosen.items():
        if column not in features:
            raise AtomError(f"--{role}_column {column!r} does not exist; {present}")
        if list(chosen.values()).count(column) > 1:
            raise AtomError(f"--{role}_column {column!r} is given for two roles; give another: {present}")

    free = {column.strip().lower(): column for column in features if column not in chosen.values()}
    label = (
        chosen.get("label") or next((free[name] for name in LABEL_NAMES if name in free), None) or _declared(rows, free)
    )
    image = chosen.get("image") or next((column for column in features if is_image(features[column])), None)
    if "text" not in chosen and task in (None, "text-classification"):
        first, second = next((pair for pair in TEXT_PAIRS if {*pair} <= {*free}), (None, None))
        if first and "text_pair" not in chosen:
            chosen |= {"text": free[first], "text_pair": free[second]}
    text = chosen.get("text") or find_text(rows, [c for c in free.values() if c != label])

    if task is None:
        by_image = image is not None and given["text"] is None
        task = "image-classification" if by_image else "causal-lm" if label is None else "text-classification"
        if not by_image and text is None:
            raise AtomError(f"--dataset {dataset!r}: no column of images or text is found; {present}")
        possible = _possible_labels(rows, free, text) if task == "causal-lm" and is_text(features[text]) else {}
        if possible:
            raise AtomError(
                f"--task is not clear from {dataset!r}: no column is called {', '.join(LABEL_NAMES)}, but "
                f"{_described(possible)} could hold classes: give --label_column {next(iter(possible))!r}, or --task causal-lm "
                f"for a language model of {text!r}"
            )
    if task in ("image-classification", GENERATION):
        if image is None:
            raise AtomError(f"--task {task} needs a column of images (--image_column), else give another; {present}")
        if not is_image(features[image]):
            raise AtomError(f"--image_column {image!r} does not hold images; {present}")
        needed = {"image": image}
    else:
        if text is None:
            raise AtomError(f"--task {task} needs a column of text (--text_column), else give another; {present}")
        needed = {"text": text}
        if "text_pair" in chosen and task == "text-classification":
            needed["text_pair"] = chosen["text_pair"]
        strings = ", ".join(column for column in features if is_text(features[column])) or "none"
        for role, column in needed.items():
            if not is_text(features[column]):
                raise AtomError(f"--{role}_column {column!r} does not hold strings; the columns that do: {strings}")
    if task in ("causal-lm", GENERATION):
        return task, needed
    if label is None:
        possible = _possible_labels(rows, free, text)
        hint = f"; {_described(possible)} could be it" if possible else ""
        raise AtomError(
            f"--label_column: --task {task} needs one and none is called {', '.join(LABEL_NAMES)}{hint}; {present}"
        )
    return task, {**needed, "label": label}


def _declared(rows: datasets.Dataset, free: dict[str, str]) -> str | None:
    """The one column that the data set itself declares to hold classes."""
    found = [column for column in free.values() if isinstance(rows.features[column], datasets.ClassLabel)]
    return found[0] if len(found) == 1 else None


def _possible_labels(rows: datasets.Dataset, free: dict[str, str], text: str | None) -> dict[str, list]:
    """The columns, beside the text, whose values recur as those of classes do: their values."""
    found = {}
    for name, column in free.items():
        feature = rows.features[column]
        if column == text or name in ("id", "idx", "index") or not isinstance(feature, datasets.Value):
            continue
        if is_text(feature) or feature.dtype.startswith(("int", "uint", "bool", "float")):
            values = [value for value in rows.unique(column) if value is not None]
            few = max(2, min(len(rows) // 2, MOST_CLASSES))
            if 2 <= len(values) <= few and len(values) < len(rows):
                found[column] = values
    return found


def _described(columns: dict[str, list]) -> str:
    """Columns with some of their values, in words."""
    shown = []
    for column, values in list(columns.items())[:3]:
        some = ", ".join(str(value)[:20] for value in values[:3])
        shown.append(f"{column!r} ({len(values)} values: {some}{', ...' if len(values) > 3 else ''})")
    return " or ".join(shown) + (" or others" if len(columns) > 3 else "")


def find_text(rows: datasets.Dataset, candidates: list[str]) -> str | None:
    """The column with a usual name for text, else the one with the longest strings."""
    lower = {column.strip().lower(): column for column in candidates}
    if named := next((lower[name] for name in TEXT_NAMES if name in lower), None):
        return named
    strings = [c for c in candidates if is_text(rows.features[c]) and c.strip().lower() not in NEVER_TEXT]
    head = rows.select(range(min(len(rows), 1000)))
    return max(strings, key=lambda c: sum(len(text or "") for text in column_values(head, c)), default=None)


def is_text(feature: object) -> bool:
    """Whether a column of this feature holds strings."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def is_image(feature: object) -> bool:
    # An image column that pandas wrote is read as the struct behind datasets.Image.
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def column_values(rows: datasets.Dataset, name: str) -> list:
    """All values of one column."""
    return rows.select_columns([name])[:][name]


def select_columns(rows: datasets.Dataset, columns: dict[str, str], given: str) -> datasets.Dataset:
    """The rows with only these columns, renamed to their roles; for language modeling without blank rows."""
    if absent := [column for column in columns.values() if column not in rows.column_names]:
        raise AtomError(
            f"{given} has no column {', '.join(absent)} as the training data has; it has {', '.join(rows.features)}"
        )
    rows = rows.select_columns(list(columns.values())).rename_columns({name: role for role, name in columns.items()})
    if "image" in columns:
        return rows.cast_column("image", Picture())
    for role in columns.keys() - {"label"}:
        if not is_text(rows.features[role]):
            raise AtomError(
                f"{given}: column {columns[role]!r} does not hold strings as that of the training data does"
            )
        texts = column_values(rows, role)
        if none := sum(text is None for text in texts):
            raise AtomError(f"{given}: {none} rows have no text in column {columns[role]!r}; fill or remove them")
        blank = sum(not text.strip() for text in texts)
        if blank and "label" in columns:
            if blank == len(texts):
                raise AtomError(f"{given}: column {columns[role]!r} holds only blank text; give one that has words")
            logger.warning("%s: %d of %d rows have blank text in column %r", given, blank, len(texts), columns[role])
    if "label" not in columns:
        written = [row for row, text in enumerate(texts) if text.strip()]
        if not written:
            raise AtomError(f"{given}: column {columns['text']!r} holds only blank text; give one that has words")
        if len(written) < len(texts):
            logger.info("%s: %d blank rows are left out", given, len(texts) - len(written))
            rows = rows.select(written)
    return rows
