"""What a card shows of the evaluation data: classes, rows and pictures."""

import datasets
import numpy as np
import pytest
from PIL import Image

from atom_hf import AtomConfig, attach_atoms
from atom_hf.data.load import TaskData
from atom_hf.finetune.card_samples import class_results, sample_facts
from atom_hf.finetune.pretrained import make_image_processor
from helpers.models import make_tokenizer, tiny


def test_each_class_by_hand():
    truth, chosen = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    found = class_results(chosen, truth, ["a", "b", "c", "absent"])
    assert [(each.name, each.samples) for each in found] == [("a", 3), ("b", 2), ("c", 1), ("absent", 0)]
    # a: 2 of 4 that were called so, 2 of 3 that are. b: 1 of 2, 1 of 2. c and the absent: none.
    values = [(each.precision, each.recall, each.f1) for each in found]
    assert values[0] == pytest.approx((0.5, 2 / 3, 4 / 7)) and values[1] == (0.5, 0.5, 0.5)
    assert values[2] == values[3] == (0, 0, 0)


def data_of(**columns):
    rows = datasets.Dataset.from_dict(columns)
    task = "image-classification" if "image" in columns else "text-classification"
    return TaskData("lines", task, rows, rows, ["no", "yes"])


def model_of(name):
    return attach_atoms(tiny(name), AtomConfig(), make_tokenizer() if name == "bert" else None).eval()


def test_texts_are_rows_with_their_prediction_and_a_picture(tmp_path):
    lines = [f"{word} sea is cold" for word in ("the", "a", "one", "this")]
    found = sample_facts(model_of("bert"), make_tokenizer(), data_of(text=lines, label=[0, 1, 0, 1]), 3, tmp_path)
    assert found["picture"] == "importance.png" and len(found["examples"]) == 3
    for example in found["examples"]:
        assert example.text in lines and example.label == ["no", "yes"][lines.index(example.text) % 2]
        assert example.predicted and 0 < example.confidence <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["importance.png"]


def test_long_texts_are_rows_and_not_on_the_picture(tmp_path):
    data = data_of(text=["the sea is cold and grey " * 40] * 3, label=[0, 1, 0])
    found = sample_facts(model_of("bert"), make_tokenizer(), data, 2, tmp_path)
    assert found["picture"] is None and len(found["examples"]) == 2 and not list(tmp_path.iterdir())


def test_pictures_are_a_sheet_and_one_to_try(tmp_path):
    model = model_of("vit")
    size = model.config.image_size
    images = [Image.fromarray(np.full((size, size), 20 * i, np.uint8)) for i in range(5)]
    processor = make_image_processor(model.config)
    found = sample_facts(model, processor, data_of(image=images, label=[0, 1, 0, 1, 0]), 1, tmp_path)
    assert found == {"picture": "importance.png", "sample_picture": "sample.png"}
    with Image.open(tmp_path / "sample.png") as sample:
        assert sample.size == (size, size)


def test_nothing_is_shown_where_none_is_wanted_or_none_can_be_read(tmp_path, caplog):
    caplog.set_level("INFO", "atom_hf")
    data = data_of(text=["the sea"], label=[0])
    assert sample_facts(model_of("bert"), make_tokenizer(), data, 0, tmp_path) == {}
    assert sample_facts(tiny("bert"), make_tokenizer(), data, 3, tmp_path) == {}
    assert "the card shows no samples: " in caplog.text and not list(tmp_path.iterdir())
