"""From rows to the inputs of a model."""

import numpy as np
import pytest
from PIL import Image

from atom_hf.data.encoding import image_inputs
from atom_hf.finetune.inputs import prepare_inputs
from helpers.task_data import LINES, TINY_BERT, TINY_GPT2, TINY_VIT, image_data, text_data

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("given", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_any_mode_become_what_the_model_takes(channels, mode, given):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).convert(given)
    data = image_data([picture.convert("RGB")] * 2)
    overrides = {**TINY_VIT, "num_channels": channels}
    task = prepare_inputs(data, model=None, model_type="vit", config_overrides=overrides)
    pixels = image_inputs([picture, picture], task.processing_class, task.model.config)
    expected = np.asarray(picture.convert(mode), dtype=np.float32).reshape(8, 8, channels).transpose(2, 0, 1)
    assert pixels.shape == (2, channels, 8, 8)
    np.testing.assert_allclose(pixels[0].numpy(), expected / 127.5 - 1, atol=1e-5)


def test_encoded_evaluation_rows_are_the_evaluation_rows():
    pictures = [Image.new("L", (8, 8), 20 * i) for i in range(4)]
    for data, options in (
        (image_data(pictures), {"model_type": "vit", "config_overrides": TINY_VIT, "horizontal_flip": True}),
        (text_data(LINES, [0, 1, 0]), {"model_type": "bert", "config_overrides": TINY_BERT, "vocabulary_size": 300}),
        (text_data(LINES), {"model_type": "gpt2", "config_overrides": TINY_GPT2, "vocabulary_size": 300}),
    ):
        task = prepare_inputs(data, model=None, **options)
        for ours, theirs in zip(task.encode(data.eval), task.eval, strict=True):
            assert {k: np.asarray(v).tolist() for k, v in ours.items()} == {
                k: np.asarray(v).tolist() for k, v in theirs.items()
            }


def test_pixels_are_made_without_a_hold_on_the_model():
    """Datasets pickles what makes them, with all that it refers to, each time that rows are encoded."""
    data = image_data([Image.new("L", (8, 8))] * 2)
    task = prepare_inputs(data, model=None, model_type="vit", config_overrides=TINY_VIT)
    pickled = []

    def reduce(model, protocol):
        pickled.append(model)
        return object.__reduce_ex__(model, protocol)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task.model), "__reduce_ex__", reduce)
        task.encode(data.eval)
        assert pickled == []
        data.eval.with_transform(lambda rows: {"n": [len(list(task.model.parameters()))]})
        assert pickled, "what holds the model is found out"
