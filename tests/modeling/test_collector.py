"""Collected forward passes: which are read, how they are joined, and that nothing of it stays with the model."""

import pytest
import torch

from atom_hf.modeling.collector import AtomCollector, collecting, reading_once, reading_tokens, to_be_read
from helpers.models import attached, batch_for

NAN = float("nan")


def test_no_pass_joins_to_nothing_and_one_to_itself():
    collector = AtomCollector()
    assert collector.join() is None
    atoms, importance = torch.randn(2, 5), torch.randn(2, 3)
    collector.add(atoms, importance)
    assert collector.join()[0] is atoms and collector.join()[1] is importance


def test_passes_are_joined_row_by_row_and_padded_with_nan():
    passes = [(torch.randn(rows, 5), torch.randn(rows, length)) for rows, length in ((2, 3), (1, 4), (3, 2))]
    collector = AtomCollector()
    for one in passes:
        collector.add(*one)
    atoms, importance = collector.join()
    assert atoms.tolist() == [row for packed, _ in passes for row in packed.tolist()]
    expected = torch.tensor([row + [NAN] * (4 - len(row)) for _, part in passes for row in part.tolist()])
    torch.testing.assert_close(importance, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("always", [True, False])
def test_passes_are_collected_with_a_gradient_or_always(training, gradient, always):
    model = attached("bert").train(training)
    with torch.set_grad_enabled(gradient), collecting(model, always=always) as collector:
        outputs = model(**batch_for("bert"))
    wanted = always or gradient
    assert ("atoms" in outputs) == (collector.join() is not None) == wanted


def test_passes_after_the_last_that_is_wanted_have_no_atoms():
    model = attached("bert").train()
    with collecting(model, most=2) as collector:
        outputs = [model(**batch_for("bert", 2, start=start)) for start in (0, 2, 4)]
    assert ["atoms" in each for each in outputs] == [True, True, False]
    atoms, importance = collector.join()
    assert torch.equal(atoms, torch.cat([each.atoms for each in outputs[:2]])) and atoms.requires_grad
    assert len(importance) == 4 and not importance.requires_grad


@pytest.mark.parametrize("modes", [[True, False, True], [False, True, True], [True, True, False], [False, False]])
@pytest.mark.parametrize("most", [None, 1])
def test_passes_in_eval_mode_count_only_where_there_are_no_others(modes, most):
    model, passes = attached("bert"), []
    with collecting(model, most=most) as collector:
        for start, training in enumerate(modes):
            passes.append((training, model.train(training)(**batch_for("bert", 1, start=start))))
    counted = [outputs.atoms for training, outputs in passes if training == any(modes) and "atoms" in outputs]
    assert torch.equal(collector.join()[0], torch.cat(counted)) and len(counted) == (most or modes.count(any(modes)))


def test_collectors_nest_and_leave_nothing_behind():
    model = attached("bert").train()
    state = model._atom_forward_state
    with collecting(model) as outer:
        model(**batch_for("bert", 1))
        with pytest.raises(RuntimeError), collecting(model) as inner:
            model(**batch_for("bert", 2))
            raise RuntimeError
        assert state.collector is outer
        model(**batch_for("bert", 3))
    assert state.collector is None and len(inner.join()[0]) == 2 and len(outer.join()[0]) == 4


def test_an_inner_pass_is_not_read():
    model = attached("bert").train()
    assert to_be_read(model, None) and to_be_read(model, True) and not to_be_read(model, False)
    with pytest.raises(RuntimeError), reading_once(model, model.bert) as given:
        assert not to_be_read(model, True)
        assert "atoms" not in model(**batch_for("bert"))
        raise RuntimeError
    assert len(given) == 1 and "last_hidden_state" in given[0]
    assert to_be_read(model, None) and not model.bert._forward_hooks


def test_the_tokens_that_the_heads_read():
    model, batch = attached("bert").eval(), batch_for("bert")
    expected = model(**batch, output_hidden_states=True).hidden_states[model.atom_config.layer]
    with reading_tokens(model) as seen:
        model(**batch)
        model(**batch, return_atoms=True)
    model(**batch, return_atoms=True)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], expected)
