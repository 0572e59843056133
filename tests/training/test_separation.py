"""The separation form in a training step: gradients against the definition, written out in plain torch, and what it keeps."""

import pytest
import torch
from torch.nn import functional as F

from atom_hf import AtomConfig, AtomError, Atoms, attach_atoms, load_atom_model
from atom_hf.atoms.forms import FORMS
from atom_hf.atoms.loss import HEADS_ALONE, HEADS_WEIGHT, atom_loss
from helpers.exactness import compare
from helpers.models import batch_for, make_tokenizer, rows_for, tiny
from helpers.training import Gradients, make, train

FORM = {"atom": True, "atom_form": "separation", "atom_schedule": "constant"}
ROWS, WEIGHT = 16, 3.0
ONE_STEP = {**FORM, "atom_weight": WEIGHT, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd"}
MODELS = ["bert", "gpt2-classifier", "vit"]


def features(name, model, batch, hidden):
    """[B, h]: what the output layer of each kind of model reads."""
    if name == "bert":
        return model.bert.pooler(hidden[-1])
    if name == "vit":
        return model.vit.layernorm(hidden[-1])[:, 0]
    return hidden[-1][torch.arange(len(hidden[-1])), batch["attention_mask"].sum(1) - 1]


def separation(x):
    """The energy of features [B, h], pair by pair: unit charges, distances in units of their root mean square."""
    p = F.layer_norm(x, x.shape[-1:]) / x.shape[-1] ** 0.5
    pairs = [(a, b) for a in range(len(p)) for b in range(len(p)) if a != b]
    squared = [(p[a] - p[b]).square().sum() for a, b in pairs]
    scale = torch.stack(squared).mean()
    return torch.stack([(d / scale + 0.1**2) ** -0.5 for d in squared]).mean()


def wide(batch):
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def definition(name, starts):
    """task + the mean over batches of WEIGHT * separation + the heads' own objective, by autograd.

    In float64, but for the heads: the rounding that is measured is then that of the step alone.
    """
    model = make(name, "unused", **ONE_STEP).model.train().double()
    config = model.atom_config
    total = 0
    ends = [*starts[1:], ROWS]
    for start, end in zip(starts, ends, strict=True):
        batch = wide(batch_for(name, end - start, start=start))
        outputs = model(**batch, output_hidden_states=True)
        hidden = outputs.hidden_states
        content = ~outputs.atom_importance.isnan()
        importance, position = model.atom_heads(hidden[config.layer].detach())
        heads = Atoms.from_tokens(importance, position, content, token_reduction="mean")
        own = atom_loss(heads, **HEADS_ALONE).loss
        total = total + WEIGHT * separation(features(name, model, batch, hidden)) + HEADS_WEIGHT * own
    loss = model(**wide(batch_for(name, ROWS, labels=True))).loss
    (loss + total / len(starts)).backward()
    return {key: value.grad for key, value in model.named_parameters() if value.grad is not None}


def first_step(name, folder, batches, **options):
    gradients = Gradients()
    sizes = {"per_device_train_batch_size": ROWS // batches, "gradient_accumulation_steps": batches}
    rows = rows_for(name)[:ROWS]
    make(name, folder, rows=rows, pieces={"callbacks": [gradients]}, **{**ONE_STEP, **sizes, **options}).train()
    return gradients.steps[0]


@pytest.mark.exactness
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_step(name, batches, tmp_path):
    expected = definition(name, list(range(0, ROWS, ROWS // batches)))
    what = f"separation form, {name}, {batches} of {ROWS // batches}"
    compare(
        what,
        "the mean of the batches' energies, pair by pair, by autograd",
        first_step(name, tmp_path, batches),
        expected,
    )


@pytest.mark.exactness
@pytest.mark.parametrize("name", MODELS)
def test_pairs_over_all_batches_of_a_step(name, tmp_path):
    found = first_step(name, tmp_path, 4, atom_pair_batch=ROWS)
    compare(
        f"separation form, cached pairs, {name}, 4 of 4", "one batch of 16, by autograd", found, definition(name, [0])
    )


def test_the_schedule_lets_go_of_the_model_and_the_heads_learn_on(tmp_path):
    trainer = train("bert", tmp_path, **{**FORM, "atom_schedule": "linear", "max_steps": 4})
    scales = [entry["atom_gradient_scale"] for entry in trainer.state.log_history if "atom_gradient_scale" in entry]
    assert scales == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_the_form_is_saved_and_stays(tmp_path):
    trainer = train("vit", tmp_path / "run", **FORM)
    trainer.save_model(tmp_path / "model")
    model = load_atom_model(tmp_path / "model")
    assert model.atom_config.form == "separation" and model.atom_config.tokens == "read"
    # Trained on with arguments of the other form, the model keeps its own, and what its form sets.
    again = make("vit", tmp_path, model=model, atom=True, atom_form="paper")
    config = again.model.atom_config
    assert {name: getattr(config, name) for name in FORMS["separation"]} == FORMS["separation"]
    asked = make(
        "vit", tmp_path, model=load_atom_model(tmp_path / "model"), atom=True, atom_form="paper", atom_weight=0.7
    )
    assert asked.model.atom_config.weight == 0.7 and asked.model.atom_config.weighting == "absolute"


@pytest.mark.parametrize("form", FORMS)
def test_a_form_sets_what_is_not_given(form):
    config = AtomConfig(form=form)
    assert {name: getattr(config, name) for name in FORMS[form]} == FORMS[form]
    assert AtomConfig(form=form, weight=0.25, tokens="all").weight == 0.25
    assert AtomConfig.from_dict(config.to_dict()) == config


def test_an_unknown_form():
    with pytest.raises(AtomError, match="form must be 'paper' or 'separation'; got 'coulomb'"):
        AtomConfig(form="coulomb")


def test_importance_is_read_as_before():
    model = attach_atoms(tiny("bert"), AtomConfig(form="separation"), make_tokenizer())
    batch = batch_for("bert", 4)
    with torch.no_grad():
        hidden = model.eval()(**batch, output_hidden_states=True).hidden_states[-2]
        expected = model.atom_heads(hidden)[0]
    found = model.atom_importance(**batch)
    content = ~found.isnan()
    assert content.any() and torch.equal(found[content], expected[content])
