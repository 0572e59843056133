"""From data to what a Trainer takes: labels, pads and pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.finetune.inputs import prepare_inputs
from helpers.task_data import LINES, TINY_BERT, TINY_VIT, image_data, text_data

pytestmark = pytest.mark.usefixtures("own_cache")


def test_language_model_labels_end_and_leave_out_padding_only(without_pad):
    task = prepare_inputs(text_data(LINES), model=without_pad)
    batch = task.collator([task.train[i] for i in range(len(LINES))])
    end = task.processing_class.eos_token_id
    lengths = [len(line.split()) for line in LINES]
    assert batch["labels"].shape == (3, max(lengths) + 1)
    for row, length in enumerate(lengths):
        ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        assert labels[:length] == ids[:length] and end not in labels[:length]
        assert labels[length] == end  # which is the pad token too, and still to be learnt
        assert set(labels[length + 1 :]) <= {-100}
        assert batch["attention_mask"][row].tolist() == [1] * (length + 1) + [0] * (max(lengths) - length)
    assert (batch["labels"] == -100).any()


def test_pad_token_is_set_for_gpt2(without_pad):
    task = prepare_inputs(text_data(LINES), model=without_pad)
    assert task.processing_class.pad_token == "<|endoftext|>"
    assert task.model.config.pad_token_id == task.processing_class.pad_token_id == 0
    # As a classifier too, which finds its last token by the pad token.
    task = prepare_inputs(text_data(LINES, [0, 1, 0]), model=without_pad)
    assert task.model.config.pad_token_id == 0
    batch = task.collator([task.train[i] for i in range(3)])
    task.model.eval()
    with torch.no_grad():
        together = task.model(**batch).logits
        alone = [task.model(**task.collator([task.train[i]])).logits for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_long_texts_are_cut(without_pad):
    long = text_data(["sea " * 100, "sea"])
    assert max(map(len, prepare_inputs(long, model=without_pad, max_length=7).train["input_ids"])) == 7
    # The model has 32 positions.
    assert max(map(len, prepare_inputs(long, model=without_pad, max_length=500).train["input_ids"])) == 32
    with pytest.raises(AtomError, match="--max_length must be at least 2, got 1"):
        prepare_inputs(long, model=without_pad, max_length=1)


def test_language_models_have_no_metrics_of_classes(without_pad):
    assert prepare_inputs(text_data(LINES), model=without_pad).compute_metrics is None


def test_pairs_of_texts_are_both_read():
    data = text_data(["a sea", "b"], [0, 1], ["calm tonight", "moon lies fair"])
    task = prepare_inputs(data, model=None, model_type="bert", config_overrides=TINY_BERT, vocabulary_size=300)
    tokenizer = task.processing_class
    assert tokenizer.decode(task.train["input_ids"][0]).replace(" ", "") == "aseacalmtonight"


def test_pictures_are_read_when_they_are_needed():
    pictures = [Image.new("L", (12, 12), 10 * i) for i in range(4)]
    task = prepare_inputs(image_data(pictures), model=None, model_type="vit", config_overrides=TINY_VIT)
    assert not task.remove_unused_columns
    batch = task.collator([task.train[i] for i in (0, 3)])
    assert batch["pixel_values"].shape == (2, 3, 8, 8) and batch["labels"].tolist() == [0, 1]
    assert task.model(**batch).logits.shape == (2, 2)


def test_mirrored_at_random_in_training_only():
    half = np.zeros((8, 8), np.uint8)
    half[:, :4] = 255
    data = image_data([Image.fromarray(half)] * 64)
    plain = prepare_inputs(data, model=None, model_type="vit", config_overrides=TINY_VIT)
    flipped = prepare_inputs(data, model=None, model_type="vit", config_overrides=TINY_VIT, horizontal_flip=True)

    def left(rows):
        return torch.stack([row["pixel_values"] for row in rows.select(range(64))])[:, 0, 0, 0]

    assert left(plain.train).eq(1).all() and left(flipped.eval).eq(1).all()
    torch.manual_seed(0)
    first = left(flipped.train)
    assert set(first.tolist()) == {-1.0, 1.0} and 10 < first.eq(-1).sum() < 54
    pixels = next(row["pixel_values"] for row in flipped.train if row["pixel_values"][0, 0, 0] == -1)
    assert torch.equal(pixels, plain.train[0]["pixel_values"].flip(-1))
