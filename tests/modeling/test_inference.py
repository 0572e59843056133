"""Forward passes for inference."""

import math

import pytest
import torch

from atom_hf.modeling.inference import default_device
from helpers.error_messages import error_message
from helpers.models import attached, batch_for

pytestmark = pytest.mark.promise(
    "The cause that an error names is the real one.",
    "weights and inputs that are not finite",
)


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_used_if_there_is_one(monkeypatch, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert default_device() == device


# Numbers that are not finite look like missing tokens, whose importance is NaN.


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.output.dense.bias"])
def test_weights_that_are_not_finite_are_called_that(value, name):
    model = attached("bert")
    model.get_parameter(name).data.fill_(value)
    error_message(
        lambda: model.atom_importance(**batch_for("bert")), "weights of this BertForSequence", name, "not finite"
    )
    model.get_parameter("classifier.bias").data.fill_(value)
    error_message(lambda: model.atom_importance(**batch_for("bert")), f"{name} and 1 more")


def test_weights_behind_the_layer_do_not_keep_importance_from_being_read():
    model = attached("bert")
    expected = model.atom_importance(**batch_for("bert"))
    model.classifier.weight.data.fill_(math.nan)
    assert torch.equal(model.atom_importance(**batch_for("bert")).nan_to_num(9), expected.nan_to_num(9))


def test_inputs_that_are_not_finite_are_called_that():
    model, pixels = attached("vit"), batch_for("vit")["pixel_values"].clone()
    pixels[2, 0, 3, 3] = math.nan
    error_message(
        lambda: model.atom_importance(pixel_values=pixels), "pixel_values: the inputs hold numbers that are not"
    )


def test_a_data_type_that_overflows_is_called_that():
    model = attached("bert", dropout=0.0)
    model.bert.encoder.layer[-1].output.LayerNorm.weight.data.fill_(1e38)
    model.bert.encoder.layer[-1].output.LayerNorm.bias.data.fill_(3e38)
    error_message(lambda: model.atom_importance(**batch_for("bert")), "layer -1", "not finite (torch.float32)")


def test_samples_without_a_token_are_no_such_numbers():
    model = attached("bert")
    batch = {name: value[:, :2] for name, value in batch_for("bert").items()}
    batch["attention_mask"] = torch.zeros_like(batch["attention_mask"])
    assert model.atom_importance(**batch).isnan().all()
