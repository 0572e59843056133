"""Parameters made random from the top of a model to its bottom."""

import pytest
import torch

from atom_hf import AtomConfig, AtomError, attach_atoms
from atom_hf.faithfulness.randomization import cascade, randomized
from helpers.models import batch_for, make_tokenizer, tiny


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2-classifier", "vit"])
def test_groups_go_from_the_output_to_the_input(name):
    model = attach_atoms(tiny(name), AtomConfig(layer=-1), make_tokenizer())
    groups = cascade(model)
    assert [level for level, _ in groups] == ["top", "layer 2", "layer 1", "embeddings"]
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    held = [{names[id(parameter)] for parameter in group} for _, group in groups]
    assert sorted(key for part in held for key in part) == sorted(names.values())  # each once
    assert {key for key in names.values() if key.startswith("atom_heads.")} <= held[0]
    assert any(key.startswith(("classifier", "score")) for key in held[0])
    assert all("embed" in key or "wte" in key or "wpe" in key for key in held[3])
    assert not any("embed" in key for part in held[:3] for key in part)


def test_each_step_makes_one_more_group_random_and_in_the_end_all_is_as_it_was():
    model = attach_atoms(tiny("bert").eval(), AtomConfig(layer=-1), make_tokenizer())
    inputs = batch_for("bert")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    logits = model(**inputs).logits
    with randomized(model, seed=3) as levels:
        for step, _ in enumerate(levels):
            changed = [
                any(not torch.equal(p, before[key]) for key, p in _of(model, group)) for _, group in cascade(model)
            ]
            assert changed == [True] * (step + 1) + [False] * (3 - step)
        for key, value in model.named_parameters():
            if value.numel() > 500:  # drawn with its own mean and spread
                torch.testing.assert_close(value.std(), before[key].std(), rtol=0.15, atol=0)
        assert not torch.allclose(model(**inputs).logits, logits)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError), randomized(model) as levels:
        next(levels)
        raise RuntimeError
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _of(model, group):
    ids = {id(parameter) for parameter in group}
    return [(key, value) for key, value in model.named_parameters() if id(value) in ids]


def test_a_model_without_layers_is_rejected():
    with pytest.raises(AtomError, match="Linear has no stack of layers to make random one by one"):
        cascade(torch.nn.Linear(2, 2))
