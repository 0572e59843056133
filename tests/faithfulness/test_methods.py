"""Attributions against what they are known to sum to, naive loops, and a model whose truth is known."""

import itertools

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients

from atom_hf import AtomConfig, AtomError, attach_atoms
from atom_hf.explainer.masking import class_probability
from atom_hf.faithfulness import metrics
from atom_hf.faithfulness.classifier import Classifier
from atom_hf.faithfulness.cost import count_passes, counted, measure
from atom_hf.faithfulness.methods import METHODS, attention_rollout, integrated_gradients, rollout, shapley_sampling
from helpers.linear_words import linear_words
from helpers.models import batch_for, make_tokenizer, tiny

TEXTS = ["the moon and the sea", "of a great king", "love is not here now , my heart"]


def subject_of(name, how=None, heads=True, **options):
    model = tiny(name, **options).eval()
    tokenizer = None if name == "vit" else make_tokenizer()
    if heads:
        attach_atoms(model, AtomConfig(layer=-1), tokenizer)
    subject = Classifier(model, tokenizer, how or ("mean" if name == "vit" else "mask"))
    inputs = batch_for(name, 3)
    return subject, inputs, subject.predict(inputs)[0]


def words_subject(how="mask"):
    subject = Classifier(linear_words(make_tokenizer(), seed=1), make_tokenizer(), how)
    inputs = subject.encode([{"text": text} for text in TEXTS])
    return subject, inputs, subject.predict(inputs)[0]


@pytest.mark.parametrize("name", ["bert", "gpt2-classifier", "vit"])
@pytest.mark.parametrize("method", METHODS)
def test_each_token_gets_a_number_and_nothing_else_does(name, method):
    subject, inputs, target = subject_of(name)
    found = METHODS[method](subject, inputs, target)
    assert found.shape == (3, subject.length(inputs)) and found.dtype == torch.float32
    assert torch.equal(~found.isnan(), subject.tokens(inputs)) and not found.requires_grad
    plain = Classifier(tiny(name).eval(), subject.processor, subject.eraser.how)
    if not METHODS[method].needs_heads and method not in ("random", "hidden_norm"):  # of another layer
        torch.testing.assert_close(found, METHODS[method](plain, inputs, target), equal_nan=True, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("method", ["importance", "attention_rollout", "integrated_gradients", "shapley_sampling"])
def test_padding_changes_nothing(method):
    subject, inputs, target = subject_of("bert")
    together = METHODS[method](subject, inputs, target)
    for row in range(3):
        count = int(inputs["attention_mask"][row].sum())
        one = {name: value[row : row + 1, :count] for name, value in inputs.items()}
        alone = METHODS[method](subject, one, target[row : row + 1])[0]
        torch.testing.assert_close(together[row, :count], alone, equal_nan=True, atol=1e-5, rtol=1e-4)


def test_importance_is_the_models_own():
    subject, inputs, target = subject_of("bert")
    own = subject.model.atom_importance(**inputs)
    for name, sign in (("importance", own), ("charge", own), ("-charge", -own), ("|charge|", own.abs())):
        torch.testing.assert_close(METHODS[name](subject, inputs, target), sign, equal_nan=True)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_integrated_gradients_are_complete(name):
    subject, inputs, target = subject_of(name)
    found = integrated_gradients(subject, inputs, target, None, steps=200)
    with torch.no_grad():
        full = subject.probability(inputs, target)
        nothing = subject.probability(inputs, target, subject.baseline(inputs))
        erased = subject.eraser(inputs, torch.zeros(3, subject.length(inputs)))
    torch.testing.assert_close(found.nansum(1), full - nothing, atol=1e-3, rtol=0)
    torch.testing.assert_close(nothing, subject.probability(erased, target))
    assert (full - nothing).abs().max() > 0.03


def test_integrated_gradients_are_captums_at_the_layer_of_embeddings():
    subject, inputs, target = subject_of("bert")
    erased = subject.eraser(inputs, torch.zeros(inputs["input_ids"].shape))
    layer = LayerIntegratedGradients(
        lambda ids, mask, chosen: class_probability(subject.model(ids, attention_mask=mask).logits, chosen),
        subject.model.get_input_embeddings(),
    )
    given = (inputs["attention_mask"], target)
    expected = layer.attribute(inputs["input_ids"], erased["input_ids"], additional_forward_args=given, n_steps=50)
    found = METHODS["integrated_gradients"](subject, inputs, target)
    tokens = subject.tokens(inputs)
    torch.testing.assert_close(found[tokens], expected.sum(-1)[tokens].float(), atol=1e-5, rtol=1e-3)


def test_gradient_times_input_is_its_definition():
    for name in ("bert", "vit"):
        subject, inputs, target = subject_of(name)
        found = METHODS["input_x_gradient"](subject, inputs, target)
        points = subject.points(inputs).requires_grad_()
        (slope,) = torch.autograd.grad(subject.probability(inputs, target, points).sum(), points)
        for row, token in subject.tokens(inputs).nonzero().tolist():
            if name == "bert":
                expected = (points[row, token] * slope[row, token]).sum()
            else:
                top, left = 2 * ((token - 1) // 4), 2 * ((token - 1) % 4)
                part = (slice(None), slice(top, top + 2), slice(left, left + 2))
                expected = (points[row][part] * slope[row][part]).sum()
            torch.testing.assert_close(found[row, token], expected.detach(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("how", ["mask", "drop"])
def test_shapley_values_are_efficient(how):
    """They sum to the probability with all tokens minus that with none."""
    subject, inputs, target = subject_of("bert", how)
    found = shapley_sampling(subject, inputs, target, None, permutations=2)
    with torch.no_grad():
        full = subject.probability(inputs, target)
        erased = subject.probability(subject.eraser(inputs, torch.zeros(inputs["input_ids"].shape)), target)
    torch.testing.assert_close(found.sum(1), full - erased, atol=1e-4, rtol=0)


def test_shapley_sampling_nears_the_exact_values():
    subject = words_subject()[0]
    one = subject.encode([{"text": "love and the moon"}])
    chosen = subject.predict(one)[0]
    values = subject.values(one, int(chosen))
    places = subject.tokens(one)[0].nonzero()[:, 0].tolist()
    assert len(places) == 4
    exact, count = np.zeros(len(places)), 0
    for order in itertools.permutations(range(len(places))):
        kept = np.zeros((len(places) + 1, len(places)), bool)
        for step, token in enumerate(order, 1):
            kept[step:, token] = True
        exact[list(order)] += np.diff(values(kept))
        count += 1
    found = shapley_sampling(subject, one, chosen, None, permutations=100)[0, places].numpy()
    np.testing.assert_allclose(found, exact / count, atol=0.01)
    kernel = METHODS["kernel_shap"](subject, one, chosen)[0, places].numpy()
    np.testing.assert_allclose(kernel, exact / count, atol=0.02)


def test_rollout_is_its_recursion():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(2, 3, 5, 5, generator=generator).softmax(-1) for _ in range(4)]
    reads = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0.5]])
    found = rollout(layers, reads)
    for sample in range(2):
        rolled = np.eye(5)
        for layer in layers:
            mixed = np.zeros((5, 5))
            for i, j in itertools.product(range(5), range(5)):
                mixed[i, j] = (sum(float(layer[sample, head, i, j]) for head in range(3)) / 3 + (i == j)) / 2
            rolled = mixed @ rolled
        np.testing.assert_allclose(found[sample].numpy(), reads[sample].numpy() @ rolled, rtol=1e-5)


@pytest.mark.parametrize(("name", "reads"), [("bert", "first"), ("vit", "first"), ("gpt2-classifier", "last")])
def test_rollout_goes_to_the_token_that_the_classifier_reads(name, reads):
    subject, inputs, target = subject_of(name, heads=False)
    weights = subject.reads(inputs)
    last = inputs["attention_mask"].sum(1) - 1 if reads == "last" else torch.zeros(3, dtype=torch.long)
    assert torch.equal(weights.argmax(1), last) and (weights.sum(1) == 1).all()
    before = subject.model.config._attn_implementation
    subject.model.set_attn_implementation("eager")
    layers = subject.model(**inputs, output_attentions=True).attentions
    subject.model.set_attn_implementation(before)
    torch.testing.assert_close(attention_rollout(subject, inputs, target, None), rollout(list(layers), weights))
    assert subject.model.config._attn_implementation == before


def test_a_model_that_gives_no_attention_is_refused():
    subject, inputs, target = words_subject()
    with pytest.raises(AtomError, match="attention_rollout: WordsForSequenceClassification gives no attention"):
        METHODS["attention_rollout"](subject, inputs, target)


def test_the_hidden_norm_is_of_the_layer_of_the_atoms():
    model = attach_atoms(tiny("bert").eval(), AtomConfig(layer=1), make_tokenizer())
    subject, inputs = Classifier(model, make_tokenizer(), "mask"), batch_for("bert", 3)
    found = METHODS["hidden_norm"](subject, inputs, torch.zeros(3, dtype=torch.long))
    states = tiny("bert").eval()(**inputs, output_hidden_states=True).hidden_states[1].detach()
    for row, token in subject.tokens(inputs).nonzero().tolist():
        assert float(found[row, token]) == pytest.approx(float(states[row, token].square().sum().sqrt()), rel=1e-5)


def test_random_numbers_come_from_the_seed():
    tokenizer, inputs, target = make_tokenizer(), batch_for("bert", 3), torch.zeros(3, dtype=torch.long)
    subjects = [Classifier(tiny("bert"), tokenizer, "mask", seed=seed) for seed in (1, 1, 2)]
    one, same, other = (METHODS["random"](subject, inputs, target) for subject in subjects)
    assert torch.equal(one.nan_to_num(), same.nan_to_num()) and not torch.equal(one.nan_to_num(), other.nan_to_num())


def test_where_the_truth_is_known_faithful_methods_find_it():
    subject, _, target = words_subject()
    for row, text in enumerate(TEXTS):
        one = subject.encode([{"text": text}])
        tokens = subject.tokens(one)[0]
        numbers = subject.model.words.weight[one["input_ids"][0, tokens], 0].detach().numpy()
        truth = numbers if target[row] == 0 else -numbers
        for name, least in (("input_x_gradient", 1), ("integrated_gradients", 1), ("shapley_sampling", 0.97)):
            found = METHODS[name](subject, one, target[row : row + 1])[0, tokens].numpy()
            assert np.corrcoef(found, truth)[0, 1] >= least - 1e-6, name
        values = subject.values(one, int(target[row]))
        oracle, inverse = metrics.erasure(truth, values), metrics.erasure(-truth, values)
        rng = np.random.default_rng(0)
        chance = [metrics.erasure(rng.permutation(truth), values) for _ in range(20)]
        for name, sign in (("comprehensiveness", 1), ("sufficiency", -1), ("deletion", -1), ("insertion", 1)):
            middle = np.mean([found[name] for found in chance])
            assert sign * oracle[name] > sign * middle > sign * inverse[name], name
    assert len(set(target.tolist())) == 2


def test_shapley_values_know_no_embeddings():
    subject, inputs, target = words_subject()
    with pytest.raises(AtomError, match="Shapley values are of tokens"):
        METHODS["shapley_sampling"](subject, inputs, target, subject.points(inputs))


# What it costs


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        *((name, (1, 0)) for name in ("importance", "charge", "attention_rollout", "hidden_norm")),
        *(("input_x_gradient", (1, 1)), ("integrated_gradients", (50, 50)), ("random", (0, 0))),
        # Captum asks for the whole and for nothing once, and for all but the last step of each order.
        ("kernel_shap", (200, 0)),
    ],
)
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_passes_are_counted(name, method, passes):
    subject, inputs, target = subject_of(name)
    subject.reads(inputs)
    assert count_passes(METHODS[method], subject, inputs, target) == passes


def test_shapley_sampling_costs_a_pass_for_each_token_of_each_order():
    subject, inputs, target = subject_of("bert")
    tokens = subject.tokens(inputs).sum(1).float().mean().item()
    assert count_passes(METHODS["shapley_sampling"], subject, inputs, target)[0] == pytest.approx(25 * tokens + 1)


def test_counting_ends_and_counts_samples():
    model, inputs = tiny("bert"), batch_for("bert", 3)
    with counted(model) as passes:
        model(**inputs).logits.sum().backward()
        with torch.no_grad():
            model(**inputs)
    model(**inputs)
    assert (passes.forward, passes.backward) == (6, 3)


def test_a_cost_has_passes_and_a_time():
    cost = measure(METHODS["input_x_gradient"], *subject_of("vit"))
    assert (cost.forward, cost.backward, cost.forward_equivalents) == (1, 1, 3) and cost.time > 0
