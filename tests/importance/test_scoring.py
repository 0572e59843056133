"""Scorers of texts and pictures alike: the atom of a sample, predictions, and what cannot be read."""

import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomConfig, AtomError, Atoms, attach_atoms
from atom_hf.importance.read import read_images, read_texts
from atom_hf.importance.scoring import predict
from helpers.error_messages import error_message
from helpers.models import make_tokenizer, tiny
from helpers.scored import MODELS, SMALL, TEXTS, ready


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_the_atom_of_a_sample(name):
    model = ready(tiny(name), make_tokenizer())
    if name == "vit":
        grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
        images = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 90, 255)]
        results = read_images(model, grey, images)
        inputs = grey(images, return_tensors="pt")
    else:
        results = read_texts(model, make_tokenizer(), TEXTS[:3])
        inputs = make_tokenizer()(TEXTS[:3], return_tensors="pt", padding=True)
    with torch.no_grad():
        atoms = Atoms.unpack(model(**inputs, return_atoms=True).atoms)
    for row, result in enumerate(results):
        assert result.atom.positive == pytest.approx(float(atoms.positive[row]), abs=1e-5)
        assert result.atom.negative == pytest.approx(float(atoms.negative[row]), abs=1e-5)
        assert result.atom.radius == pytest.approx(float(atoms.radius[row]), abs=1e-5)
        np.testing.assert_allclose(result.atom.center, atoms.center[row].numpy(), atol=1e-5)
        assert result.atom.center.dtype == np.float32


def test_predictions_of_every_kind_of_classifier():
    config = transformers.BertConfig(num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    logits = np.array([0.5, 2.0, -1.0])
    label, score = predict(logits, config)
    assert label == "b" and score == pytest.approx(math.exp(2) / sum(map(math.exp, logits)))
    config.problem_type = "multi_label_classification"
    assert predict(logits, config) == ("b", pytest.approx(1 / (1 + math.exp(-2))))
    assert predict(np.array([0.125]), transformers.BertConfig(num_labels=1)) == ("0.125", None)
    assert predict(None, config) == (None, None)


def test_models_that_cannot_be_read_are_rejected():
    tokenizer = make_tokenizer()
    vit, bert = ready(tiny("vit"), None), ready(tiny("bert"), tokenizer)
    with pytest.raises(AtomError, match="takes pixel_values, not texts"):
        read_texts(vit, tokenizer, TEXTS)
    with pytest.raises(AtomError, match="takes input_ids, not images"):
        read_images(bert, None, [])
    with pytest.raises(AtomError, match="has no heads; load it with load_atom_model"):
        read_texts(tiny("bert"), tokenizer, TEXTS)
    bart = attach_atoms(MODELS["BART"](), AtomConfig(layer=-1, side="decoder"), tokenizer)
    with pytest.raises(AtomError, match="the decoder's output"):
        read_texts(bart, tokenizer, TEXTS)
    config = transformers.FunnelConfig(
        **SMALL, block_sizes=[1, 1], num_decoder_layers=1, d_model=16, n_head=2, d_head=8
    )
    funnel = ready(transformers.FunnelForSequenceClassification(config), tokenizer)
    with pytest.raises(AtomError, match="shortens its sequence"):
        read_texts(funnel, tokenizer, ["the sea and the moon of great rivers"])


def test_lists_that_do_not_fit_are_rejected():
    bert = ready(tiny("bert"), make_tokenizer())
    for given, says in (
        (("the sea",), "texts must be a list, got one string"),
        ((["a", "b"], ["label"]), "labels: 1 for 2 texts; give one each"),
    ):
        with pytest.raises(AtomError, match=says):
            read_texts(bert, make_tokenizer(), *given)
    with pytest.raises(AtomError, match="pairs: 1 for 2 texts"):
        read_texts(bert, make_tokenizer(), ["a", "b"], pairs=["c"])
    with pytest.raises(AtomError, match="batch_size must be at least 1, got 0"):
        read_texts(bert, make_tokenizer(), ["a"], batch_size=0)
    with pytest.raises(AtomError, match="gives no character offsets; give a fast tokenizer"):
        read_texts(bert, object(), ["a"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_whose_weights_are_not_finite_has_no_importance(value):
    """Not that every word has no token."""
    model = ready(tiny("bert"), make_tokenizer())
    model.bert.embeddings.word_embeddings.weight.data.fill_(value)
    error_message(lambda: read_texts(model, make_tokenizer(), TEXTS[:2]), "model: weights of this Bert", "not finite")
