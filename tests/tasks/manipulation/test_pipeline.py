"""The pipeline "attribute-manipulation", from the name of its task on."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import atom_hf
from atom_hf.tasks import Manipulator, ManipulatorConfig
from helpers.manipulators import digit_rows, digits_manipulator
from helpers.models import tiny


@pytest.fixture(scope="module")
def edit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editor")
    digits_manipulator().save_pretrained(folder)
    return pipeline("attribute-manipulation", model=str(folder), device="cpu")


def pictures(count):
    return [Image.fromarray(pixels[0].numpy()) for pixels in digit_rows()[2].values[:count]]


def test_a_picture_is_turned_into_a_class(edit):
    found = edit(pictures(1)[0], to="eight")
    values, manipulator = digit_rows()[2].floats[:1], digits_manipulator()
    expected = manipulator.edit(values, "eight")
    assert np.abs(np.asarray(found["image"], dtype=float) / 255 - expected[0, 0].numpy()).max() < 0.6 / 255
    assert found["label"] == manipulator.config.labels[int(manipulator.classify(values).argmax())]
    assert (found["to"], found["strength"]) == ("eight", 1.0)
    assert found["score"] == pytest.approx(float(manipulator.classify(expected).softmax(1)[0, 8].detach()), abs=1e-5)


def test_lists_strengths_and_other_pictures(edit):
    alone = [edit(picture, to=2, strength=0.5) for picture in pictures(3)]
    for one, other in zip(edit(pictures(3), to=2, strength=0.5), alone, strict=True):
        assert np.array_equal(one["image"], other["image"]) and one["score"] == pytest.approx(other["score"])
    large = edit(Image.new("RGB", (30, 20), "white"), to="one")
    assert large["image"].size == (8, 8) and large["image"].mode == "L"


def test_vectors():
    torch.manual_seed(0)
    config = ManipulatorConfig(
        put="residual",
        data_sizes=[3],
        hidden_sizes=[4],
        classifier={"architecture": "linear"},
        id2label={0: "a", 1: "b"},
    )
    found = pipeline("attribute-manipulation", model=Manipulator(config).eval(), device="cpu")(
        np.array([1.0, 2, 3]), to="b"
    )
    assert found["vector"].tolist() == [1, 2, 3]  # a new editor changes nothing


def test_what_is_wrong_is_said_in_one_line(edit):
    for options, says in (
        ({}, "to: give the class to turn it into, one of zero, one"),
        ({"to": "ten"}, "to: there is no class 'ten'"),
        ({"to": 1, "strength": 2}, "strength must be from 0 to 1, got 2"),
        ({"to": 1, "power": 2}, "no such option: power; attribute-manipulation takes to and strength"),
    ):
        with pytest.raises(atom_hf.AtomError, match=says):
            edit(pictures(1)[0], **options)
    with pytest.raises(atom_hf.AtomError, match="is no manipulator; make one by atom-hf manipulate"):
        pipeline("attribute-manipulation", model=tiny("vit"), device="cpu")


FRESH = """
import numpy as np
from transformers import pipeline
import atom_hf
edit = pipeline("attribute-manipulation", model="saved", device="cpu")
print(edit(np.array([1.0, 2, 3]), to=1)["vector"].tolist())
"""


@pytest.mark.slow
def test_it_is_found_where_nothing_else_was_imported(tmp_path):
    config = ManipulatorConfig(put="residual", data_sizes=[3], hidden_sizes=[4], classifier={"architecture": "linear"})
    Manipulator(config).save_pretrained(tmp_path / "saved")
    found = subprocess.run([sys.executable, "-c", FRESH], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[-2] == "[1.0, 2.0, 3.0]"
