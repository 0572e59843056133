"""Write a page and its pictures beside it."""

from collections.abc import Sequence
from pathlib import Path

from ..importance.results import ImageImportance, TextImportance
from .atoms_picture import write_atoms
from .differences import Difference, write_differences
from .page import Figure, Table, write_page
from .pictures import write_sheet, write_words


def write_files(
    path: str | Path,
    *,
    title: str,
    intro: str = "",
    tables: Sequence[Table] = (),
    differences: Sequence[Difference] = (),
    figures: Sequence[Figure] = (),
    images: Sequence[ImageImportance] = (),
    texts: Sequence[TextImportance] = (),
    softening: float = 0.0,
    fitted: bool = False,
    quality: str = "",
    pages: Sequence[Path] = (),
    start: int = 0,
    pictured: bool = True,
) -> list[Path]:
    """Writes a page, and beside it a PNG of its samples, one of their atoms where there are two or more, and one of its
    differences.

    Returns what it wrote, the page first. The arguments are those of `write_page`; `pictured`: whether to write the PNGs.
    """
    shown = {"images": images, "texts": texts, "softening": softening, "fitted": fitted, "quality": quality}
    results = {"tables": tables, "differences": differences, "figures": figures, "pages": pages, "start": start}
    written = [page := write_page(path, title=title, intro=intro, **results, **shown)]
    if not pictured:
        return written
    if images:
        written.append(write_sheet(page.with_suffix(".png"), images, fitted=fitted))
    elif texts:
        written.append(write_words(page.with_suffix(".png"), texts, fitted=fitted))
    if sum(result.atom is not None for result in (*images, *texts)) > 1:
        written.append(write_atoms(page.with_suffix(".atoms.png"), [*images, *texts], softening=softening))
    if differences:
        written.append(write_differences(page.with_suffix(".differences.png"), differences, title=title))
    return written
