"""The study of what makes an explainer faithful: its parts against naive versions, and its page against its results."""

import itertools
import math
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from atom_hf.atoms.novelty import pooled
from atom_hf.explainer.masked_samples import MaskedSamples, draw_sets, joined
from atom_hf.explainer.objective import Objective
from atom_hf.utils.jsonl import read_lines
from helpers.paths import ROOT

HERE = ROOT / "recipes" / "faithfulness"


@pytest.fixture(scope="module")
def steps():
    """The modules of the recipe, which import one another by their bare names."""
    sys.path.insert(0, str(HERE))
    # Other recipes have modules of these names.
    others = {name: sys.modules.pop(name) for name in ("run", "steps", "steps_report") if name in sys.modules}
    before = set(sys.modules)
    try:
        import steps
        import steps_report

        yield steps, steps_report
    finally:
        sys.path.remove(str(HERE))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(HERE) in sys.modules[name].__file__:
                del sys.modules[name]
        sys.modules.update(others)


def game(count=2, tokens=5, sets=400):
    """Items whose value of a set is known: numbers of the tokens, and one more for a pair of them."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(count, tokens, dtype=torch.bool)
    mask[1, 4] = False
    numbers = torch.randn(count, 2, tokens, generator=generator) * mask[:, None]
    keep = draw_sets(mask, sets, generator)
    strategy = (torch.arange(sets) // 2 % 2).expand(count, -1)

    def value(item, which, kept):
        return float(numbers[item, which] @ kept.float()) + 0.7 * bool(kept[0] and kept[1])

    change = torch.tensor([[[value(i, int(strategy[i, k]), keep[i, k])] for k in range(sets)] for i in range(count)])
    whole = torch.tensor([[[value(i, s, mask[i])] for s in range(2)] for i in range(count)])
    flat = dict(classes=torch.zeros(count, 1, dtype=torch.long), values=torch.ones(count, 2) / 2)
    rest = dict(
        sample=torch.arange(count), copy=torch.zeros(count, dtype=torch.long), nothing=torch.ones(count, 2, 2) / 2
    )
    tokens = torch.randn(count, 3, tokens, 8, generator=generator).half()
    items = MaskedSamples(
        tokens=tokens, mask=mask, real=mask, keep=keep, strategy=strategy, change=change, whole=whole, **flat, **rest
    )
    return items, value


def test_shapley_values_are_those_of_all_orders(steps):
    items, value = game()
    found = steps[0].shapley_values(items)
    for item, which in itertools.product(range(2), range(2)):
        places = items.mask[item].nonzero()[:, 0].tolist()
        expected = torch.zeros(5)
        for order in itertools.permutations(places):
            kept = torch.zeros(5, dtype=torch.bool)
            for place in order:
                before = value(item, which, kept)
                kept[place] = True
                expected[place] += (value(item, which, kept) - before) / math.factorial(len(places))
        torch.testing.assert_close(found[item, :, which], expected, atol=0.05, rtol=0)


def test_the_shapley_values_explain_most_and_rank_as_themselves(steps):
    items, _ = game()
    truth = steps[0].shapley_values(items)
    best, worst = (steps[0].judged(parts, truth, items) for parts in (truth, -truth))
    for its, others in zip(best, worst, strict=True):
        assert its["explained"] > 0.7 > 0 > others["explained"]
        assert its["ranks"] == [1.0, 1.0] and others["ranks"] == [-1.0, -1.0] and its["gap"] < 1e-4


def test_strategies_taken_for_one_leave_what_is_beyond_an_equal_share(steps):
    items, _ = game()
    one = steps[0].as_one(items)
    assert one.whole.shape == (2, 1, 1) and not one.strategy.any()
    for item, number in itertools.product(range(2), range(0, 400, 37)):
        share = int(items.keep[item, number].sum()) / int(items.mask[item].sum())
        beyond = [
            float(part.change[item, number, 0]) - float(part.whole[item, part.strategy[item, number], 0]) * share
            for part in (items, one)
        ]
        assert beyond[0] == pytest.approx(beyond[1], abs=1e-5)


def test_a_part_has_what_its_step_says(steps):
    items, _ = game()
    step = {"samples": 1, "copies": 1, "sets": 8, "classes": 1, "layers": "own", "outputs": "strategy"}
    step["choice"] = "any"
    part = steps[0].part_of(items, step, 1)
    assert len(part) == 1 and part.keep.shape == (1, 8, 5) and torch.equal(part.tokens[:, 0], items.tokens[:1, 1])
    whole = steps[0].part_of(items, {**step, "layers": "mix", "samples": 5}, 1)
    assert torch.equal(whole.tokens, items.tokens)


def test_the_objective_is_the_formula(steps):
    """FastSHAP's loss by hand, of a head whose importances are given."""
    items, _ = game(sets=8)

    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.outer = torch.nn.Linear(1, 1)
            self.importance = torch.rand(2, 5, 2, 1, generator=torch.Generator().manual_seed(1))

        def forward(self, tokens, real, classes, dropout):
            return self.importance

    head = Given()
    objective = Objective(head, items, torch.arange(2))
    with torch.no_grad():
        error, gap = objective(torch.arange(2))
        scale = objective.scale.clone()
    for item in range(2):
        count = int(items.mask[item].sum())
        for which in range(2):
            unit = float(objective.unit[which])
            phi = [
                float(scale[which] * q * m)
                for q, m in zip(head.importance[item, :, which, 0], items.mask[item], strict=True)
            ]
            missing = float(items.whole[item, which, 0]) - sum(phi)
            assert float(gap[item, which, 0]) == pytest.approx((missing / unit) ** 2, rel=1e-4)
            for number in range(8):
                if items.strategy[item, number] != which:
                    continue
                kept = [place for place in range(5) if items.keep[item, number, place]]
                told = sum(phi[place] + missing / count for place in kept)
                off = (float(items.change[item, number, 0]) - told) / unit
                assert float(error[item, number, 0]) == pytest.approx(off**2, rel=1e-3, abs=1e-5)


def test_the_page_is_that_of_the_results(steps):
    study = yaml.safe_load((HERE / "steps.yaml").read_text(encoding="utf-8"))
    page = HERE / "steps" / "README.md"
    lines = read_lines(HERE / "steps" / "results.jsonl")
    known = {step["name"] for step in (*study["steps"], *study["variants"])} | {steps[1].SHAPLEY}
    assert {line["step"] for line in lines} <= known and {line["setting"] for line in lines} <= set(study["settings"])
    written = page.read_text(encoding="utf-8")
    assert steps[1].text(study, lines) == written


def test_samples_are_chosen_by_entropy_and_by_distance(steps):
    items, _ = game(count=2)
    items.sample, items.values = torch.tensor([4, 7]), torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    assert [steps[0].chosen(items, 1, how).tolist() for how in ("any", "unsure", "apart")] == [[4], [7], [4]]
    places = pooled(items.tokens[:, -1].repeat(3, 1, 1) * torch.arange(1, 7)[:, None, None], items.real.repeat(3, 1))
    six = joined([replace(items, sample=items.sample + 10 * number) for number in range(3)])
    six.tokens[:, -1] = items.tokens[:, -1].repeat(3, 1, 1) * torch.arange(1, 7)[:, None, None]
    taken = [0]
    while len(taken) < 3:
        near = [min(float((place - places[t]).norm()) for t in taken) for place in places]
        taken.append(near.index(max(near)))
    assert steps[0].chosen(six, 3, "apart").tolist() == six.sample[taken].tolist()
