"""Masked inputs, against loops over samples, tokens and pixels."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from atom_hf import AtomConfig, AtomError, attach_atoms
from atom_hf.explainer.masking import Masker, of_patches, on_pixels
from helpers.models import TEXT, batch_for, make_tokenizer, tiny

CLASSIFIERS = [name for name in TEXT if name != "gpt2"]
SPECIAL = {0, 2, 3, 4}  # [PAD] [CLS] [SEP] [MASK]; an unknown word is a word


def keep_at_random(shape, share=0.5, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def kept_by_hand(ids, attention, keep):
    """For each row what is left of it, special tokens always."""
    rows = []
    for row in range(len(ids)):
        left = []
        for place, number in enumerate(ids[row].tolist()):
            if attention[row, place] and (number in SPECIAL or keep[row, place]):
                left.append(number)
        rows.append(left)
    return rows


@pytest.mark.parametrize("name", [*CLASSIFIERS, "vit", "dinov2-registers"])
@pytest.mark.parametrize("attached", [False, True])
def test_what_can_be_masked_is_what_has_an_importance(name, attached):
    model, inputs = tiny(name), batch_for(name)
    tokenizer = make_tokenizer() if name in TEXT else None
    importance = attach_atoms(tiny(name), AtomConfig(layer=-1), tokenizer).atom_importance(**inputs)
    if attached:
        model = attach_atoms(model, AtomConfig(layer=-1), tokenizer)
    masker = Masker(model, tokenizer, "mask" if name in TEXT else "mean")
    assert torch.equal(masker.tokens(inputs, importance.shape[1]), ~importance.isnan())
    assert (~importance.isnan()).any(1).all() and importance.isnan().any()


def test_where_all_tokens_make_the_atom_special_ones_still_stay():
    model = attach_atoms(tiny("bert"), AtomConfig(layer=-1, tokens="all"), make_tokenizer())
    inputs = batch_for("bert")
    expected = torch.tensor([[number not in SPECIAL for number in row] for row in inputs["input_ids"].tolist()])
    assert torch.equal(Masker(model, make_tokenizer(), "mask").tokens(inputs, expected.shape[1]), expected)


def test_masked_tokens():
    inputs = batch_for("bert")
    keep = keep_at_random(inputs["input_ids"].shape)
    found = Masker(tiny("bert"), make_tokenizer(), "mask")(inputs, keep)
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        expected = [n if n in SPECIAL or keep[row, place] else 4 for place, n in enumerate(ids)]
        assert found["input_ids"][row].tolist() == expected
    assert torch.equal(found["attention_mask"], inputs["attention_mask"]) and 4 in found["input_ids"]


def test_without_a_mask_token_the_unknown_word_stands_in():
    tokenizer = make_tokenizer()
    tokenizer = type(tokenizer)(vocab=tokenizer.get_vocab(), model_max_length=48)
    tokenizer.mask_token = None
    assert Masker(tiny("bert"), tokenizer, "mask").mask_id == 1
    tokenizer.unk_token = None
    assert Masker(tiny("bert"), tokenizer, "mask").mask_id == 0


@pytest.mark.parametrize("side", ["right", "left"])
def test_dropped_tokens(side):
    inputs = {
        **batch_for("bert"),
        "token_type_ids": torch.arange(4)[:, None].expand(batch_for("bert")["input_ids"].shape),
    }
    tokenizer = type(make_tokenizer())(vocab=make_tokenizer().get_vocab(), padding_side=side)
    if side == "left":
        counts = inputs["attention_mask"].sum(1).tolist()
        for name in ("input_ids", "attention_mask"):
            rows = [row.roll(len(row) - count) for row, count in zip(inputs[name], counts, strict=True)]
            inputs[name] = torch.stack(rows)
    keep = keep_at_random(inputs["input_ids"].shape, 0.4)
    found = Masker(tiny("bert"), tokenizer, "drop")(inputs, keep)
    rows = kept_by_hand(inputs["input_ids"], inputs["attention_mask"], keep)
    longest = max(map(len, rows))
    assert found["input_ids"].shape == (4, longest) and longest < inputs["input_ids"].shape[1]
    for number, row in enumerate(rows):
        room = [0] * (longest - len(row))
        ones, kinds = [1] * len(row), [number] * len(row)
        padded = [room + part if side == "left" else part + room for part in (row, ones, kinds)]
        assert [found[name][number].tolist() for name in ("input_ids", "attention_mask", "token_type_ids")] == padded


def test_a_dropped_text_reads_like_one_that_never_had_the_words():
    tokenizer, model = make_tokenizer(), tiny("bert").eval()
    ids = tokenizer("the moon and the sea")["input_ids"]
    keep = torch.zeros(1, len(ids), dtype=torch.bool)
    keep[0, [2, 4]] = True
    short = torch.tensor([[ids[0], ids[2], ids[4], ids[-1]]])
    whole = {"input_ids": torch.tensor([ids]), "position_ids": torch.arange(len(ids))[None]}
    found = Masker(model, tokenizer, "drop")(whole, keep)
    assert torch.equal(found["input_ids"], short) and "position_ids" not in found
    assert torch.equal(model(**found).logits, model(short).logits)


def test_of_a_text_without_special_tokens_one_masked_word_is_left():
    tokenizer, model = make_tokenizer(), tiny("gpt2-classifier").eval()
    ids = torch.tensor([[60, 61, 62], [63, 64, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    keep = torch.tensor([[False, False, False], [True, False, False]])
    found = Masker(model, tokenizer, "drop")(inputs, keep)
    assert found["input_ids"].tolist() == [[4], [63]] and found["attention_mask"].tolist() == [[1], [1]]
    assert model(**found).logits.isfinite().all()


def picture(channels=3, size=(8, 12), count=3):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, channels, *size)).astype(np.float32))


@pytest.mark.parametrize("strategy", ["mean", "blur"])
@pytest.mark.parametrize("size", [(8, 12), (9, 13)])  # of 9 x 13 the last row and column are in none
def test_painted_patches(strategy, size):
    model = tiny("vit", image_size=size, patch_size=(2, 4), num_channels=3)
    pixels = picture(size=size)
    keep = keep_at_random((3, 13))
    keep[:, 0] = False  # [CLS] has no pixels
    found = Masker(model, None, strategy)({"pixel_values": pixels}, keep)["pixel_values"]
    expected = pixels.numpy().copy()
    for sample in range(3):
        for channel in range(3):
            ground = expected[sample, channel].copy()
            if strategy == "mean":
                ground[:] = ground.astype(np.float64).mean()
            else:
                for axis, deviation in ((0, 1.0), (1, 2.0)):
                    ground = ndimage.gaussian_filter1d(ground, deviation, axis, mode="nearest", truncate=3.0)
            for patch in range(12):
                if not keep[sample, 1 + patch]:
                    top, left = 2 * (patch // 3), 4 * (patch % 3)
                    expected[sample, channel, top : top + 2, left : left + 4] = ground[top : top + 2, left : left + 4]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert not torch.equal(found, pixels)


def test_kept_patches_are_untouched():
    inputs = batch_for("vit")
    masker = Masker(tiny("vit"), None, "blur")
    assert torch.equal(masker(inputs, torch.ones(4, 17, dtype=torch.bool))["pixel_values"], inputs["pixel_values"])


def test_pixels_and_patches():
    pixels = picture(size=(9, 13))
    sums = of_patches(pixels, (4, 3))
    spread = on_pixels(sums, pixels, (4, 3))
    for patch in range(12):
        top, left = 2 * (patch // 3), 4 * (patch % 3)
        expected = pixels[:, :, top : top + 2, left : left + 4].sum((1, 2, 3))
        torch.testing.assert_close(sums[:, patch], expected)
        assert (spread[:, top : top + 2, left : left + 4] == sums[:, patch, None, None]).all()
    assert (spread[:, 8] == 1).all() and (spread[:, :, 12] == 1).all()


def test_what_cannot_be_masked_is_rejected():
    with pytest.raises(AtomError, match="strategy must be one of mask, drop for a text model; got 'blur'"):
        Masker(tiny("bert"), make_tokenizer(), "blur")
    with pytest.raises(AtomError, match="strategy must be one of mean, blur for an image model; got 'mask'"):
        Masker(tiny("vit"), None, "mask")
    for name, length in (("resnet", 4), ("swin", 4)):
        with pytest.raises(AtomError, match="has no token for each patch of its image: give a model such as a ViT"):
            Masker(tiny(name), None, "mean").tokens(batch_for(name), length)
    with pytest.raises(AtomError, match="makes 9 tokens of"):
        Masker(tiny("bert"), make_tokenizer(), "mask").tokens(batch_for("bert"), 9)
