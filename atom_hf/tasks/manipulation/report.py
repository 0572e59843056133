"""The page of a manipulator and its pictures."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...utils.files import write_atomically
from ...visualization.edits_picture import Cell, difference_picture, edits_sheet, picture_of
from ...visualization.page import Figure, Table, write_page
from ..kinds import number
from .card import PICTURE_NAME, result_rows
from .evaluation import probabilities
from .manipulator import Manipulator
from .rows import LabelledRows

PAGE_NAME = "edits.html"

MOST_CLASSES = 12  # columns of a sheet

STRENGTHS = 9

INTRO = (
    "{put} was trained against a frozen copy of the classifier {classifier}{noise} to write any of its classes into {what}: "
    "what it writes is read, a row whose own class is written stays as it is, an edit can be undone, and edits are distributed "
    "as the data.\n\nEverything here was measured on evaluation rows that neither the editor nor its judge has seen."
)


IMPORTANT = {
    "occlusion": "whose hiding lowers the probability of the row's class most",
    "fitted": "whose importance, fitted to the classifier's prediction, is largest",
}


def write_report(
    folder: Path,
    manipulator: Manipulator,
    rows: LabelledRows,
    found: dict[str, Any],
    samples: int,
    texts: list[str] | None,
) -> list[Path]:
    """Write the page, and for images a PNG beside it; returns their paths.

    Args:
        rows: the evaluation rows, of which some are shown.
        found: what was measured, as `metrics.json` holds it.
        samples: rows to show.
        texts: of the rows, where these are vectors of texts.
    """
    config = manipulator.config
    is_image = config.kind.name == "pixels"
    noise = f", tuned on noise of standard deviation {number(round(config.noise_std, 4))}," if config.noise_std else ""
    intro = INTRO.format(
        put=f"An editor ({config.put})", classifier=config.classifier_name or "that was given", noise=noise,
        what="images" if is_image else "what its output layer reads",
    )  # fmt: skip
    some = shown_rows(rows, samples)
    figures, written = [], []
    if is_image:
        figures = [edits_figure(manipulator, rows.take(some)), strengths_figure(manipulator, rows.take(some[:6]))]
        written.append(write_atomically(folder / PICTURE_NAME, figures[0].png))
    tables = result_tables(found, config.labels)
    if texts is not None:
        tables.append(nearest_table(manipulator, rows, some, texts))
    page = write_page(
        folder / PAGE_NAME,
        title=f"{config.dataset or 'Data'}: a classifier as an editor",
        intro=intro,
        figures=figures,
        tables=tables,
    )
    return [page, *written]


def shown_rows(rows: Any, samples: int) -> list[int]:
    """The numbers of rows to show: of each class in turn. `rows`: with `labels` [N]."""
    by_class = [(rows.labels == label).nonzero().flatten().tolist() for label in rows.labels.unique().tolist()]
    longest = max(map(len, by_class))
    turns = [of_class[turn] for turn in range(longest) for of_class in by_class if turn < len(of_class)]
    return turns[:samples]


@torch.no_grad()
def edits_figure(manipulator: Manipulator, rows: LabelledRows) -> Figure:
    """Each row: the original, its edits to every class, one of them undone, and what it changed."""
    labels = manipulator.config.labels
    classes = list(range(len(labels)))[:MOST_CLASSES]
    values, own = rows.floats, manipulator.classify(rows.floats).argmax(1).cpu()
    edited = {to: manipulator.edit(values, to, own=own).cpu() for to in classes}
    # The edit that is undone and shown as a difference is to the class after the row's own.
    following = torch.tensor([classes[(int(label) + 1) % len(classes)] for label in rows.labels])
    moved = manipulator.edit(values, following, own=own)
    undone = manipulator.edit(moved, own).cpu()
    sheet = []
    for row, label in enumerate(rows.labels.tolist()):
        cells = [Cell(picture_of(values[row].numpy()), labels[label])]
        cells += [Cell(picture_of(edited[to][row].numpy()), framed=to == label) for to in classes]
        cells.append(Cell(picture_of(undone[row].numpy())))
        change = difference_picture(values[row].numpy(), moved[row].cpu().numpy())
        cells.append(Cell(change, f"to {labels[following[row]]}"))
        sheet.append(cells)
    heads = ["original", *(labels[to] for to in classes), "undone", "difference"]
    note = "Framed: the row's own class. Undone and difference are of the edit to the class after it: orange added, blue taken."
    says = (
        f"{len(rows)} originals ({', '.join(labels[label] for label in rows.labels.tolist())}), each edited to "
        f"{', '.join(labels[to] for to in classes)}, one edit undone, and what that edit changed"
    )
    return Figure("Edits to every class", edits_sheet(heads, sheet, note=note), says)


def strengths_figure(manipulator: Manipulator, rows: LabelledRows, to: int | None = None) -> Figure:
    """Each row at strengths from 0 to 1, with the probability of the class that is written.

    Args:
        to: the class; of each row the one after its own if not given.
    """
    labels, values = manipulator.config.labels, rows.floats
    own = manipulator.classify(values).argmax(1).cpu()
    after = [(int(label) + 1) % len(labels) for label in rows.labels]
    target = torch.tensor(after) if to is None else torch.full((len(rows),), to)
    strengths = torch.linspace(0, 1, STRENGTHS).tolist()
    sheet: list[list[Cell]] = [[] for _ in range(len(rows))]
    for strength in strengths:
        edited = manipulator.edit(values, target, strength, own=own).cpu()
        sure = probabilities(manipulator, edited, target).tolist()
        for row in range(len(rows)):
            cell = Cell(picture_of(edited[row].numpy()), f"P({labels[target[row]]}) {sure[row]:.2f}")
            sheet[row].append(cell)
    for row in range(len(rows)):
        sheet[row].insert(0, Cell(picture_of(values[row].numpy()), labels[own[row]]))
    heads = ["original", *(f"{strength:.3g}" for strength in strengths)]
    pairs = ", ".join(f"{labels[a]} to {labels[b]}" for a, b in zip(own.tolist(), target.tolist(), strict=True))
    says = f"Rows turned from one class into another at {STRENGTHS} strengths: {pairs}; below each the probability of the class"
    return Figure(
        "From one class to another", edits_sheet(heads, sheet, side=96), says, "Strength 0 writes the row's own class."
    )


def result_tables(found: dict[str, Any], labels: list[str]) -> list[Table]:
    """What was measured, as tables of a page."""
    count = f"{found['edits']} edits of {found['rows']} rows"
    note = f"{count}, each to another class than the row's own. Judge: {found['judge_name']}."
    tables = [Table("Edits", ["measure", "value"], [list(row) for row in result_rows(found)], note)]
    if compared := found.get("compared"):
        names = [name for name in ("judge", "identity", "undo", "undo_after_noise", "move", "energy") if name in found]
        rows = [["manipulator", *(f"{found[name]:.3f}" for name in names)]]
        rows += [[name, *(f"{one[key]:.3f}" if key in one else "" for key in names)] for name, one in compared.items()]
        tables.append(
            Table(
                "Compared",
                ["editor", *(name.replace("_", " ") for name in names)],
                rows,
                "Distances are RMS; less is better.",
            )
        )
    if agreed := found.get("agreement"):
        rows = [
            ["share of changed patches among the most important", f"{agreed['agreement']:.3f}"],
            ["its 95 % interval", f"{agreed['low']:.3f} to {agreed['high']:.3f}"],
            ["by chance", f"{agreed['chance']:.3f}"],
        ]
        note = (
            f"The {agreed['top']} patches of {agreed['patches']} that an edit changes most, and the {agreed['top']} "
            f"{IMPORTANT[agreed['importance']]}. Mean over rows."
        )
        tables.append(Table("Edits and importance", ["measure", "value"], rows, note))
    energies = [[labels[int(k)], *(f"{value:.3f}" for value in both)] for k, both in found["energy_by_class"].items()]
    tables.append(
        Table(
            "Energy distance of each class",
            ["class", "edits to real rows", "other real rows to real rows"],
            energies,
            "0 for rows drawn alike; it may be less by chance.",
        )
    )
    return tables


@torch.no_grad()
def nearest_table(manipulator: Manipulator, rows: LabelledRows, some: list[int], texts: list[str]) -> Table:
    """The texts whose vectors are nearest to the edited vectors of others."""
    labels, values = manipulator.config.labels, rows.floats
    target = torch.tensor([(int(rows.labels[row]) + 1) % len(labels) for row in some])
    edited = manipulator.edit(values[some], target).cpu()
    near = nearest(edited, values, without=some)
    lines = [
        [
            texts[row][:120],
            labels[rows.labels[row]],
            labels[target[i]],
            texts[near[i]][:120],
            labels[rows.labels[near[i]]],
        ]
        for i, row in enumerate(some)
    ]
    return Table(
        "Nearest texts to edited vectors",
        ["text", "class", "edited to", "nearest other text", "its class"],
        lines,
        "By the cosine of their vectors, among the evaluation rows.",
    )


def nearest(edited: Tensor, values: Tensor, without: list[int]) -> list[int]:
    """Of each vector [n, d] the number of the nearest of others [N, d] by their cosine, but for its own."""
    cosine = torch.nn.functional.normalize(edited, dim=1) @ torch.nn.functional.normalize(values, dim=1).T
    cosine[torch.arange(len(edited)), torch.tensor(without)] = -2.0
    return cosine.argmax(1).tolist()
