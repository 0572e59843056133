"""Importance of pictures of every mode, shape and model."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf.importance.read import read_images
from helpers.error_messages import error_message
from helpers.models import tiny
from helpers.scored import ready


@pytest.mark.parametrize("size", [(8, 8), (30, 20), (20, 30)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_and_shape(mode, size):
    model = ready(tiny("vit"), None)
    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    array = np.arange(size[0] * size[1]).reshape(size[::-1]) % 256
    shallow = Image.fromarray(array.astype(np.uint8))
    image = Image.fromarray((array * 257).astype(np.uint16)) if mode == "I;16" else shallow.convert(mode)
    (result,) = read_images(model, grey, [image], names=["a.png"])
    seen = shallow if mode == "I;16" else image.convert("L")
    values = model.atom_importance(pixel_values=grey([seen], return_tensors="pt")["pixel_values"])[0]
    np.testing.assert_allclose(result.importance.ravel(), values[1:].numpy(), atol=1e-5)
    assert result.image.mode == ("L" if mode == "I;16" else mode)  # as a page shows it
    assert result.on_pixels().shape == size[::-1] and result.box is None and result.name == "a.png"


@pytest.mark.parametrize(("name", "shape"), [("swin", (2, 4)), ("resnet", (2, 4))])
def test_feature_maps_of_pictures_that_are_not_square(name, shape):
    sizes = {"image_size": (8, 16)} if name == "swin" else {}
    model = ready(tiny(name, **sizes), None)
    height, width = (8, 16) if name == "swin" else (16, 32)
    grey = ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=[0.5], image_std=[0.5])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8))
    (result,) = read_images(model, grey, [image])
    values = model.atom_importance(**grey([image], return_tensors="pt"))[0]
    assert result.importance.shape == shape
    np.testing.assert_allclose(result.importance.ravel(), values.numpy(), atol=1e-5)
    assert result.on_pixels()[0, -1] == result.importance[0, -1]


def test_what_is_left_over_beside_whole_patches_is_in_none():
    model = ready(tiny("vit", image_size=(9, 11)), None)
    grey = ViTImageProcessorPil(size={"height": 9, "width": 11}, image_mean=[0.5], image_std=[0.5])
    (result,) = read_images(model, grey, [Image.new("L", (22, 9), 99)])
    assert result.importance.shape == (4, 5) and result.box == pytest.approx((0, 0, 20, 8))
    pixels = result.on_pixels()
    assert np.isnan(pixels[8]).all() and np.isnan(pixels[:, 20:]).all() and not np.isnan(pixels[:8, :20]).any()


def test_pictures_that_come_out_in_different_shapes():
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    model = ready(transformers.ResNetForImageClassification(config), None)
    as_they_are = ViTImageProcessorPil(do_resize=False, image_mean=[0.5], image_std=[0.5])
    images = [Image.new("L", size, 9) for size in ((32, 32), (32, 32), (48, 32), (32, 32))]
    shapes = [result.importance.shape for result in read_images(model, as_they_are, images)]
    assert shapes == [(4, 4), (4, 4), (4, 6), (4, 4)]


def test_colour_that_a_grey_model_does_not_see_is_said(caplog):
    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    images = [Image.new("RGB", (8, 8), (200, 9, 9)), Image.new("RGB", (8, 8), (9, 9, 9)), Image.new("L", (8, 8), 9)]
    read_images(ready(tiny("vit"), None), grey, images)
    assert "1 of 3 pictures have colour, which is left out: the model takes grey ones" in caplog.text


def test_values_without_a_scale_are_rejected():
    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    image = Image.fromarray(np.full((8, 8), -1.0, dtype=np.float32))
    error_message(
        lambda: read_images(ready(tiny("vit"), None), grey, [image]), "the picture's values run from -1 to -1"
    )
