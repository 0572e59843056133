"""Plots as numbers: bars, ticks and points where the values say."""

import numpy as np
import pytest

from atom_hf.visualization import charts
from atom_hf.visualization.atoms_map import map_atoms
from helpers.importances import atom, random_atoms


def test_bars_are_as_tall_as_their_counts():
    values = np.random.default_rng(0).normal(size=500).clip(-1, 1)
    plot = charts.histogram("Charge", values, -1, 1, "importance", bins=20)
    counts, _ = np.histogram(values, 20, (-1, 1))
    assert sum(int(bar[4].split()[0]) for bar in plot.bars) == 500
    by_place = {round(bar[0] / charts.WIDTH * 20): bar for bar in plot.bars}
    for place, count in enumerate(counts):
        _, y, wide, tall, says, sign = by_place[place]
        assert tall == pytest.approx(count / counts.max() * charts.HEIGHT, abs=0.01)
        assert y + tall == pytest.approx(charts.HEIGHT, abs=0.02) and 0 < wide < charts.WIDTH / 20
        assert sign == (1 if place >= 10 else -1) and says.startswith(f"{count:,} from")
    assert plot.median == pytest.approx((np.median(values) + 1) / 2 * charts.WIDTH)
    assert dict((name, at) for at, name in plot.x_ticks)["0"] == charts.WIDTH / 2
    assert "500 values" in plot.says and "median" in plot.says


def test_a_histogram_of_one_value_or_none():
    assert charts.histogram("Radius", np.array([np.nan, np.inf]), 0, 1, "") is None
    plot = charts.histogram("Radius", np.zeros(3), 0, 0, "")
    assert len(plot.bars) == 1 and plot.bars[0][4].startswith("3 from")


@pytest.mark.parametrize("low, high", [(0, 1), (-1, 1), (0.03, 0.07), (0, 12345), (5, 5.001)])
def test_ticks_are_round_and_inside(low, high):
    found = charts.ticks(low, high, 4)
    assert 2 <= len(found) <= 9 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    steps = np.diff(found)
    assert steps == pytest.approx(steps[0]) and float(f"{steps[0]:.0e}") == pytest.approx(steps[0])


@pytest.mark.parametrize("low, high", [(-3, 4), (0.1, 0.4), (0, 1), (1.001, 1.2)])
def test_log_ticks_are_inside(low, high):
    found = charts.log_ticks(low, high)
    assert found and len(found) <= 9 and all(low <= np.log10(tick) <= high for tick in found)


def test_the_scatter_sorts_pairs_by_the_diagonal():
    atoms = map_atoms(random_atoms(40, width=2))
    plot = charts.scatter(atoms)
    rests = np.isfinite(atoms.rest)
    assert plot.closer == sum(d < r for d, r in zip(atoms.distance[rests], atoms.rest[rests], strict=True))
    assert plot.closer + plot.further + plot.repels == len(atoms.rest) == 40 * 39 // 2
    assert plot.shown == rests.sum() and 0 < len(plot.points) <= plot.shown
    x1, y1, x2, y2 = plot.diagonal
    assert {"closer", "further"} == {kind for *_, kind in plot.points}
    for x, y, kind in plot.points:
        # Right of the line through the diagonal's ends is "closer".
        side = (x - x1) * (y2 - y1) - (y - y1) * (x2 - x1)
        assert abs(side) < 400 or (side < 0) == (kind == "closer")
        assert 0 <= x <= charts.SIDE and 0 <= y <= charts.TALL


def test_the_scatter_draws_no_more_than_it_says():
    plot = charts.scatter(map_atoms(random_atoms(150, width=4)))
    assert plot.shown == charts.MOST_POINTS < plot.closer + plot.further
    assert charts.scatter(map_atoms([atom(0.5, 0.1, [i, 0], 1) for i in range(4)])) is None


def test_the_drawing_keeps_proportions():
    atoms = map_atoms(random_atoms(9, width=2))
    drawn = charts.drawing(atoms)
    places = np.array([spot[:2] for spot in drawn.spots])
    assert (places >= 0).all() and (places <= [drawn.width, drawn.height]).all()
    unit = drawn.spots[0][2] / atoms.radius[0]
    for i, j, _ in atoms.nearest:
        flat = np.linalg.norm(atoms.spots[i] - atoms.spots[j]) * unit
        assert np.linalg.norm(places[i] - places[j]) == pytest.approx(flat, abs=0.3, rel=0.02)
    length, says = drawn.ruler
    assert length / float(says) == pytest.approx(unit, rel=0.02) and 0 < length < drawn.width / 2


@pytest.mark.parametrize("centers", [[[0, 0], [0, 0]], [[0, 0], [5, 0]], [[0, 0], [0, 7]]])
@pytest.mark.parametrize("radius", [0.0, 3.0])
def test_the_drawing_of_a_line_or_a_point(centers, radius):
    drawn = charts.drawing(map_atoms([atom(0.5, 0.1, center, radius) for center in centers]))
    numbers = [number for spot in drawn.spots for number in spot[:3]]
    assert np.isfinite(numbers).all() and drawn.height < 700
