"""Rows to train a task on: the columns of its data sources, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2_contingency
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import AtomError
from .spec import TaskSpec
from .terms import Sides, Term, show, sides_of, subterms

DEPENDS = 1e-3  # p of a chi-square test, below which an attribute is taken to depend on the label


@dataclass
class Column:
    """The values of a column: a tensor [N, ...], bytes of which are pixels of 0 to 255; or ids of texts, of any lengths."""

    values: Tensor | Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.values)

    def row(self, index: int) -> Any:
        value = self.values[index]
        if torch.is_tensor(value):
            return value.float() / 255 if value.dtype == torch.uint8 else value
        return torch.as_tensor(value)


class TaskRows(Dataset):
    """Rows of all data sources of a task, keyed by their columns, such as "D.1".

    There are as many as the longest source has. Rows of the others are drawn beside them, in another order in each epoch, so
    that sources are independent of each other.

    Args:
        sources: the columns of each source, all of one length.
        seed: of the orders.
    """

    def __init__(self, sources: Mapping[str, Sequence[Column]], seed: int = 0):
        self.sources, self.seed = dict(sources), seed
        lengths = {name: len(columns[0]) for name, columns in sources.items()}
        self.length = max(lengths.values())
        self.first = max(lengths, key=lambda name: lengths[name])
        self.orders: dict[str, np.ndarray] = {}
        self.set_epoch(0)

    def __len__(self) -> int:
        return self.length

    @property
    def lengths(self) -> list[int] | None:
        """The number of tokens of each row's text; None of a first source without texts."""
        for column in self.sources[self.first]:
            if not torch.is_tensor(column.values):
                return [len(ids) for ids in column.values]
        return None

    def set_epoch(self, epoch: int) -> None:
        """Draw the orders of an epoch."""
        for place, (name, columns) in enumerate(self.sources.items()):
            if name != self.first:
                rng, many = np.random.default_rng([self.seed, epoch, place]), len(columns[0])
                rounds = [rng.permutation(many) for _ in range(-(-self.length // many))]
                self.orders[name] = np.concatenate(rounds)[: self.length]

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = {}
        for name, columns in self.sources.items():
            row = index if name == self.first else int(self.orders[name][index])
            for place, column in enumerate(columns):
                found[f"{name}.{place + 1}"] = column.row(row)
        return found


def collate(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of rows: texts are filled up with 0, and "<column>.mask" says where they are not."""
    batch = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if len({value.shape for value in values}) == 1 and values[0].dtype != torch.int32:
            batch[name] = torch.stack(values)
            continue
        batch[name] = torch.nn.utils.rnn.pad_sequence([value.long() for value in values], batch_first=True)
        masks = [torch.ones(len(value), dtype=torch.long) for value in values]
        batch[f"{name}.mask"] = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True)
    return batch


def check_attributes(spec: TaskSpec, rows: TaskRows) -> None:
    """Raises `AtomError` for an editor whose attribute is a column that depends on another class of the same rows.

    An editor gives what it takes, and an atom reads the attribute from it. If attribute and label depend on each other, it
    learns to write the label too. Independent noise (`marginal`) has no such column.
    """
    for atom in spec.atoms.values():
        sides = sides_of(spec, atom)
        for call, datum, attribute in _edits(spec, sides):
            source, _, place = attribute.label
            own, columns, types = f"{source}.{place + 1}", rows.sources[source], spec.sources[source].types
            for other, wire in enumerate(types):
                if wire.kind.name != "class" or other == place:
                    continue
                found = chi_square(_classes(columns[place]), _classes(columns[other]))
                if found is not None and found[1] < DEPENDS:
                    edit, of = show(call, sides.names), f"{source}.{other + 1} of {show(datum, sides.names)}"
                    raise AtomError(
                        f"{atom.name}: in {edit} the attribute {own} depends on the class {of} (chi-square {found[0]:.1f}, "
                        f"p {found[1]:.1g}); draw it independently, as in 'noise A : {types[place]} = marginal({own})', or "
                        "balance the rows"
                    )


def _edits(spec: TaskSpec, sides: Sides) -> list[tuple[Term, Term, Term]]:
    """(call, datum, attribute) of learners that give what they take, where an atom reads a class column of the same row."""
    found = []
    for call in subterms(*sides.left, *sides.right):
        box = spec.learners.get(call.label[0]) if call.op == "box" else None
        if box is None or len(box.outputs) != 1:
            continue
        data = [term for term in call.arguments if term.op == "var" and spec.sources[term.label[0]].is_data]
        kinds = {term: spec.sources[term.label[0]].types[term.label[2]] for term in data}
        for datum in (term for term in data if kinds[term] == box.outputs[0] and kinds[term].kind.name != "class"):
            for other in data:
                if kinds[other].kind.name == "class" and other.label[:2] == datum.label[:2] and other in sides.right:
                    found.append((call, datum, other))
    return found


def _classes(column: Column) -> np.ndarray:
    return np.asarray(column.values).reshape(-1)


def chi_square(first: np.ndarray, second: np.ndarray) -> tuple[float, float] | None:
    """(chi-square, p) of the independence of two columns of classes; None where one of them has a single class."""
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    if min(table.shape) < 2:
        return None
    statistic, p, *_ = chi2_contingency(table)
    return float(statistic), float(p)
