"""Attributions against what they are known to sum to, naive loops, and a model whose truth is known."""

import itertools

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients, ShapleyValueSampling

from atom_hf import AtomConfig, AtomError, attach_atoms
from atom_hf.explainer.masking import class_probability
from atom_hf.faithfulness import metrics
from atom_hf.faithfulness.classifier import Classifier
from atom_hf.faithfulness.cost import count_passes, counted, measure
from atom_hf.faithfulness.methods import METHODS, attention_rollout, integrated_gradients, rollout, shapley_sampling
from helpers.linear_words import linear_words
from helpers.models import batch_for, make_tokenizer, tiny

TEXTS = ["the moon and the sea", "of a great king", "love is not here now , my heart"]


def classifier_of(name, strategy=None, heads=True, **options):
    model = tiny(name, **options).eval()
    tokenizer = None if name == "vit" else make_tokenizer()
    if heads:
        attach_atoms(model, AtomConfig(layer=-1), tokenizer)
    classifier = Classifier(model, tokenizer, strategy or ("mean" if name == "vit" else "mask"))
    inputs = batch_for(name, 3)
    return classifier, inputs, classifier.predict(inputs)[0]


def words_classifier(strategy="mask"):
    classifier = Classifier(linear_words(make_tokenizer(), seed=1), make_tokenizer(), strategy)
    inputs = classifier.encode([{"text": text} for text in TEXTS])
    return classifier, inputs, classifier.predict(inputs)[0]


@pytest.mark.parametrize("name", ["bert", "gpt2-classifier", "vit"])
@pytest.mark.parametrize("method", METHODS)
def test_each_token_gets_a_number_and_nothing_else_does(name, method):
    classifier, inputs, target = classifier_of(name)
    found = METHODS[method](classifier, inputs, target)
    assert found.shape == (3, classifier.length(inputs)) and found.dtype == torch.float32
    assert torch.equal(~found.isnan(), classifier.tokens(inputs)) and not found.requires_grad
    plain = Classifier(tiny(name).eval(), classifier.processor, classifier.masker.strategy)
    if not METHODS[method].needs_heads and method not in ("random", "hidden_norm"):  # of another layer
        torch.testing.assert_close(found, METHODS[method](plain, inputs, target), equal_nan=True, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("method", ["importance", "attention_rollout", "integrated_gradients", "shapley_sampling"])
def test_padding_changes_nothing(method):
    classifier, inputs, target = classifier_of("bert")
    together = METHODS[method](classifier, inputs, target)
    for row in range(3):
        count = int(inputs["attention_mask"][row].sum())
        one = {name: value[row : row + 1, :count] for name, value in inputs.items()}
        alone = METHODS[method](classifier, one, target[row : row + 1])[0]
        torch.testing.assert_close(together[row, :count], alone, equal_nan=True, atol=1e-5, rtol=1e-4)


def test_importance_is_the_models_own():
    classifier, inputs, target = classifier_of("bert")
    own = classifier.model.atom_importance(**inputs)
    for name, sign in (("importance", own), ("charge", own), ("-charge", -own), ("|charge|", own.abs())):
        torch.testing.assert_close(METHODS[name](classifier, inputs, target), sign, equal_nan=True)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_integrated_gradients_are_complete(name):
    classifier, inputs, target = classifier_of(name)
    found = integrated_gradients(classifier, inputs, target, None, steps=200)
    with torch.no_grad():
        full = classifier.probability(inputs, target)
        nothing = classifier.probability(inputs, target, classifier.baseline(inputs))
        masked = classifier.masker(inputs, torch.zeros(3, classifier.length(inputs)))
    torch.testing.assert_close(found.nansum(1), full - nothing, atol=1e-3, rtol=0)
    torch.testing.assert_close(nothing, classifier.probability(masked, target))
    assert (full - nothing).abs().max() > 0.03


def test_integrated_gradients_are_captums_at_the_layer_of_embeddings():
    classifier, inputs, target = classifier_of("bert")
    masked = classifier.masker(inputs, torch.zeros(inputs["input_ids"].shape))
    layer = LayerIntegratedGradients(
        lambda ids, mask, chosen: class_probability(classifier.model(ids, attention_mask=mask).logits, chosen),
        classifier.model.get_input_embeddings(),
    )
    given = (inputs["attention_mask"], target)
    expected = layer.attribute(inputs["input_ids"], masked["input_ids"], additional_forward_args=given, n_steps=50)
    found = METHODS["integrated_gradients"](classifier, inputs, target)
    tokens = classifier.tokens(inputs)
    torch.testing.assert_close(found[tokens], expected.sum(-1)[tokens].float(), atol=1e-5, rtol=1e-3)


def test_gradient_times_input_is_its_definition():
    for name in ("bert", "vit"):
        classifier, inputs, target = classifier_of(name)
        found = METHODS["input_x_gradient"](classifier, inputs, target)
        points = classifier.points(inputs).requires_grad_()
        (slope,) = torch.autograd.grad(classifier.probability(inputs, target, points).sum(), points)
        for row, token in classifier.tokens(inputs).nonzero().tolist():
            if name == "bert":
                expected = (points[row, token] * slope[row, token]).sum()
            else:
                top, left = 2 * ((token - 1) // 4), 2 * ((token - 1) % 4)
                part = (slice(None), slice(top, top + 2), slice(left, left + 2))
                expected = (points[row][part] * slope[row][part]).sum()
            torch.testing.assert_close(found[row, token], expected.detach(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["mask", "drop"])
def test_shapley_values_are_efficient(strategy):
    """They sum to the probability with all tokens minus that with none."""
    classifier, inputs, target = classifier_of("bert", strategy)
    found = shapley_sampling(classifier, inputs, target, None, permutations=2)
    with torch.no_grad():
        full = classifier.probability(inputs, target)
        masked = classifier.probability(classifier.masker(inputs, torch.zeros(inputs["input_ids"].shape)), target)
    torch.testing.assert_close(found.sum(1), full - masked, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "strategy"), [("bert", "mask"), ("bert", "drop"), ("vit", "blur")])
def test_shapley_sampling_is_captums(name, strategy):
    classifier, inputs, target = classifier_of(name, strategy, heads=False)
    tokens = classifier.tokens(inputs)
    found = METHODS["shapley_sampling"](classifier, inputs, target)
    for row, real in enumerate(tokens):
        one = {key: value[row : row + 1] for key, value in inputs.items()}

        def value(joined, one=one, real=real, row=row):
            keep = torch.ones(1, len(real), dtype=torch.bool)
            keep[:, real] = joined > 0.5
            return classifier.probability(classifier.masker(one, keep), target[row : row + 1])

        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            expected = ShapleyValueSampling(value).attribute(torch.ones(1, int(real.sum())), n_samples=25)[0]
        torch.testing.assert_close(found[row, real], expected, atol=1e-5, rtol=1e-3)


def test_shapley_sampling_nears_the_exact_values():
    classifier = words_classifier()[0]
    one = classifier.encode([{"text": "love and the moon"}])
    chosen = classifier.predict(one)[0]
    values = classifier.values(one, int(chosen))
    places = classifier.tokens(one)[0].nonzero()[:, 0].tolist()
    assert len(places) == 4
    exact, count = np.zeros(len(places)), 0
    for order in itertools.permutations(range(len(places))):
        kept = np.zeros((len(places) + 1, len(places)), bool)
        for step, token in enumerate(order, 1):
            kept[step:, token] = True
        exact[list(order)] += np.diff(values(kept))
        count += 1
    found = shapley_sampling(classifier, one, chosen, None, permutations=100)[0, places].numpy()
    np.testing.assert_allclose(found, exact / count, atol=0.01)
    kernel = METHODS["kernel_shap"](classifier, one, chosen)[0, places].numpy()
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
    classifier, inputs, target = classifier_of(name, heads=False)
    weights = classifier.reads(inputs)
    last = inputs["attention_mask"].sum(1) - 1 if reads == "last" else torch.zeros(3, dtype=torch.long)
    assert torch.equal(weights.argmax(1), last) and (weights.sum(1) == 1).all()
    before = classifier.model.config._attn_implementation
    classifier.model.set_attn_implementation("eager")
    layers = classifier.model(**inputs, output_attentions=True).attentions
    classifier.model.set_attn_implementation(before)
    torch.testing.assert_close(attention_rollout(classifier, inputs, target, None), rollout(list(layers), weights))
    assert classifier.model.config._attn_implementation == before


def test_a_model_that_gives_no_attention_is_rejected():
    classifier, inputs, target = words_classifier()
    with pytest.raises(AtomError, match="attention_rollout: WordsForSequenceClassification gives no attention"):
        METHODS["attention_rollout"](classifier, inputs, target)


def test_the_hidden_norm_is_of_the_layer_of_the_atoms():
    model = attach_atoms(tiny("bert").eval(), AtomConfig(layer=1), make_tokenizer())
    classifier, inputs = Classifier(model, make_tokenizer(), "mask"), batch_for("bert", 3)
    found = METHODS["hidden_norm"](classifier, inputs, torch.zeros(3, dtype=torch.long))
    states = tiny("bert").eval()(**inputs, output_hidden_states=True).hidden_states[1].detach()
    for row, token in classifier.tokens(inputs).nonzero().tolist():
        assert float(found[row, token]) == pytest.approx(float(states[row, token].square().sum().sqrt()), rel=1e-5)


def test_random_numbers_come_from_the_seed():
    tokenizer, inputs, target = make_tokenizer(), batch_for("bert", 3), torch.zeros(3, dtype=torch.long)
    classifiers = [Classifier(tiny("bert"), tokenizer, "mask", seed=seed) for seed in (1, 1, 2)]
    one, same, other = (METHODS["random"](classifier, inputs, target) for classifier in classifiers)
    assert torch.equal(one.nan_to_num(), same.nan_to_num()) and not torch.equal(one.nan_to_num(), other.nan_to_num())


def test_where_the_truth_is_known_faithful_methods_find_it():
    classifier, _, target = words_classifier()
    for row, text in enumerate(TEXTS):
        one = classifier.encode([{"text": text}])
        tokens = classifier.tokens(one)[0]
        numbers = classifier.model.words.weight[one["input_ids"][0, tokens], 0].detach().numpy()
        truth = numbers if target[row] == 0 else -numbers
        for name, least in (("input_x_gradient", 1), ("integrated_gradients", 1), ("shapley_sampling", 0.97)):
            found = METHODS[name](classifier, one, target[row : row + 1])[0, tokens].numpy()
            assert np.corrcoef(found, truth)[0, 1] >= least - 1e-6, name
        values = classifier.values(one, int(target[row]))
        oracle, inverse = metrics.masking_metrics(truth, values), metrics.masking_metrics(-truth, values)
        rng = np.random.default_rng(0)
        chance = [metrics.masking_metrics(rng.permutation(truth), values) for _ in range(20)]
        for name, sign in (("comprehensiveness", 1), ("sufficiency", -1), ("deletion", -1), ("insertion", 1)):
            middle = np.mean([found[name] for found in chance])
            assert sign * oracle[name] > sign * middle > sign * inverse[name], name
    assert len(set(target.tolist())) == 2


def test_shapley_values_know_no_embeddings():
    classifier, inputs, target = words_classifier()
    with pytest.raises(AtomError, match="Shapley values are of tokens"):
        METHODS["shapley_sampling"](classifier, inputs, target, classifier.points(inputs))


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
    classifier, inputs, target = classifier_of(name)
    classifier.reads(inputs)
    assert count_passes(METHODS[method], classifier, inputs, target) == passes


def test_shapley_sampling_costs_a_pass_for_each_token_of_each_order():
    classifier, inputs, target = classifier_of("bert")
    tokens = classifier.tokens(inputs).sum(1).float().mean().item()
    assert count_passes(METHODS["shapley_sampling"], classifier, inputs, target)[0] == pytest.approx(25 * tokens + 1)


def test_counting_ends_and_counts_samples():
    model, inputs = tiny("bert"), batch_for("bert", 3)
    with counted(model) as passes:
        model(**inputs).logits.sum().backward()
        with torch.no_grad():
            model(**inputs)
    model(**inputs)
    assert (passes.forward, passes.backward) == (6, 3)


def test_a_cost_has_passes_and_a_time():
    cost = measure(METHODS["input_x_gradient"], *classifier_of("vit"))
    assert (cost.forward, cost.backward, cost.forward_equivalents) == (1, 1, 3) and cost.time > 0
