"""What is minimised, and what is said of a fit: the share of the changes of held-out samples that it explains."""

import numpy as np
import pytest
import torch

from atom_hf.explainer import descent
from atom_hf.explainer.objective import Objective
from helpers.explained import fitted, with_heads


@pytest.fixture
def fit(monkeypatch):
    """A model after a short fit, the share that it explains, and what `explained_each` was asked."""
    monkeypatch.setattr(descent, "STEPS", 100)
    asked = []
    kept = Objective.explained_each
    monkeypatch.setattr(
        Objective, "explained_each", lambda self, *args: asked.append((self, args[0])) or kept(self, *args)
    )
    torch.manual_seed(0)
    model = with_heads("vit")
    return model, fitted(model, "vit", sets=8), *asked[-1]


def naive_shares(objective, rows):
    """Sample by sample and set by set: 1 - squared errors / squared changes, beyond an equal share of each token."""
    masked, head, scale = objective.masked, objective.head, objective.scale.detach()
    left, total = np.zeros(2), np.zeros(2)
    for row in rows.tolist():
        real, classes = masked.real[row][None], masked.classes[row][None]
        with torch.no_grad():
            importance = head(masked.tokens[row].float()[None], real, classes)[0, :, :, 0]
        count = masked.mask[row].sum()
        for number, keep in enumerate(masked.keep[row]):
            strategy = int(masked.strategy[row, number])
            whole, change = masked.whole[row, strategy, 0], masked.change[row, number, 0]
            parts = importance[:, strategy] * masked.mask[row] * scale[strategy]
            phi = parts + (whole - parts.sum()) / count * masked.mask[row]
            unit = objective.unit[strategy]
            left[strategy] += float(((change - phi[keep].sum()) / unit) ** 2)
            total[strategy] += float(((change - whole * keep.sum() / count) / unit) ** 2)
    return 1 - left / total, 1 - left.sum() / total.sum()


def test_what_is_explained_under_each_strategy_is_kept_with_the_model(fit, tmp_path):
    model, found, objective, rows = fit
    each, both = naive_shares(objective, rows)
    assert model.atom_config.explainer_explained == pytest.approx(each.round(4), abs=2e-4)
    assert found.explained == pytest.approx(both, abs=1e-4) and abs(each[0] - each[1]) > 1e-3
    model.save_pretrained(tmp_path)
    again = type(model.atom_config).load(tmp_path / "atom_config.json")
    assert again.explainer_explained == model.atom_config.explainer_explained


def test_a_rough_guide_says_so(few_steps, caplog):
    model = with_heads("vit")
    found = fitted(model, "vit")
    assert found.explained < 0.1 and "take its importance for a rough guide" in caplog.text
