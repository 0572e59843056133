"""Set-up and files of figures."""

import sys

import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.visualization.figures import new_figure, save_figure


def test_a_figure_is_written_as_the_same_png_each_time(tmp_path):
    files = []
    for name in ("one.png", "other.png"):
        figure, axes = new_figure(3, 2, 2, 1, sharex=True)
        assert axes.shape == (2, 1)
        axes[0][0].plot([0, 1], [1, 0])
        files.append(save_figure(figure, tmp_path / name))
    with Image.open(files[0]) as opened:
        assert (opened.format, opened.size) == ("PNG", (330, 220)) and "Software" not in opened.info
    assert files[0].read_bytes() == files[1].read_bytes()
    assert new_figure(1, 1)[1].shape == (1, 1)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AtomError, match=r"figures need matplotlib: pip install 'atom-hf\[study\]'"):
        new_figure(1, 1)
