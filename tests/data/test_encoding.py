"""From rows to the inputs of a model."""

import numpy as np
import pytest
from PIL import Image

from atom_hf import AtomError, attach_atoms
from atom_hf.data.encoding import encode_rows, image_inputs, longest_length, position_limit
from atom_hf.finetune.inputs import prepare_inputs
from atom_hf.importance.read import read_texts
from helpers.models import make_tokenizer, tiny
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


# Books


@pytest.mark.parametrize("pairs", [None, ["of great rivers " * 20_000] * 3], ids=["text", "pair"])
def test_of_books_only_what_can_be_read_is_tokenized(pairs, monkeypatch):
    tokenizer, read = make_tokenizer(), []
    whole = type(tokenizer).__call__

    def reading(self, *texts, **options):
        read.extend(text for given in texts for text in ([given] if isinstance(given, str) else given or []))
        return whole(self, *texts, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", reading)
    model, book = tiny("bert"), "And rivers rushing of great the moon " * 10_000
    rows = [{"text": book, **({"text_pair": pairs[0]} if pairs else {})}] * 2
    inputs = encode_rows(rows, model, tokenizer)
    assert inputs["input_ids"].shape == (2, 48) and max(map(len, read)) < 10_000
    short = [{name: text[:1000] for name, text in row.items()} for row in rows]
    assert encode_rows(short, model, tokenizer)["input_ids"].tolist() == inputs["input_ids"].tolist()


def test_training_rows_of_books_are_those_of_their_beginning(tmp_path):
    tiny("bert").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    found = []
    for length in (1000, 400_000):
        texts, pairs = (["And rivers rushing of the moon "[start:] * 20_000 for _ in LINES] for start in (0, 4))
        data = text_data([text[:length] for text in texts], [0, 1, 0], [pair[:length] for pair in pairs])
        found.append(prepare_inputs(data, model=str(tmp_path)).train["input_ids"])
    assert found[0] == found[1] and len(found[0][0]) == 48


# Tokenizers of other models


def rejected(act):
    with pytest.raises(AtomError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text and text.endswith("give the tokenizer that the model was trained with")
    return text


@pytest.fixture
def small(tmp_path):
    """A folder of a model with fewer tokens than `make_tokenizer` has pieces, beside that tokenizer."""
    tiny("bert", vocab_size=20).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("labels", [[0, 1, 0], None], ids=["classifier", "language model"])
def test_ids_that_the_model_does_not_have_are_rejected_before_training(labels, small, tmp_path):
    if labels is None:
        tiny("gpt2", vocab_size=20).save_pretrained(tmp_path / "lm")
    model = small if labels else str(tmp_path / "lm")
    text = rejected(lambda: prepare_inputs(text_data(LINES, labels), model=model, tokenizer=small))
    assert text.startswith(f"the tokenizer (BertTokenizer of {len(make_tokenizer())} pieces) is not that of this ")
    assert "input_ids up to " in text and "the model has 20" in text


def test_ids_that_the_model_does_not_have_are_rejected_where_importance_is_read():
    model = attach_atoms(tiny("bert", vocab_size=20).eval(), None, make_tokenizer())
    assert "input_ids" in rejected(lambda: read_texts(model, make_tokenizer(), LINES))
    assert "input_ids" in rejected(lambda: encode_rows([{"text": LINES[0]}], model, make_tokenizer()))


def test_a_second_text_of_a_model_that_takes_one():
    model = tiny("bert", type_vocab_size=1)
    row = {"text": LINES[0], "text_pair": LINES[1]}
    assert "token_type_ids up to 1, and the model has 1" in rejected(
        lambda: encode_rows([row], model, make_tokenizer())
    )
    encode_rows([{"text": LINES[0]}], model, make_tokenizer())


def test_pieces_that_no_text_uses_do_not_matter():
    tokenizer = make_tokenizer()
    needed = max(tokenizer(LINES[0])["input_ids"]) + 1
    assert needed < len(tokenizer)
    encode_rows([{"text": LINES[0]}], tiny("bert", vocab_size=needed), tokenizer)


def test_a_text_is_cut_where_the_places_of_a_model_end():
    """RoBERTa of 50 places has 48 of them with padding at 1."""
    model, tokenizer = tiny("roberta", pad_token_id=1), make_tokenizer()
    assert position_limit(model) == longest_length(model, tokenizer, 1000) == 48
    assert position_limit(tiny("bert")) == 48 and longest_length(tiny("bert"), tokenizer, 20) == 20
    inputs = encode_rows([{"text": "the " * 100}], model, tokenizer, 1000)
    assert model(**inputs).logits.shape == (1, 2) and inputs["input_ids"].shape == (1, 48)
