"""Judge a manipulator: what its edits say to classifiers that it was not trained against, and what they keep."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ...errors import AtomError
from ..arguments import TaskArguments
from ..laws import energy_distance
from .judge import Judge, make_judge, usual_judge
from .manipulator import Manipulator
from .rows import LabelledRows
from .sparring import input_range, read_classes

ROWS = 400  # whose edits are judged, if not given

STRENGTHS = 9

SLACK = 0.01  # by which a probability may fall from one strength to the next and still count as rising

UNDO_NOISE = 0.05  # of the range of the rows, before an edit is undone


class Editor(Protocol):
    """What turns rows of their own classes [N] into others [N]."""

    def __call__(self, values: Tensor, own: Tensor, to: Tensor, strength: float = 1.0) -> Tensor: ...


class Edits(NamedTuple):
    """Every row edited to every class but its own."""

    source: Tensor
    """[M] the number of the row that each edit is of."""
    to: Tensor
    """[M] the class that it was edited to."""
    values: Tensor


def editor_of(manipulator: Manipulator) -> Editor:
    """The manipulator, in parts that fit memory."""

    def edit(values: Tensor, own: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        parts = zip(values.split(512), own.split(512), to.split(512), strict=True)
        return torch.cat([manipulator.edit(v, t, strength, own=o).cpu() for v, o, t in parts])

    return edit


def edit_all(editor: Editor, rows: LabelledRows, own: Tensor, classes: int) -> Edits:
    """Every row edited to every class but its label.

    Args:
        own: [N] the classes that are read from the rows, which an editor is given.
    """
    pairs = [(row, to) for row, label in enumerate(rows.labels.tolist()) for to in range(classes) if to != label]
    source, to = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Edits(source, to, editor(rows.floats[source], own[source], to))


def measure(
    editor: Editor, rows: LabelledRows, own: Tensor, edits: Edits, judge: Judge, reference: LabelledRows, seed: int = 0
) -> dict[str, Any]:
    """What edits say and what they keep.

    Distances are root mean squares of a pixel or a coordinate.

    Args:
        own: [N] the classes read from the rows.
        reference: other rows of the data, beside which the distance between laws is that of the data themselves.

    Returns:
        judge: the share of edits that the judge reads as their class;
        identity, undo, undo_after_noise: how far a row is from itself when its own class is written, when an edit is undone,
            and when noise was added to the edit before that;
        move: how far an edit is from its row;
        energy, energy_of_data: the energy distance of edits to the rows of their class, and of other rows of the class to
            them, means over classes; energy_by_class has both of each class.
    """
    values = rows.floats
    back = own[edits.source]
    noise = torch.randn(edits.values.shape, generator=torch.Generator().manual_seed(seed))
    noised = edits.values + UNDO_NOISE * input_range(rows) * noise
    by_class = {}
    for label in range(int(max(edits.to.max(), rows.labels.max())) + 1):
        real, other, edited = rows.of_class(label), reference.of_class(label), edits.values[edits.to == label]
        if min(len(real), len(other), len(edited)) < 2:
            continue
        by_class[label] = [float(energy_distance([some[:1000]], [real], "energy")) for some in (edited, other)]
    if not by_class:
        raise AtomError("rows: no class has two rows to compare edits with; give more rows")
    energies = torch.tensor(list(by_class.values())).mean(0).tolist()
    return {
        "judge": _share(judge.read(edits.values) == edits.to),
        "identity": _rms(editor(values, own, own) - values),
        "undo": _rms(editor(edits.values, edits.to, back) - values[edits.source]),
        "undo_after_noise": _rms(editor(noised, edits.to, back) - values[edits.source]),
        "move": _rms(edits.values - values[edits.source]),
        "energy": energies[0],
        "energy_of_data": energies[1],
        "energy_by_class": by_class,
    }


def evaluate_manipulator(
    manipulator: Manipulator,
    rows: LabelledRows,
    judge_rows: LabelledRows,
    *,
    judge: str | None = None,
    classifier: nn.Module | None = None,
    most: int = ROWS,
    args: TaskArguments | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a manipulator on rows that nothing was trained on.

    Args:
        rows: to edit; at most `most` of them are.
        judge_rows: others, for the judge to learn from.
        judge: see `judge.make_judge`; an SVM for images and logistic regression for vectors if not given.
        classifier: the one that was given, from rows to logits, for its own success.
        most: rows to edit, drawn from all, each class in proportion.
        args: for a judge that is a network.

    Returns:
        What `measure` gives, and: rows and edits, their numbers; success, the share of edits that the sparring copy reads as
        their class, and success_classifier that of the given one; judge_name and judge_accuracy, the judge's on the rows
        themselves; gap, success - judge; interpolation, the share of edits whose probability of the class rises (within 0.01)
        with every strength of nine from 0 to 1.

    Raises:
        AtomError: rows of another kind, or too few.
    """
    config = manipulator.config
    for name, given in (("rows", rows), ("judge_rows", judge_rows)):
        if given.kind != config.kind:
            raise AtomError(f"{name}: they are {given.kind}, and the manipulator edits {config.kind}")
    if not len(rows):
        raise AtomError("rows: there is none to edit; give more evaluation rows")
    name = judge or usual_judge(rows)
    made = make_judge(name, judge_rows, config.labels, args or TaskArguments("trainer_output", seed=seed))
    some, classes, editor = rows.draw(most, seed), config.num_labels, editor_of(manipulator)
    own = read_rows(manipulator, some)
    edits = edit_all(editor, some, own, classes)
    found = measure(editor, some, own, edits, made, judge_rows, seed)
    success = _share(read_classes(_Reader(manipulator), edits.values) == edits.to)
    found |= {
        "rows": len(some),
        "edits": len(edits.to),
        "success": success,
        "gap": success - found["judge"],
        "judge_name": name,
        "judge_accuracy": made.accuracy(rows),
        "interpolation": _rising(manipulator, editor, some, own, edits),
    }
    if classifier is not None:
        found["success_classifier"] = _share(read_classes(classifier, edits.values) == edits.to)
    return found


def read_rows(manipulator: Manipulator, rows: LabelledRows) -> Tensor:
    """The ids [N] of the classes that the sparring copy reads from rows."""
    return read_classes(_Reader(manipulator), rows.floats)


class _Reader(nn.Module):
    """The sparring copy for rows as they are given."""

    def __init__(self, manipulator: Manipulator):
        super().__init__()
        self.manipulator = manipulator

    def forward(self, values: Tensor) -> Tensor:
        return self.manipulator.classify(values)


def probabilities(manipulator: Manipulator, values: Tensor, to: Tensor) -> Tensor:
    """The probability [N] of a class [N] that the sparring copy reads from rows."""
    parts = []
    with torch.no_grad():
        for some, wanted in zip(values.split(512), to.split(512), strict=True):
            logits = manipulator.classify(some).cpu()
            parts.append(logits.softmax(1).gather(1, wanted[:, None])[:, 0])
    return torch.cat(parts)


def _rising(manipulator: Manipulator, editor: Editor, rows: LabelledRows, own: Tensor, edits: Edits) -> float:
    values, strengths = rows.floats[edits.source], torch.linspace(0, 1, STRENGTHS).tolist()
    before, rises = None, torch.ones(len(edits.to), dtype=torch.bool)
    for strength in tqdm(strengths, desc="strengths", unit="strength", leave=False):
        edited = editor(values, own[edits.source], edits.to, strength)
        now = probabilities(manipulator, edited, edits.to)
        if before is not None:
            rises &= now >= before - SLACK
        before = now
    return _share(rises)


def _share(found: Tensor) -> float:
    return float(found.float().mean())


def _rms(difference: Tensor) -> float:
    return float(difference.square().mean().sqrt())
