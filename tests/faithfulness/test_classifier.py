"""A classifier as methods see it: its tokens, its values, the points that gradients are taken to."""

import numpy as np
import pytest
import torch
from PIL import Image

from atom_hf import AtomError
from atom_hf.faithfulness.classifier import Classifier
from atom_hf.faithfulness.cost import counted
from helpers.models import batch_for, make_tokenizer, tiny

TEXT = {"text": "the moon and the sea"}


def test_values_are_of_the_model_with_those_tokens_alone():
    classifier = Classifier(tiny("bert").eval(), make_tokenizer(), "mask")
    inputs = classifier.encode([TEXT])
    target, probability = classifier.predict(inputs)
    values = classifier.values(inputs, int(target), batch_size=3)
    count = int(classifier.tokens(inputs).sum())
    keep = np.random.default_rng(0).random((8, count)) < 0.5
    keep[0] = True
    found = values(keep)
    for row, value in zip(keep, found, strict=True):
        ids = inputs["input_ids"].clone()
        for token, kept in enumerate(row, 1):
            ids[0, token] = ids[0, token] if kept else 4
        logits = classifier.model(ids, inputs["attention_mask"]).logits[0].detach()
        assert value == pytest.approx(float(logits.softmax(-1)[int(target)]), abs=1e-6)
    assert found[0] == pytest.approx(float(probability)) and len(set(found)) > 3
    with counted(classifier.model) as passes:
        assert (values(keep[::-1]) == found[::-1]).all()
        assert passes.forward == 0  # asked for before
        values(np.array([[True] * count, [False] * count]))
    assert passes.forward == 1


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2-classifier", "vit"])
def test_the_models_own_points_change_nothing_and_others_do(name):
    tokenizer = None if name == "vit" else make_tokenizer()
    classifier = Classifier(tiny(name).eval(), tokenizer, "mean" if name == "vit" else "mask")
    inputs, target = batch_for(name, 3), torch.zeros(3, dtype=torch.long)
    points = classifier.points(inputs).requires_grad_()
    expected = classifier.model(**inputs).logits.softmax(-1)[:, 0]
    found = classifier.probability(inputs, target, points)
    torch.testing.assert_close(found, expected)
    (slope,) = torch.autograd.grad(found.sum(), points)
    assert slope.abs().sum() > 0
    assert not torch.allclose(classifier.probability(inputs, target, points.flip(-1)), expected)
    torch.testing.assert_close(classifier.probability(inputs, target), expected)  # the hook is gone


def test_pairs_and_images_are_encoded():
    classifier = Classifier(tiny("bert").eval(), make_tokenizer(), "mask", max_length=12)
    found = classifier.encode([{**TEXT, "text_pair": "a king"}])
    expected = make_tokenizer()(TEXT["text"], "a king", truncation=True, max_length=12)
    assert found["input_ids"].tolist() == [expected["input_ids"]] and len(expected["input_ids"]) == 12
    from atom_hf.finetune.pretrained import find_model, load_processor

    processor = load_processor(find_model("vit-fashion-mnist"), True)
    picture = Image.fromarray(np.full((28, 28), 255, np.uint8))
    classifier = Classifier(tiny("vit", image_size=28, patch_size=7).eval(), processor, "mean")
    assert classifier.encode([{"image": picture}])["pixel_values"].shape[:2] == (1, 1)


def test_what_has_no_class_is_rejected():
    with pytest.raises(AtomError, match="GPT2LMHeadModel predicts no class of a whole sample"):
        Classifier(tiny("gpt2"), make_tokenizer(), "mask")
