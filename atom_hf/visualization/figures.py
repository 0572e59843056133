"""Figures that are written to PNG files, all set up alike."""

from pathlib import Path
from typing import Any

from ..errors import AtomError
from ..utils.files import write_atomically


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes [rows, columns]. Raises `AtomError` without Matplotlib.

    Args:
        **options: passed on to `Figure.subplots` (sharex, sharey, ...).
    """
    try:  # neither pyplot nor its state is needed to write a file
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AtomError("figures need matplotlib: pip install 'atom-hf[study]' or 'atom-hf[faithfulness]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a PNG that is the same for the same figure: without the version of Matplotlib in it."""
    options = {"dpi": 110, "format": "png", "metadata": {"Software": None}}
    return write_atomically(path, lambda file: figure.savefig(file, **options))
