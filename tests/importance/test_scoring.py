"""Scorers against `atom_importance` of one sample at a time, over models that pad, count and see in their own ways."""

import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomConfig, AtomError, Atoms, attach_atoms
from atom_hf.importance.read import read_images, read_texts
from atom_hf.importance.scoring import predict
from helpers.models import make_tokenizer, tiny

TEXTS = ["the sea", "And rivers rushing of great the moon", "a", "great the sea of rivers and seas", ""]
SMALL = {"vocab_size": 400, "pad_token_id": 0}
MODELS = {
    "classifier without padding": lambda: tiny("gpt2-classifier", pad_token_id=None),
    "GPT-2 classifier": lambda: tiny("gpt2-classifier"),
    "RoBERTa": lambda: tiny("roberta"),
    "XLNet": lambda: transformers.XLNetForSequenceClassification(
        transformers.XLNetConfig(**SMALL, d_model=16, n_layer=2, n_head=2, d_inner=16)
    ),
    "BART": lambda: transformers.BartForSequenceClassification(
        transformers.BartConfig(
            **SMALL, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=48, eos_token_id=3,
        )
    ),
    "T5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**SMALL, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ),
}  # fmt: skip


def ready(model, tokenizer, layer=-1):
    return attach_atoms(model.eval(), AtomConfig(layer=layer), tokenizer)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_is_read_as_its_texts_alone(kind, side):
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = ready(MODELS[kind](), tokenizer)
    before = tokenizer.padding_side, model.config.pad_token_id
    tokenizer.padding_side = side
    try:
        results = read_texts(model, tokenizer, TEXTS)
    finally:
        tokenizer.padding_side = before[0]
    assert model.config.pad_token_id == before[1]
    for text, result in zip(TEXTS, results, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        values = model.atom_importance(**encoded)[0]
        found = [piece.importance for piece in result.pieces]
        assert found == pytest.approx(values[~values.isnan()].tolist(), abs=1e-5) and len(found) == len(values) - 2
        with torch.no_grad():
            outputs = model(
                **encoded, **({"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if kind == "T5" else {})
            )
        if kind == "T5":
            assert result.predicted is None and result.confidence is None
        else:
            scores = outputs.logits.softmax(-1)[0]
            assert result.confidence == pytest.approx(float(scores.max()), abs=1e-5)
            assert result.predicted == model.config.id2label[int(scores.argmax())]


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_the_atom_of_a_sample(name):
    model = ready(tiny(name), make_tokenizer())
    if name == "vit":
        grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
        images = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 90, 255)]
        results = read_images(model, grey, images)
        inputs = grey(images, return_tensors="pt")
    else:
        results = read_texts(model, make_tokenizer(), TEXTS[:3])
        inputs = make_tokenizer()(TEXTS[:3], return_tensors="pt", padding=True)
    with torch.no_grad():
        atoms = Atoms.unpack(model(**inputs, return_atoms=True).atoms)
    for row, result in enumerate(results):
        assert result.atom.positive == pytest.approx(float(atoms.positive[row]), abs=1e-5)
        assert result.atom.negative == pytest.approx(float(atoms.negative[row]), abs=1e-5)
        assert result.atom.radius == pytest.approx(float(atoms.radius[row]), abs=1e-5)
        np.testing.assert_allclose(result.atom.center, atoms.center[row].numpy(), atol=1e-5)
        assert result.atom.center.dtype == np.float32


def test_a_text_without_tokens_is_no_atom():
    model = ready(tiny("bert"), make_tokenizer())
    (result,) = read_texts(model, make_tokenizer(), [""])
    assert result.words == [] and result.atom is None and result.predicted


def test_a_language_model_is_not_asked_for_the_logits_of_every_token():
    model = ready(tiny("gpt2"), make_tokenizer())
    shapes = []
    model.lm_head.register_forward_hook(lambda _, __, logits: shapes.append(tuple(logits.shape)))
    read_texts(model, make_tokenizer(), TEXTS[:3])
    assert [shape[:2] for shape in shapes] == [(3, 1)]


def test_roberta_counts_its_places_from_behind_the_padding():
    """Of 50 places it has 49: with padding at 0 the first token is at 1."""
    tokenizer = make_tokenizer()
    model = ready(tiny("roberta"), tokenizer)
    tokenizer.model_max_length, before = int(1e30), tokenizer.model_max_length
    try:
        (result,) = read_texts(model, tokenizer, [" ".join(["the"] * 100)])
    finally:
        tokenizer.model_max_length = before
    assert sum(not math.isnan(word.importance) for word in result.words) == 47 and result.truncated


@pytest.mark.parametrize("size", [(8, 8), (30, 20), (20, 30)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_and_shape(mode, size):
    model = ready(tiny("vit"), None)
    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    array = np.arange(size[0] * size[1]).reshape(size[::-1]) % 256
    image = Image.fromarray(array.astype(np.uint16 if mode == "I;16" else np.uint8))
    image = image if mode == "I;16" else image.convert(mode)
    (result,) = read_images(model, grey, [image], names=["a.png"])
    values = model.atom_importance(pixel_values=grey([image.convert("L")], return_tensors="pt")["pixel_values"])[0]
    np.testing.assert_allclose(result.importance.ravel(), values[1:].numpy(), atol=1e-5)
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


def test_predictions_of_every_kind_of_classifier():
    config = transformers.BertConfig(num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    logits = np.array([0.5, 2.0, -1.0])
    label, score = predict(logits, config)
    assert label == "b" and score == pytest.approx(math.exp(2) / sum(map(math.exp, logits)))
    config.problem_type = "multi_label_classification"
    assert predict(logits, config) == ("b", pytest.approx(1 / (1 + math.exp(-2))))
    assert predict(np.array([0.125]), transformers.BertConfig(num_labels=1)) == ("0.125", None)
    assert predict(None, config) == (None, None)


def test_models_that_cannot_be_read_are_rejected():
    tokenizer = make_tokenizer()
    vit, bert = ready(tiny("vit"), None), ready(tiny("bert"), tokenizer)
    with pytest.raises(AtomError, match="takes pixel_values, not texts"):
        read_texts(vit, tokenizer, TEXTS)
    with pytest.raises(AtomError, match="takes input_ids, not images"):
        read_images(bert, None, [])
    with pytest.raises(AtomError, match="has no heads; load it with load_atom_model"):
        read_texts(tiny("bert"), tokenizer, TEXTS)
    bart = attach_atoms(MODELS["BART"](), AtomConfig(layer=-1, side="decoder"), tokenizer)
    with pytest.raises(AtomError, match="the decoder's output"):
        read_texts(bart, tokenizer, TEXTS)
    config = transformers.FunnelConfig(
        **SMALL, block_sizes=[1, 1], num_decoder_layers=1, d_model=16, n_head=2, d_head=8
    )
    funnel = ready(transformers.FunnelForSequenceClassification(config), tokenizer)
    with pytest.raises(AtomError, match="shortens its sequence"):
        read_texts(funnel, tokenizer, ["the sea and the moon of great rivers"])


def test_lists_that_do_not_fit_are_rejected():
    bert = ready(tiny("bert"), make_tokenizer())
    for given, says in (
        (("the sea",), "texts must be a list, got one string"),
        ((["a", "b"], ["label"]), "labels: 1 for 2 texts; give one each"),
    ):
        with pytest.raises(AtomError, match=says):
            read_texts(bert, make_tokenizer(), *given)
    with pytest.raises(AtomError, match="pairs: 1 for 2 texts"):
        read_texts(bert, make_tokenizer(), ["a", "b"], pairs=["c"])
    with pytest.raises(AtomError, match="batch_size must be at least 1, got 0"):
        read_texts(bert, make_tokenizer(), ["a"], batch_size=0)
    with pytest.raises(AtomError, match="does not know where its pieces come from"):
        read_texts(bert, object(), ["a"])
