"""The first samples: what makes no atoms is rejected with its real cause, and what makes some is trained on."""

import math

import pytest
import torch
from datasets import IterableDataset

from atom_hf import AtomTrainer
from atom_hf.training.first_samples import MOST_PAIRS, pairs_to_try
from helpers.error_messages import error_message
from helpers.models import make_tokenizer, rows_for, tiny
from helpers.training import arguments, make

pytestmark = pytest.mark.promise(
    "The cause that an error names is the real one.",
    "no row or one, blank texts, streams, packing",
)


BLANK = {"input_ids": [2, 3], "attention_mask": [1, 1], "labels": 0}


def stream(rows, times=1):
    def generate():
        yield from [
            {name: list(value) if name != "labels" else value for name, value in row.items()} for row in rows
        ] * times

    return IterableDataset.from_generator(generate)


def losses(trainer):
    trainer.train()
    assert trainer.state.global_step == 3
    found = [entry["atom_loss"] for entry in trainer.state.log_history if "atom_loss" in entry]
    assert len(found) == 3 and all(map(math.isfinite, found))
    return found


@pytest.mark.parametrize("blank", [[0], [0, 1], [0, 1, 2, 3, 4, 5], list(range(14)), list(range(1, 16))])
def test_blank_texts_are_trained_on_beside_others(blank, tmp_path):
    rows = [BLANK if number in blank else row for number, row in enumerate(rows_for("bert"))]
    losses(make("bert", tmp_path, rows=rows, atom=True))


@pytest.mark.parametrize("count", [2, 7, 100])
def test_blank_texts_alone_are_rejected_as_such(count, tmp_path):
    trainer = make("bert", tmp_path, rows=[BLANK] * count, atom=True)
    error_message(
        trainer.train, "train_dataset: atom_tokens='content' leaves no token in any", "whether their texts are blank"
    )
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_are_rejected_as_such(count, tmp_path):
    trainer = make("bert", tmp_path, rows=rows_for("bert")[:count], atom=True)
    message = error_message(trainer.train, f"train_dataset: it has {count} row", "give two or more")
    assert "data_collator" not in message


def test_one_row_of_a_stream(tmp_path):
    trainer = make("bert", tmp_path, rows=stream(rows_for("bert")[:1]), atom=True)
    error_message(trainer.train, "train_dataset: its first batch of 4 is one row: either it has one sample")


def test_a_stream_that_begins_with_blank_texts(tmp_path):
    found = losses(make("bert", tmp_path, rows=stream([BLANK] * 4 + rows_for("bert")), atom=True))
    assert found[0] != found[1]


def packing(features):
    ids = torch.tensor([[token for feature in features for token in feature["input_ids"][:8]]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([features[0]["labels"]])}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_collator_that_packs(streamed, tmp_path):
    rows = stream(rows_for("bert")) if streamed else rows_for("bert")
    options = {"args": arguments(tmp_path, atom=True), "processing_class": make_tokenizer()}
    trainer = AtomTrainer(model=tiny("bert"), train_dataset=rows, data_collator=packing, **options)
    error_message(
        trainer.train, "data_collator", "puts several samples into one row (packing, padding-free)", "one that pads"
    )


def test_one_row_without_the_flag(tmp_path):
    trainer = make("bert", tmp_path, rows=rows_for("bert")[:1], atom=False)
    trainer.train()
    assert trainer.state.global_step == 3


@pytest.mark.parametrize("count", [2, 3, 31, 32, 33, 1000])
def test_pairs_are_of_the_first_two_and_spread_over_all(count):
    pairs = pairs_to_try(count)
    assert pairs[0] == [0, 1] and len(pairs) <= MOST_PAIRS
    assert all(0 <= row < count for pair in pairs for row in pair)
    assert max(map(max, pairs)) > count * 0.9 - 2
