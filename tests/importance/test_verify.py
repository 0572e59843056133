"""What masking the most important parts really does, against the model with these parts masked by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomConfig, attach_atoms
from atom_hf.importance.read import read_images, read_texts
from atom_hf.importance.scoring import Scores
from atom_hf.importance.text import TextScorer
from atom_hf.importance.verify import PATCHES, WORDS, verify
from helpers import trained
from helpers.models import make_tokenizer, tiny

TOKENIZER = make_tokenizer()


def texts(count=4):
    ids, chosen, _ = trained.texts(count, seed=999)
    return [TOKENIZER.decode(row[1:-1]) for row in ids], chosen


def chance(model, ids, number):
    with torch.no_grad():
        return float(model(input_ids=ids[None]).logits[0].softmax(-1)[number])


@pytest.mark.parametrize("target", [None, "key 2"])
def test_the_words_are_masked_and_nothing_else(target):
    model, (written, chosen) = trained.classifier(), texts()
    found = read_texts(model, TOKENIZER, written, target=target, method="masking", verified=True)
    tried = 0
    for text, result, key in zip(written, found, chosen, strict=True):
        number = int(key) if target is None else 2
        words = sorted(result.words, key=lambda word: -word.importance)[:WORDS]
        words = [word for word in words if word.importance > 0]
        seen = result.verified
        if not words:
            assert seen is None
            continue
        tried += 1
        ids = TOKENIZER(text, return_tensors="pt")["input_ids"][0]
        masked = ids.clone()
        places = TOKENIZER(text, return_offsets_mapping=True)["offset_mapping"]
        for place, (start, end) in enumerate(places):
            if end and any(word.start <= start and end <= word.end for word in words):
                masked[place] = TOKENIZER.mask_token_id
        assert seen.masked == [word.text for word in words]
        assert seen.before == pytest.approx(chance(model, ids, number), abs=1e-5)
        assert seen.after == pytest.approx(chance(model, masked, number), abs=1e-5)
        assert seen.promised == pytest.approx(seen.before - sum(word.importance for word in words), abs=1e-5)
    assert tried >= 1


def test_the_key_takes_the_prediction_with_it_and_other_words_do_not():
    model, (written, _) = trained.classifier(), texts()
    for result in read_texts(model, TOKENIZER, written, method="masking", verified=True):
        assert result.verified.after < 0.7 < result.verified.before
        # Of seven tokens five are words: fewer others may be left than are masked.
        assert math.isnan(result.verified.others) or result.verified.others > result.verified.after


def test_patches_of_an_image():
    model = trained.looker("vit")
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.5], image_std=[0.25])
    image = Image.fromarray((128 + 60 * trained.pictures(1, seed=999)[0][0, 0]).clamp(0, 255).numpy().astype(np.uint8))
    (result,) = read_images(model, processor, [image], method="masking", verified=True)
    seen, most = result.verified, max(1, round(PATCHES * 16))
    order = np.argsort(-result.importance.ravel(), kind="stable")[:most]
    pixels = processor([image], return_tensors="pt")["pixel_values"]
    masked = pixels.clone()
    for cell in order:
        row, column = divmod(int(cell), 4)
        masked[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = pixels.mean()
    with torch.no_grad():
        chances = model(pixel_values=torch.cat([pixels, masked])).logits.softmax(-1)
    number = int(chances[0].argmax())
    assert seen.masked == ["row {}, column {}".format(*(n + 1 for n in divmod(int(cell), 4))) for cell in order]
    assert [seen.before, seen.after] == pytest.approx(chances[:, number].tolist(), abs=1e-5)


def test_charges_promise_nothing_and_a_sample_without_support_is_not_tried():
    model = attach_atoms(tiny("bert").eval(), AtomConfig(layer=-1), TOKENIZER)
    scorer = TextScorer(model, TOKENIZER)
    encoded = scorer.encode("the sea of rivers")
    (found,) = scorer.forward([encoded])
    result = scorer.result(encoded, found)
    seen = verify(scorer, encoded, found, result)
    assert seen is None or math.isnan(seen.promised)
    none = Scores(-np.abs(found.importance), found.logits, found.atom)
    assert verify(scorer, encoded, none, scorer.result(encoded, none)) is None


def test_what_an_explainer_promises_is_its_scaled_importance_and_an_equal_share_of_the_rest():
    from atom_hf.importance.results import Explained
    from atom_hf.importance.verify import Part, _promised_change

    importance = np.array([math.nan, 0.4, -0.1, 0.2, math.nan])
    # Everything 0.9, nothing 0.3; the parts, at a scale of 0.5, sum to 0.25; 0.35 is shared by three tokens.
    explained = Explained("a", True, 0.9, 0.3, 0.25)
    parts = [Part("x", [1], 0.4), Part("y", [2], -0.1), Part("z", [3], 0.2)]
    scorer = TextScorer(trained.classifier(), TOKENIZER, method="masking")
    scorer.method = "explainer"
    found = Scores(importance, None, None, explained)
    expected = 0.5 * 0.4 + 0.35 / 3 + 0.5 * 0.2 + 0.35 / 3
    assert _promised_change(scorer, found, parts, [parts[0], parts[2]]) == pytest.approx(expected)
