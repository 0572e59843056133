"""What a fitted explainer says of a sample beside its importance, on a small BERT that tells two kinds of texts apart."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from atom_hf.explainer.fit import fit_explainer, make_maskers
from atom_hf.modeling.explaining import explaining
from helpers.models import make_tokenizer, tiny

LENGTH = 10


def sentences(count, seed):
    """Texts of two classes, (ids, classes): most of their words are of their class, the others of either."""
    words = np.arange(75, len(make_tokenizer()))
    own = words[:20], words[20:40]
    rng = np.random.default_rng(seed)
    classes = rng.integers(2, size=count)
    ids = np.stack([rng.choice(own[c], LENGTH) for c in classes])
    shared = rng.choice(words[40:60], (count, LENGTH))
    ids = np.where(rng.random((count, LENGTH)) < 0.4, shared, ids)
    return inputs_of(ids), torch.tensor(classes)


def mixed(count, seed):
    """Texts that take their words in turn from a text of each class."""
    ids, classes = sentences(4 * count, seed)
    rows = [ids["input_ids"][classes == number][:count, 1:-1] for number in range(2)]
    return inputs_of(torch.where(torch.arange(LENGTH) % 2 == 0, *rows).numpy())


def inputs_of(ids):
    tokenizer = make_tokenizer()
    marks = [np.full((len(ids), 1), number) for number in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
    ids = torch.tensor(np.concatenate([marks[0], ids, marks[1]], 1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="module")
def model():
    model = attach_atoms(tiny("bert", initializer_range=0.05), AtomConfig(), make_tokenizer())
    inputs, classes = sentences(256, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for start in torch.arange(0, 256, 32).repeat(3):
        part = slice(int(start), int(start) + 32)
        loss = model(**{k: v[part] for k, v in inputs.items()}, labels=classes[part], return_atoms=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    batches = [{k: v[start : start + 32] for k, v in inputs.items()} for start in range(0, 192, 32)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atom_hf.explainer.descent.STEPS", 200)
        patch.setattr("atom_hf.explainer.descent.BATCH", 32)
        fit_explainer(model, make_tokenizer(), batches, copies=1, sets=16)
    unseen, theirs = sentences(100, 1)
    assert (model(**unseen).logits.argmax(-1) == theirs).float().mean() > 0.95
    return model


def explained(model, inputs, **options):
    with torch.no_grad(), explaining(model, **options) as found:
        model(**inputs, return_atoms=True)
    return found[0]


@pytest.mark.promise("A sample that lies off what an explainer was fitted on has a high novelty.")
def test_texts_that_mix_the_words_of_two_classes_are_novel(model):
    usual, odd = (explained(model, inputs).novelty for inputs in (sentences(150, 2)[0], mixed(150, 3)))
    found = roc_auc_score([0] * 150 + [1] * 150, torch.cat([usual, odd]))
    assert found >= 0.8
    # Calibrated: one in ten of the usual ones is among the tenth that is most unusual.
    assert (usual > 0.9).float().mean() < 0.25 and abs(usual.mean() - 0.5) < 0.15


def test_what_is_explained_is_the_probability_with_everything_and_with_nothing(model):
    inputs, _ = sentences(40, 4)
    maskers = make_maskers(model, make_tokenizer())
    for masker in maskers:
        told = explained(model, inputs, strategy=masker.strategy)
        with torch.no_grad():
            shown = model(**inputs).logits.softmax(-1)
            nothing = model(**masker(inputs, torch.zeros_like(inputs["input_ids"], dtype=torch.bool))).logits.softmax(
                -1
            )
        classes = shown.argmax(-1, keepdim=True)
        torch.testing.assert_close(told.everything, shown.gather(1, classes)[:, 0])
        # Texts of one length have one input of nothing.
        torch.testing.assert_close(told.nothing, nothing.gather(1, classes)[:, 0], atol=0.02, rtol=0)
        torch.testing.assert_close(told.gap, told.everything - told.nothing - told.parts)


def test_words_of_the_predicted_class_are_important_and_words_of_both_are_not(model):
    inputs, classes = sentences(60, 7)
    words = inputs["input_ids"]
    own = torch.where(classes[:, None] == 0, (words >= 75) & (words < 95), (words >= 95) & (words < 115))
    shared = words >= 115
    for strategy in ("mask", "drop"):
        importance = explained(model, inputs, strategy=strategy).importance
        assert roc_auc_score(own[own | shared], importance[own | shared]) > 0.7


def test_another_class_and_another_strategy_are_explained_by_their_own_importance(model):
    inputs, _ = sentences(60, 5)
    usual = explained(model, inputs)
    torch.testing.assert_close(usual.importance[:, 1:-1], model.atom_importance(**inputs)[:, 1:-1])
    classes = 1 - model(**inputs).logits.argmax(-1)
    other = explained(model, inputs, classes=classes)
    # Of two classes one gains what the other loses.
    pairs = (told.importance[:, 1:-1].flatten().numpy() for told in (usual, other))
    assert np.corrcoef(*pairs)[0, 1] < -0.8
    dropped = explained(model, inputs, strategy="drop").importance
    assert not torch.allclose(dropped, usual.importance, atol=1e-3)


def test_all_of_it_is_saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, (inputs, _) = load_atom_model(tmp_path).eval(), sentences(8, 6)
    for strategy in ("mask", "drop"):
        for mine, theirs in zip(*(explained(each, inputs, strategy=strategy) for each in (model, loaded)), strict=True):
            assert torch.equal(mine, theirs)
