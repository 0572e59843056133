"""The explainer of classes, labels and numbers, on models trained for them: it finds the word that masking by hand finds."""

import copy

import pytest
import torch

from atom_hf import AtomConfig, AtomError, attach_atoms, load_atom_model
from atom_hf.explainer import descent
from atom_hf.explainer.fit import fit_explainer
from atom_hf.modeling.targets import output_values
from helpers import trained
from helpers.models import make_tokenizer

TOKENIZER = make_tokenizer()


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(descent, "STEPS", 400)


def fitted(model):
    model = attach_atoms(copy.deepcopy(model), AtomConfig(), TOKENIZER)
    batches = [trained.inputs_of(trained.texts(32, seed)[0]) for seed in range(500, 508)]
    found = fit_explainer(model, TOKENIZER, batches, copies=4, sets=8)
    assert found.explained > 0.3
    return model


def by_hand(model, ids, number):
    """The change of a value by masking each token: [B, N], 0 for special ones."""
    with torch.no_grad():
        whole = output_values(model(**trained.inputs_of(ids)).logits, model.config)[:, number]
        changes = torch.zeros(ids.shape)
        for place in range(1, ids.shape[1] - 1):
            masked = ids.clone()
            masked[:, place] = TOKENIZER.mask_token_id
            changes[:, place] = (
                whole - output_values(model(**trained.inputs_of(masked)).logits, model.config)[:, number]
            )
    return changes


def strongest(values):
    return values.nan_to_num().abs().argmax(1)


def agreement(truth, importance):
    """How often the strongest token is that of masking by hand, and has its sign, where that changes anything."""
    rows = truth.abs().amax(1) > 0.2
    places = strongest(truth)[rows]
    same = strongest(importance)[rows] == places
    signs = importance[rows].gather(1, places[:, None]).sign() == truth[rows].gather(1, places[:, None]).sign()
    assert rows.sum() >= 12
    return float((same & signs[:, 0]).float().mean())


def test_any_class_by_its_name_or_its_place(tmp_path):
    model = fitted(trained.classifier())
    ids, chosen, _ = trained.texts(48, seed=999)
    inputs = trained.inputs_of(ids)
    own = model.atom_importance(**inputs)
    each = model.atom_importance(**inputs, target=[f"key {number}" for number in chosen])
    torch.testing.assert_close(own, each, equal_nan=True)
    torch.testing.assert_close(own, model.atom_importance(**inputs, target=chosen), equal_nan=True)
    values, truths = [], []
    for number in range(trained.KEYS):
        found = model.atom_importance(**inputs, target=f"key {number}")
        assert torch.equal(found.nan_to_num(), model.atom_importance(**inputs, target=number).nan_to_num())
        rows = chosen == number
        torch.testing.assert_close(found[rows], own[rows], equal_nan=True)
        values.append(found)
        truths.append(by_hand(model, ids, number))
    assert agreement(torch.cat(truths), torch.cat(values)) > 0.6
    model.save_pretrained(tmp_path)
    loaded = load_atom_model(tmp_path)
    torch.testing.assert_close(loaded.atom_importance(**inputs, target="key 3"), found, equal_nan=True)
    for target, says in (
        ("key 4", "no class of the model; give one of key 0"),
        (4, "an index below 4"),
        (True, "True"),
    ):
        with pytest.raises(AtomError, match=says):
            model.atom_importance(**inputs, target=target)
    with pytest.raises(AtomError, match="target: 2 for 48 samples"):
        model.atom_importance(**inputs, target=["key 1", "key 2"])


def test_each_label_of_several():
    model = fitted(trained.of_labels())
    ids, _, _ = trained.texts(96, seed=999)
    for number in range(3):
        found = model.atom_importance(**trained.inputs_of(ids), target=f"LABEL_{number}")
        assert agreement(by_hand(model, ids, number), found) > 0.6


def test_the_number_of_a_regression(tmp_path):
    model = fitted(trained.regression())
    ids, _, _ = trained.texts(48, seed=999)
    found = model.atom_importance(**trained.inputs_of(ids))
    assert agreement(by_hand(model, ids, 0), found) > 0.6
    assert torch.equal(found.nan_to_num(), model.atom_importance(**trained.inputs_of(ids), target=0).nan_to_num())
    model.save_pretrained(tmp_path)
    loaded = load_atom_model(tmp_path)
    torch.testing.assert_close(loaded.atom_importance(**trained.inputs_of(ids)), found, equal_nan=True)
