"""Tables, samples and their atoms on one HTML page, which needs no network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from tqdm.auto import tqdm

from ..errors import AtomError
from ..importance.results import ImageImportance, TextImportance
from . import charts
from .atoms_map import map_atoms
from .colors import CLASSES, LEVELS, NIGHT, NIGHT_CLASSES, level_of, word_style
from .differences import HEIGHT, WIDTH, Difference, pairs, strip
from .legend import MEASURES, meaning
from .pictures import heat_map, png, resized, save
from .samples import class_marks, sample_columns, sample_name
from .values import checked_scale, clean, leanings, outcome, signed, tokens, verified_line
from .words import runs

# By hand: pages of Plotly or Bokeh carry megabytes of script, are empty without it, and are not accessible.
ASSETS = Path(__file__).parent / "templates"

MOST_WORDS = (
    20_000  # words that are listed with their values below their texts: twice the page, hardly looked at beyond
)

MOST_PATCHES = 10_000

SIZES = ((1, 640), (60, 336), (300, 192), (float("inf"), 112))  # pixels of the pictures on a page of so many


@dataclass(frozen=True)
class Table:
    """Ready strings; each row has as many cells as the header, and its first cell names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture in a PNG file."""

    title: str
    png: bytes
    says: str
    """What it shows, for those who do not see it."""
    note: str = ""


def write_page(
    path,
    *,
    title: str,
    intro: str = "",
    figures: Sequence[Figure] = (),
    measures: bool = False,
    tables: list[Table] = (),
    differences: Sequence[Difference] = (),
    images: list[ImageImportance] = (),
    texts: list[TextImportance] = (),
    fitted: bool = False,
    quality: str = "",
    softening: float = 0.0,
    pages: Sequence[Path] = (),
    start: int = 0,
) -> Path:
    """Write one HTML file of figures, tables and results; return its path. It needs no network and no scripts to be read.

    A blank line in `intro` starts a paragraph. `measures`: whether to say what the measures of channels mean. `differences` are
    drawn below the tables. Two or more results get a sortable table; two or more atoms a map, with the pairs' rest distances,
    and histograms. `fitted`: see `legend.meaning`; `quality`: a sentence on how good the importance is; `softening`: of the
    energy (`AtomConfig.softening`), for the rest distances. `pages`: those of a set that this one is of, which it links to;
    `start`: how many results stand on the pages before it.

    AtomError: nothing to show, or a table or result that does not fit.
    """
    if not (figures or tables or images or texts):
        raise AtomError("write_page: tables, images and texts are all empty; give at least one table or result")
    for table in tables:
        if odd := [len(row) for row in table.rows if len(row) != len(table.header)]:
            raise AtomError(f"table {table.caption!r}: {len(table.header)} cells in the header but {odd[0]} in a row")
    scale = checked_scale(images, texts)
    results = [*images, *texts]
    show = {"title": title, "intro": intro, "tables": tables, "differences": differences}
    show |= {"figures": figures, "measures": MEASURES if measures else (), "scale": scale, "meaning": meaning(fitted)}
    show["charges"] = len(results) > 1 and any(result.atom is not None for result in results)
    show["fitted"], show["quality"], show["start"] = fitted, quality, start
    show["pages"] = (
        [(number, each.name, each == Path(path)) for number, each in enumerate(pages, 1)] if pages[1:] else []
    )
    show["absent"] = any(np.isnan(np.asarray(image.importance)).any() for image in images)
    show["unseen"] = any(image.box is not None for image in images)
    show["samples"] = sample_columns(results) if len(results) > 1 else []
    show["missed"] = [bool(outcome(result)[0]) for result in results]
    show["names"] = [sample_name(result, number) for number, result in enumerate(results, start + 1)]
    show["known"] = sum(bool(result.label and result.predicted) for result in results)
    show |= _atoms(results, softening)
    show["images"] = _bar([*enumerate(images, 1)], "pictures")
    show["texts"] = _bar([*enumerate(texts, len(images) + 1)], "texts")
    show["counts"] = len(images), len(texts)
    show["size"] = next(size for most, size in SIZES if len(images) <= most)
    show["listed_patches"] = sum(np.size(image.importance) for image in images) <= MOST_PATCHES
    show["listed"] = sum(len(text.words) for text in texts) <= MOST_WORDS
    return save(path, TEMPLATES.get_template("page.html.j2").render(show).encode())


def _bar(numbered: list, what: str):
    return tqdm(numbered, desc=what, unit="sample", leave=False) if len(numbered) > 100 else numbered


def _atoms(results: list, softening: float) -> dict:
    """The map of the atoms with its plots, and the histograms; of no atoms, the histogram of importance alone."""
    owners = [i for i, result in enumerate(results) if result.atom is not None and result.atom.radius >= 0]
    values = np.concatenate([tokens(result) for result in results]) if results else np.zeros(0)
    plots = [charts.histogram("Importance of tokens", values, -1, 1, "importance", bins=40)] if len(results) > 1 else []
    if len(owners) < 2:
        return {"atoms": None, "near": {}, "plots": [plot for plot in plots if plot]}
    found = map_atoms([results[i].atom for i in owners], softening)
    plots += [
        charts.histogram(name, part, 0, float(part.max()), "units of the positions")
        for name, part in (("Radius of atoms", found.radius), ("Distance of pairs", found.distance))
    ]
    groups = class_marks([results[i] for i in owners])
    few = len(owners) <= charts.MOST_NEAR
    of_results = {owners[int(atom)]: spot for spot, atom in enumerate(found.index)} if few else {}
    near = {
        owner: [(owners[int(found.index[j])], f"{distance:#.3g}", kind) for j, distance, kind in found.neighbours[spot]]
        for owner, spot in of_results.items()
    }
    return {
        "near": near,
        "atoms": found,
        "all_atoms": len(owners),
        "map": charts.drawing(found),
        "owner": owners,
        "groups": groups,
        "rests": charts.scatter(found),
        "edges": {kind: sum(edge[2] == kind for edge in found.nearest) for kind in ("closer", "further", "repels")},
        "plots": [plot for plot in plots if plot],
    }


def _data(image) -> str:
    return base64.b64encode(image if isinstance(image, bytes) else png(image)).decode()


# finalize sees all that the template prints; what its own macros made is known by __html__.
TEMPLATES = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, finalize=clean)

TEMPLATES.trim_blocks = TEMPLATES.lstrip_blocks = True

TEMPLATES.globals.update(outcome=outcome, resized=resized, heat_map=heat_map, word_style=word_style, levels=LEVELS)

TEMPLATES.globals.update(data=_data, runs=runs, signed=signed, level_of=level_of, charts=charts, night=NIGHT)

TEMPLATES.globals.update(leanings=leanings, verified_line=verified_line)

TEMPLATES.globals.update(strip=strip, pairs=pairs, strip_size=(WIDTH, HEIGHT))

TEMPLATES.globals.update(colours=list(zip(CLASSES, NIGHT_CLASSES, strict=True)))

# Only this very script may run on the page, and nothing may be fetched: whatever else slips in is dead.
SCRIPT = (ASSETS / "page.js").read_text(encoding="utf-8")

TEMPLATES.globals["script"] = Markup(SCRIPT)

TEMPLATES.globals["script_hash"] = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
