"""The competitors of the atom loss: each against its formula in loops, and within a step of training."""

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from atom_hf import AtomConfig, AtomError, AtomTrainer, attach_atoms
from atom_hf.experiments.regularizers import (
    StudyTrainer,
    StudyTrainingArguments,
    collecting_latents,
    dispersive_loss,
    output_layer,
    r_drop_divergence,
    supervised_contrastive_loss,
    uniformity_loss,
)
from helpers.models import TEXT, TINY, batch_for, collator_for, make_tokenizer, rows_for, tiny
from helpers.training import arguments


def naive_supcon(latent, labels, temperature):
    """L_out, averaged over the anchors that have a positive."""
    z = [row / (row * row).sum() ** 0.5 for row in latent]
    losses = []
    for i, anchor in enumerate(z):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        if not positives:
            continue
        total = sum(((anchor * z[a]).sum() / temperature).exp() for a in others)
        terms = [(((anchor * z[p]).sum() / temperature).exp() / total).log() for p in positives]
        losses.append(-sum(terms) / len(positives))
    return sum(losses) / len(losses)


def naive_uniformity(latent, t=2.0):
    """The mean over ordered pairs: twice each unordered one."""
    z = [row / (row * row).sum() ** 0.5 for row in latent]
    potentials = [(-t * ((a - b) * (a - b)).sum()).exp() for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
    return (sum(potentials) / len(potentials)).log()


def naive_centered_uniformity(latent):
    mean = sum(latent) / len(latent)
    return naive_uniformity([row - mean for row in latent])


def naive_dispersive(latent, temperature):
    """Over all ordered pairs, a sample with itself too."""
    terms = [(-((a - b) * (a - b)).sum() / (len(a) * temperature)).exp() for a in latent for b in latent]
    return (sum(terms) / len(terms)).log()


def naive_r_drop(a, b):
    total = 0.0
    for x, y in zip(a, b, strict=True):
        p, q = x.exp() / x.exp().sum(), y.exp() / y.exp().sum()
        total += sum(p[c] * (p[c] / q[c]).log() + q[c] * (q[c] / p[c]).log() for c in range(len(p))) / 2
    return total / len(a)


def doubles(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agree(ours, naive, *inputs):
    """The same value and the same gradients, up to what float32 rounds."""
    results = []
    for function in (ours, naive):
        leaves = [one.clone().requires_grad_() for one in inputs]
        value = function(*leaves)
        results.append((value.detach().double(), *torch.autograd.grad(value, leaves)))
    for one, other in zip(*results, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert any(gradient.abs().max() > 1e-3 for gradient in results[0][1:])


# The formulas


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4], [5, 5, 5, 5, 5, 5]])
def test_supervised_contrastive_loss(labels, temperature):
    classes = torch.tensor(labels)
    agree(
        lambda z: supervised_contrastive_loss(z, classes, temperature),
        lambda z: naive_supcon(z, labels, temperature),
        doubles(6, 5),
    )


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4], [5, 5, 5, 5, 5, 6]])
def test_supervised_contrastive_loss_is_that_of_pytorch_metric_learning(labels, temperature):
    # Of a batch of one class theirs is 0 by definition, and the paper's is not.
    classes = torch.tensor(labels)
    agree(
        lambda z: supervised_contrastive_loss(z, classes, temperature),
        lambda z: SupConLoss(temperature)(z, classes),
        doubles(6, 5),
    )


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [7]])
def test_no_two_samples_of_a_class_give_zero_with_a_graph(labels):
    latent = torch.randn(len(labels), 3, requires_grad=True)
    loss = supervised_contrastive_loss(latent, torch.tensor(labels), 0.1)
    loss.backward()
    assert loss == 0 and latent.grad.eq(0).all()


@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_loss(t):
    agree(lambda z: uniformity_loss(z, t), lambda z: naive_uniformity(z, t), doubles(5, 4))


def test_centered_uniformity_loss():
    agree(lambda z: uniformity_loss(z, centered=True), naive_centered_uniformity, doubles(5, 4) + 3)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_dispersive_loss(temperature):
    agree(lambda z: dispersive_loss(z, temperature), lambda z: naive_dispersive(z, temperature), doubles(5, 4))


def test_dispersive_loss_of_one_sample_is_zero_with_a_graph():
    latent = torch.randn(1, 3, requires_grad=True)
    dispersive_loss(latent, 0.5).backward()
    assert dispersive_loss(latent, 0.5) == 0 and latent.grad.eq(0).all()


def test_uniformity_of_one_sample_is_zero_with_a_graph():
    latent = torch.randn(1, 3, requires_grad=True)
    uniformity_loss(latent).backward()
    assert uniformity_loss(latent) == 0 and latent.grad.eq(0).all()


def test_r_drop_divergence():
    agree(r_drop_divergence, naive_r_drop, 3 * doubles(4, 3), 3 * doubles(4, 3, seed=1))
    assert r_drop_divergence(doubles(4, 3), doubles(4, 3)) == 0


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_samples_that_coincide_and_extreme_scales_are_finite(scale):
    latent = (torch.ones(4, 3) * scale).requires_grad_()
    loss = supervised_contrastive_loss(latent, torch.tensor([0, 0, 1, 1]), 0.01) + uniformity_loss(latent)
    loss = loss + uniformity_loss(latent, centered=True) + dispersive_loss(latent, 0.5)
    loss = loss + r_drop_divergence(latent, -latent)
    loss.backward()
    assert loss.isfinite() and latent.grad.isfinite().all()


# The latent


@pytest.mark.parametrize("atoms", [False, True], ids=["plain", "with atoms"])
@pytest.mark.parametrize("name", [name for name in TINY if name != "gpt2-classifier"])
def test_the_output_layer_gives_the_logits_of_the_latent_that_is_read(name, atoms):
    model = tiny(name)
    if atoms:
        attach_atoms(model, AtomConfig(), make_tokenizer() if name in TEXT else None)
    batch = batch_for(name)
    with collecting_latents(model) as latents, torch.no_grad():
        first = model(**batch)["logits"]
        model(**batch)
    assert len(latents) == 2 and torch.equal(latents[0], latents[1])
    assert torch.equal(output_layer(model)(latents[0]).reshape(first.shape), first)
    model(**batch)
    assert len(latents) == 2, "outside, nothing is read"


@pytest.mark.parametrize("name", ["supcon", "uniformity"])
def test_a_latent_of_each_token_is_rejected(name, tmp_path):
    # A GPT-2 classifier gives logits for all tokens, and picks those of the last: its latent is not a sample's.
    trainer = make("gpt2-classifier", tmp_path, regularizer=name, regularizer_weight=1.0)
    with pytest.raises(AtomError, match=f"regularizer '{name}' compares samples.*GPT2ForSequenceClassification"):
        trainer.train()


def test_of_two_layers_as_wide_as_the_classes_the_last_is_the_output():
    model = tiny("distilbert", num_labels=32)
    assert model.pre_classifier.out_features == 32 and output_layer(model) is model.classifier


def test_a_model_without_an_output_layer_is_rejected():
    model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(AtomError, match="BertModel has no linear output layer"):
        output_layer(model)


# Training


def make(name, folder, cls=StudyTrainer, dropout=0.0, **options):
    return cls(
        model=tiny(name, dropout=dropout),
        args=arguments(folder, StudyTrainingArguments, **options),
        train_dataset=rows_for(name),
        data_collator=collator_for(name),
        **({} if name in ("vit", "resnet") else {"processing_class": make_tokenizer()}),
    )


def batch_of(name):
    batch = batch_for(name, labels=True)
    batch["labels"] = torch.tensor([0, 1, 0, 1])  # as four digits they would have no two of a class
    return batch


def latent_of(trainer, batch):
    """What the classifier reads, by another way than a hook."""
    model, name = trainer.model, trainer.model.base_model_prefix
    outputs = getattr(model, name)(**{k: v for k, v in batch.items() if k != "labels"})
    return outputs[0][:, 0] if name == "vit" else outputs.pooler_output


@pytest.mark.parametrize("name", ["vit", "bert", "resnet"])
@pytest.mark.parametrize("regularizer", ["supcon", "uniformity"])
def test_a_term_of_the_latent_is_added_with_its_weight(tmp_path, name, regularizer):
    options = {"regularizer": regularizer, "regularizer_weight": 0.7, "regularizer_temperature": 0.4}
    trainer, batch = make(name, tmp_path, **options), batch_of(name)
    # A ResNet normalises by the batch, and counts it.
    latent = latent_of(trainer, batch).flatten(1).detach()
    task = AtomTrainer.compute_loss(trainer, trainer.model, batch)
    if regularizer == "supcon":
        term = naive_supcon(latent.double(), batch["labels"].tolist(), 0.4)
    else:
        term = naive_uniformity(latent.double())
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss.item() == pytest.approx(task.item() + 0.7 * term.item(), rel=1e-5)
    assert abs(term.item()) > 0.1 and outputs["logits"].shape[0] == 4
    loss.backward()
    body = next(p for n, p in trainer.model.named_parameters() if "embed" in n and p.requires_grad)
    assert body.grad.isfinite().all() and body.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["vit", "bert", "resnet", "gpt2-classifier"])
@pytest.mark.parametrize("regularizer", ["dispersive", "centred uniformity"])
def test_a_term_of_what_the_output_layer_reads_is_of_it_before_its_dropout(tmp_path, name, regularizer):
    options = {"regularizer": "dispersive", "regularizer_temperature": 0.4}
    if regularizer == "centred uniformity":
        options = {"regularizer": "uniformity", "regularizer_centered": True}
    trainer, batch = make(name, tmp_path, regularizer_weight=0.7, **options), batch_of(name)
    for module in trainer.model.modules():
        if isinstance(module, nn.Dropout) and name == "bert" and module is trainer.model.dropout:
            module.p = 0.5
    if name == "gpt2-classifier":
        hidden = trainer.model.transformer(**{k: v for k, v in batch.items() if k != "labels"})[0].detach()
        last = torch.arange(hidden.shape[1]) * batch["attention_mask"]
        latent = hidden[torch.arange(4), last.argmax(1)].double()
    else:
        latent = latent_of(trainer, batch).flatten(1).detach().double()
    term = naive_dispersive(latent, 0.4) if regularizer == "dispersive" else naive_centered_uniformity(latent)
    for _ in range(2):  # in the first step the output layer is looked for, then it is known
        torch.manual_seed(3)
        task = AtomTrainer.compute_loss(trainer, trainer.model, batch)
        torch.manual_seed(3)
        loss = trainer.compute_loss(trainer.model, batch)
        assert loss.item() == pytest.approx(task.item() + 0.7 * term.item(), rel=1e-4)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.model.parameters())


def test_r_drop_is_the_mean_of_two_passes_and_their_divergence(tmp_path):
    trainer = make("vit", tmp_path, dropout=0.5, regularizer="rdrop", regularizer_weight=3.0)
    batch = batch_of("vit")
    torch.manual_seed(5)
    a, b = (trainer.model(**batch).logits.detach().double() for _ in range(2))
    torch.manual_seed(5)
    loss = trainer.compute_loss(trainer.model, batch)
    assert not torch.allclose(a, b), "dropout makes two passes differ"
    task = (F.cross_entropy(a, batch["labels"]) + F.cross_entropy(b, batch["labels"])) / 2
    assert loss.item() == pytest.approx((task + 3 * naive_r_drop(a, b)).item(), rel=1e-5)


def test_mixup_by_hand(tmp_path, monkeypatch):
    trainer, batch = make("vit", tmp_path, regularizer="mixup", regularizer_weight=0.3), batch_of("vit")
    share, order, asked = 0.3, [2, 0, 3, 1], []

    class Beta:
        def __init__(self, *alphas):
            asked.append(alphas)

        def sample(self):
            return torch.tensor(share)

    monkeypatch.setattr(torch.distributions, "Beta", Beta)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.tensor(order))
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    pixels, labels = batch["pixel_values"], batch["labels"].tolist()
    mixed = torch.stack([share * pixels[i] + (1 - share) * pixels[order[i]] for i in range(4)])
    log_p = trainer.model(pixel_values=mixed).logits.double().log_softmax(-1)
    by_hand = -sum(share * log_p[i, labels[i]] + (1 - share) * log_p[i, labels[order[i]]] for i in range(4)) / 4
    assert asked == [(0.3, 0.3)] and loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    torch.testing.assert_close(outputs["logits"].double().log_softmax(-1), log_p)


@pytest.mark.parametrize("regularizer", ["mixup", "supcon", "uniformity", "dispersive", "rdrop"])
def test_evaluation_is_of_the_task_alone(tmp_path, regularizer):
    trainer, batch = make("vit", tmp_path, regularizer=regularizer, regularizer_weight=9.0), batch_of("vit")
    trainer.model.eval()
    expected = F.cross_entropy(trainer.model(**batch).logits, batch["labels"])
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)


@pytest.mark.parametrize("atom", [False, True], ids=["plain", "atom"])
def test_none_is_the_atom_trainer_to_the_bit(tmp_path, atom):
    weights = []
    for cls in (AtomTrainer, StudyTrainer):
        trainer = make("vit", tmp_path, cls, dropout=0.1, atom=atom, regularizer_weight=3.0)
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_term_is_added_to_the_atom_loss_too(tmp_path):
    trainer = make("vit", tmp_path, atom=True, regularizer="uniformity", regularizer_weight=0.5)
    trainer.model.atom_balancer.strength, batch = 1.0, batch_of("vit")
    task = F.cross_entropy(trainer.model(**batch).logits, batch["labels"]).item()
    both = AtomTrainer.compute_loss(trainer, trainer.model, batch).item()
    term = uniformity_loss(latent_of(trainer, batch)).item()
    loss = trainer.compute_loss(trainer.model, batch).item()
    assert both != pytest.approx(task, rel=1e-3) and loss == pytest.approx(both + 0.5 * term, rel=1e-5)


@pytest.mark.parametrize("regularizer", ["mixup", "supcon", "uniformity", "dispersive", "rdrop"])
def test_each_trains_to_other_weights(tmp_path, regularizer):
    weights = []
    for options in ({}, {"regularizer": regularizer, "regularizer_weight": 1.0}):
        trainer = make("vit", tmp_path, dropout=0.1, **options)
        trainer.train()
        weights.append(nn.utils.parameters_to_vector(trainer.model.parameters()).detach())
    assert weights[1].isfinite().all() and (weights[0] - weights[1]).abs().max() > 1e-4


REJECTED = [
    ("vit", {"regularizer": "dropout"}, "^regularizer must be one of none, mixup, .*; got 'dropout'$"),
    ("gpt2", {"regularizer": "supcon", "regularizer_weight": 1.0}, "^regularizer 'supcon' is for classification"),
    ("bert", {"regularizer": "mixup", "regularizer_weight": 1.0}, "^regularizer 'mixup' mixes images"),
    ("vit", {"regularizer": "mixup", "regularizer_weight": 1.0, "atom": True}, "^regularizer 'mixup' .*--atom"),
    ("vit", {"regularizer": "mixup"}, "^regularizer_weight must be .* above 0; got 0.0"),
    ("vit", {"regularizer": "rdrop", "regularizer_weight": -1.0}, "^regularizer_weight must be"),
    ("vit", {"regularizer": "rdrop", "regularizer_weight": float("nan")}, "^regularizer_weight must be"),
    ("vit", {"regularizer": "supcon", "regularizer_temperature": 0.0}, "^regularizer_temperature must be"),
    ("vit", {"regularizer": "dispersive", "regularizer_temperature": 0.0}, "^regularizer_temperature must be"),
    ("vit", {"regularizer": "supcon", "regularizer_centered": True}, "^regularizer_centered is for uniformity, not"),
]


@pytest.mark.parametrize(("name", "options", "says"), REJECTED)
def test_what_cannot_be_trained_is_rejected_before_training(tmp_path, name, options, says):
    with pytest.raises(AtomError, match=says):
        make(name, tmp_path, **options)
