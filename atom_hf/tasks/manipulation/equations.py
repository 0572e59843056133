"""The equations of a manipulator, as a task."""

from collections.abc import Iterable, Mapping, Sequence

from ...errors import AtomError
from ..kinds import Kind, number
from ..reader import read_task
from ..spec import TaskSpec

ATOMS = {
    "putget": "get(put(x, a)) == a",
    "getput": "put(x, hard(get(x))) == x",
    "undo": "put(put(x, a), hard(get(x))) == x",
    "law": "(put(x, a), a) ~ (x, y)",
    "putput": "put(put(x, a), b) == put(x, b)",
}
"""What is written is read; a row is left alone when its own class is written; an edit can be undone; edits are distributed as
the data; a second edit hides the first. The class that is read is written as a hard one."""

WEIGHTS = {"pixels": (1.0, 10.0, 10.0, 0.3), "vector": (1.0, 1.0, 1.0, 0.3)}
"""Of the first four atoms, by the kind of the rows."""


def atom_weights(kind: Kind, given: Sequence[float] | None = None) -> dict[str, float]:
    """The weight of each atom, from those given (see `check_weights`) or those usual for a kind; without atoms of weight 0."""
    values = WEIGHTS[kind.name] if given is None else tuple(given)
    check_weights(values)
    return {name: value for name, value in zip(ATOMS, values, strict=False) if value}


def check_weights(values: Sequence[float]) -> None:
    """Raises `AtomError`, naming --weights, unless there are four or five of 0 or more, of which the first is not 0."""
    if len(values) not in (4, 5):
        raise AtomError(
            f"--weights: give four numbers, of {', '.join(list(ATOMS)[:4])} (and one of putput), got {len(values)}"
        )
    _check_each(ATOMS, values)


def _check_each(names: Iterable[str], values: Sequence[float]) -> None:
    for name, value in zip(names, values, strict=False):
        if not 0 <= value < float("inf"):  # not NaN either
            raise AtomError(f"--weights: that of {name} must be 0 or more, got {number(value)}")
    if values[0] == 0:
        raise AtomError("--weights: that of putget is 0, and nothing else says what an edit is to be; give one above 0")


def manipulation_task(kind: Kind, classes: int, weights: Mapping[str, float]) -> TaskSpec:
    """The task: a fixed classifier `get` of rows of a kind, and an editor `put` to be trained for its classes."""
    lines = "".join(f"    {name} {number(weight)}: {ATOMS[name]}\n" for name, weight in weights.items())
    more = "; b in A" if "putput" in weights else ""
    return read_task(
        f"type datum = {kind}, label = class({classes})\n\ndata D : datum, label\nnoise A : label = marginal(D.2)\n"
        f"fixed get : datum -> label\nlearner put : datum, label -> datum\n\nfor x, y in D; a in A{more}:\n{lines}"
    )


def sparring_task(kind: Kind, classes: int, sigma: float) -> TaskSpec:
    """The task of fine-tuning the classifier on rows with normal noise of a standard deviation."""
    return read_task(
        f"type datum = {kind}, label = class({classes})\n\ndata D : datum, label\n"
        f"function noisy_datum : datum -> datum = jitter({number(sigma)}), noisy\nlearner get : datum -> label\n\n"
        "for x, y in D:\n    fit: get(noisy_datum(x)) == y\n"
    )


TEXT_ATOMS = {"putget": "get(put(x, a)) == a", "denoise": "put(x, y) == x"}
"""What is written is read; the words that were hidden are written again when the text's own class is."""

TEXT_WEIGHTS = (1.0, 1.0)


def text_weights(given: Sequence[float] | None = None) -> dict[str, float]:
    """The weight of each atom of an editor of texts. Raises `AtomError`, naming --weights, for others than two."""
    values = TEXT_WEIGHTS if given is None else tuple(given)
    if len(values) != len(TEXT_ATOMS):
        raise AtomError(f"--weights: of texts give two numbers, of {' and '.join(TEXT_ATOMS)}, got {len(values)}")
    _check_each(TEXT_ATOMS, values)
    return {name: value for name, value in zip(TEXT_ATOMS, values, strict=True) if value}


def text_task(tokens: int, classes: int, weights: Mapping[str, float]) -> TaskSpec:
    """The task of an editor of texts: `hide` puts gaps into a text, and `fill` is to be trained to fill them."""
    lines = "".join(f"    {name} {number(weight)}: {TEXT_ATOMS[name]}\n" for name, weight in weights.items())
    return read_task(
        f"{_text_types(tokens, classes)}noise A : label = marginal(D.2)\nfixed get : text -> label\n"
        "function hide : text -> text\nlearner fill : text, label -> text\n"
        f"let put(x, a) = fill(hide(x), a)\n\nfor x, y in D; a in A:\n{lines}"
    )


def filling_task(tokens: int, classes: int) -> TaskSpec:
    """The task of filling gaps: of a masked language model that is told the class."""
    return read_task(
        f"{_text_types(tokens, classes)}function cover : text -> text, noisy\nlearner fill : text, label -> text\n\n"
        "for x, y in D:\n    denoise: fill(cover(x), y) == x\n"
    )


def covered_task(tokens: int, classes: int) -> TaskSpec:
    """The task of fine-tuning a classifier of texts on texts with gaps."""
    return read_task(
        f"{_text_types(tokens, classes)}function cover : text -> text, noisy\nlearner get : text -> label\n\n"
        "for x, y in D:\n    fit: get(cover(x)) == y\n"
    )


def _text_types(tokens: int, classes: int) -> str:
    return f"type text = tokens({tokens}), label = class({classes})\n\ndata D : text, label\n"


def judge_task(kind: Kind, classes: int) -> TaskSpec:
    """The task of a classifier."""
    return read_task(
        f"type datum = {kind}, label = class({classes})\n\ndata D : datum, label\nlearner f : datum -> label\n\n"
        "for x, y in D:\n    fit: f(x) == y\n"
    )
