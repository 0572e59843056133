"""Editors of finite sets, all of them: python recipes/manipulation/lenses.py

A lens is a way to read (get) and to write (put) a value of a state. Every lens of so many states and values that keeps PutGet
and GetPut is made, and it is counted how many keep Undo and how many PutPut. It writes lenses.md beside it.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from atom_hf.tasks import read_task, refines
from atom_hf.utils.tables import markdown

HERE = Path(__file__).parent
SIZES = [(4, 2), (5, 2), (6, 2), (3, 3), (5, 3), (6, 3)]
HEAD = """# Editors of finite sets

    python recipes/manipulation/lenses.py    # makes every lens, and writes this page

A lens reads a value of a state, `get(s)`, and writes one, `put(s, v)`. Of all lenses on so many states and values that keep

- PutGet, `get(put(s, v)) = v`: what is written is read, and
- GetPut, `put(s, get(s)) = s`: what is there already is left alone,

so many keep

- Undo, `put(put(s, v), get(s)) = s`: an edit can be undone, and
- PutPut, `put(put(s, v), w) = put(s, w)`: a second edit hides the first.

{table}
With two values, Undo and PutPut are the same. With three, an edit from the first value over the second to the third may arrive
elsewhere than the edit from the first to the third, and still each of them can be undone: PutPut asks for more.
PutPut always gives Undo: write `get(s)` as the second value.

Undo needs as many states of each value as of every other (last column): an editor that can be undone maps the rows of one class
one to one onto those of another. Where classes differ in how much there is to keep, it can only hold approximately.

`refines` proves that PutPut gives Undo, for data of any kind: {proof}.
It denies that Undo gives PutPut already for two values: its equations hold on the data, and what `put` writes need not be a
datum, so that writing a value twice may differ from writing it once.
"""

TASK = """
type state = vector(1), value = class({values})
data D : state, value
noise A : value = marginal(D.2)
fixed get : state -> value
learner put : state, value -> state
for s, y in D; v in A; w in A:
    putget: get(put(s, v)) == v
    getput: put(s, get(s)) == s
"""
UNDO = "    undo: put(put(s, v), get(s)) == s\n"
PUTPUT = "    putput: put(put(s, v), w) == put(s, w)\n"


def lenses(states: int, values: int) -> Iterator[tuple[tuple[int, ...], list[list[int]]]]:
    """Every (get, put) that keeps PutGet and GetPut: get[s], and put[s][v]."""
    for get in itertools.product(range(values), repeat=states):
        fibres = [[s for s in range(states) if get[s] == v] for v in range(values)]
        # PutGet: what is written has the value; GetPut: the own value changes nothing.
        choices = [[s] if get[s] == v else fibres[v] for s in range(states) for v in range(values)]
        for put in itertools.product(*choices):
            yield get, [list(put[s * values : (s + 1) * values]) for s in range(states)]


def keeps_undo(get: tuple[int, ...], put: list[list[int]]) -> bool:
    """Whether every edit can be undone."""
    return all(put[t][get[s]] == s for s, row in enumerate(put) for t in row)


def keeps_putput(put: list[list[int]]) -> bool:
    """Whether every second edit hides the first."""
    return all(put[t] == row for row in put for t in row)


def count(states: int, values: int) -> tuple[Counter, set[tuple[int, ...]]]:
    """How many lenses there are (lens), how many keep Undo, PutPut, and Undo alone; the sizes of fibres with Undo."""
    counts: Counter = Counter()
    sizes = set()
    for get, put in lenses(states, values):
        undo, putput = keeps_undo(get, put), keeps_putput(put)
        counts.update({"lens": 1, "undo": undo, "putput": putput, "undo alone": undo and not putput})
        if undo:
            sizes.add(tuple(sorted(get.count(v) for v in range(values))))
    return counts, sizes


def main() -> None:
    rows = []
    for states, values in SIZES:
        counts, found = count(states, values)
        names = ("lens", "undo", "putput", "undo alone")
        shown = " or ".join(", ".join(map(str, sizes)) for sizes in sorted(found)) or "–"
        rows.append([str(states), str(values), *(f"{counts[name]:,}" for name in names), shown])
    header = [
        "states",
        "values",
        "PutGet, GetPut",
        "and Undo",
        "and PutPut",
        "Undo without PutPut",
        "states of each value",
    ]
    task = TASK.format(values=2)
    gives, denies = (
        refines(read_task(task + one), read_task(task + other)) for one, other in ((PUTPUT, UNDO), (UNDO, PUTPUT))
    )
    if not gives.answer or denies.answer is not False:
        raise SystemExit("refines no longer says what the page tells of it")
    proof = str(gives).splitlines()[-1]
    page = HERE / "lenses.md"
    page.write_text(HEAD.format(table=markdown(header, rows), proof=f"`{proof}`"), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
