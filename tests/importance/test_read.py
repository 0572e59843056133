"""Results of texts and pictures against the model's own `atom_importance`, one sample at a time and by hand."""

import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from atom_hf import AtomConfig, attach_atoms
from atom_hf.importance.read import read_images, read_texts

PIECES = ["un", "##break", "##able", "sea", "##s", "the", "is", "calm", "moon", "##light", ",", ".", "a", "b", "c"]
TEXTS = ["The seas is unbreakable, calm.", "moonlight", "a b, the sea is calm. the moon is c", "b unbreakable"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def wordpiece(max_length=24):
    """BERT's own way of cutting words, with a vocabulary of a few pieces."""
    vocabulary = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *PIECES])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **special)


def distinct(model):
    """Weights large enough that outputs differ visibly from one input to the next."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5)
    return model.eval()


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(PIECES) + 4, max_position_embeddings=24, **SIZES)
    config.id2label = {0: "still", 1: "rough", 2: "wild"}
    return attach_atoms(distinct(transformers.BertForSequenceClassification(config)), AtomConfig(layer=-1), wordpiece())


@pytest.fixture(scope="module", params=[1, 3])
def vit(request):
    torch.manual_seed(0)
    size = {"image_size": (8, 12), "patch_size": 2, "num_channels": request.param}
    config = transformers.ViTConfig(**SIZES, **size)
    config.id2label = {0: "ship", 1: "moon"}
    return attach_atoms(distinct(transformers.ViTForImageClassification(config)), AtomConfig(layer=-1))


def processor_of(model):
    half, (height, width) = [0.5] * model.config.num_channels, model.config.image_size
    kind = transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil
    return kind(size={"height": height, "width": width}, image_mean=half, image_std=half)


def pictures(count, mode="RGB"):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).convert(mode) for _ in range(count)]


def pixels_of(picture, model):
    channels = model.config.num_channels
    array = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32).reshape(8, 12, channels)
    return torch.from_numpy(array.transpose(2, 0, 1) / 127.5 - 1)[None]


def softmax(logits):
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


# Texts


def words(result):
    return [span.text for span in result.words]


def values(result):
    return [span.importance for span in result.words]


def words_by_hand(model, text):
    """Words and their importance, from one forward pass of this text alone: pieces joined at their ## marks."""
    tokenizer = wordpiece()
    encoded = tokenizer(text, return_tensors="pt")
    importance = model.atom_importance(**encoded)[0].tolist()
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    found, groups = [], []
    for piece, value in zip(pieces[1:-1], importance[1:-1], strict=True):
        if piece.startswith("##"):
            found[-1] += piece[2:]
            groups[-1].append(value)
        else:
            found.append(piece)
            groups.append([value])
    return found, [sum(group) / len(group) for group in groups]


def test_a_word_is_the_mean_over_its_pieces(bert):
    for text, result in zip(TEXTS, read_texts(bert, wordpiece(), TEXTS), strict=True):
        found, means = words_by_hand(bert, text)
        assert [word.lower() for word in words(result)] == found
        assert values(result) == pytest.approx(means, abs=1e-6)
    # Not a test of words of one piece: this one has three, and they differ.
    unbreakable = wordpiece()("unbreakable", return_tensors="pt")
    three = bert.atom_importance(**unbreakable)[0, 1:4]
    (result,) = read_texts(bert, wordpiece(), ["unbreakable"])
    assert three.std() > 0.01 and values(result) == pytest.approx([three.mean().item()], abs=1e-6)
    assert [piece.text for piece in result.pieces] == ["un", "break", "able"]
    assert [piece.importance for piece in result.pieces] == pytest.approx(three.tolist(), abs=1e-6)


def test_words_are_those_of_the_text_and_special_tokens_are_none(bert):
    result = read_texts(bert, wordpiece(), [TEXTS[0]])[0]
    assert words(result) == ["The", "seas", "is", "unbreakable", ",", "calm", "."]
    assert all(-1 <= value <= 1 for value in values(result))


def test_a_pair_is_read_as_one(bert):
    """The importance and the prediction are of both texts together; words of either keep to their own."""
    texts, pairs = ["a sea", "moonlight"], ["the moon is unbreakable", "b, c"]
    results = read_texts(bert, wordpiece(), texts, pairs=pairs)
    assert [words(result) for result in results] == [
        ["a", "sea", "the", "moon", "is", "unbreakable"],
        ["moonlight", "b", ",", "c"],
    ]
    for text, pair, result in zip(texts, pairs, results, strict=True):
        encoded = wordpiece()(text, pair, return_tensors="pt")
        importance = bert.atom_importance(**encoded)[0].tolist()
        pieces = wordpiece().convert_ids_to_tokens(encoded["input_ids"][0])
        groups = []
        for piece, value in zip(pieces, importance, strict=True):
            if piece in ("[CLS]", "[SEP]"):
                continue
            groups[-1].append(value) if piece.startswith("##") else groups.append([value])
        assert values(result) == pytest.approx([sum(group) / len(group) for group in groups], abs=1e-5)
        with torch.no_grad():
            logits = bert(**encoded).logits[0].tolist()
        assert result.confidence == pytest.approx(max(softmax(logits)), abs=1e-5)


def test_long_texts_are_cut_where_the_model_ends(bert):
    text = " ".join(["calm", "sea"] * 30)

    def read(max_length=24):
        (result,) = read_texts(bert, wordpiece(max_length), [text])
        assert words(result) == text.split() and result.truncated
        return [not math.isnan(value) for value in values(result)]

    assert read() == [True] * 22 + [False] * 38  # 24 positions, of which two are [CLS] and [SEP]
    assert read(max_length=10) == [True] * 8 + [False] * 52
    # A tokenizer that knows no limit says so by a huge number: the model's positions count.
    assert read(max_length=int(1e30)) == [True] * 22 + [False] * 38
    assert not read_texts(bert, wordpiece(), ["calm sea"])[0].truncated


def test_batches_of_texts_equal_singles(bert):
    alone = [read_texts(bert, wordpiece(), [text])[0] for text in TEXTS]
    for size in (2, 3, 32):
        together = read_texts(bert, wordpiece(), TEXTS, ["a", "b", "c", "d"], batch_size=size)
        assert [result.label for result in together] == ["a", "b", "c", "d"]
        for one, other in zip(alone, together, strict=True):
            assert words(one) == words(other) and one.predicted == other.predicted
            assert values(one) == pytest.approx(values(other), abs=1e-5)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_predictions_and_confidences_of_texts(bert):
    results = read_texts(bert, wordpiece(), TEXTS)
    for text, result in zip(TEXTS, results, strict=True):
        with torch.no_grad():
            logits = bert(**wordpiece()(text, return_tensors="pt")).logits[0].tolist()
        chosen = max(range(3), key=logits.__getitem__)
        assert result.predicted == ["still", "rough", "wild"][chosen]
        assert result.confidence == pytest.approx(softmax(logits)[chosen], abs=1e-5)
        assert result.label is None


def test_scoring_is_in_eval_mode_and_restores_the_mode():
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(PIECES) + 4, hidden_dropout_prob=0.5, **SIZES)
    model = attach_atoms(transformers.BertForSequenceClassification(config), AtomConfig(layer=-1), wordpiece()).train()
    first, second = (read_texts(model, wordpiece(), TEXTS)[0] for _ in range(2))
    assert values(first) == values(second) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_language_model_reads_words_and_predicts_no_class():
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24}
    config = transformers.GPT2Config(vocab_size=len(PIECES) + 4, bos_token_id=2, eos_token_id=3, **sizes)
    model = attach_atoms(distinct(transformers.GPT2LMHeadModel(config)), AtomConfig(layer=-1), wordpiece())
    alone = [read_texts(model, wordpiece(), [text])[0] for text in TEXTS]
    for text, one, other in zip(TEXTS, alone, read_texts(model, wordpiece(), TEXTS), strict=True):
        assert values(one) == pytest.approx(words_by_hand(model, text)[1], abs=1e-6)
        assert values(one) == pytest.approx(values(other), abs=1e-5)
        assert (other.predicted, other.confidence) == (None, None)


# Pictures


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_on_the_patch_grid(vit, mode):
    given = pictures(3, mode)
    for picture, result in zip(given, read_images(vit, processor_of(vit), given), strict=True):
        tokens = vit.atom_importance(pixel_values=pixels_of(picture, vit))[0]
        assert tokens.shape == (1 + 24,) and tokens[0].isnan()
        assert result.image is picture and result.importance.shape == (4, 6)
        for row in range(4):
            for column in range(6):
                value = tokens[1 + 6 * row + column].item()
                assert result.importance[row, column] == pytest.approx(value, abs=1e-5)


def test_a_patch_that_changes_is_read_where_it_is(vit):
    """A blank picture with one bright patch: with the embeddings as tokens, only its own cell differs."""
    torch.manual_seed(1)
    config = AtomConfig(layer=0)
    model = attach_atoms(distinct(transformers.ViTForImageClassification(vit.config)), config)
    model.vit.embeddings.position_embeddings.data.zero_()
    array = np.zeros((8, 12), np.uint8)
    array[2:4, 8:10] = 255
    grid = read_images(model, processor_of(vit), [Image.fromarray(array)])[0].importance
    others = np.delete(grid.ravel(), 1 * 6 + 4)
    assert np.ptp(others) < 1e-5 < abs(grid[1, 4] - others[0])


def test_batches_of_pictures_equal_singles(vit):
    given, processor = pictures(5), processor_of(vit)
    alone = [read_images(vit, processor, [picture])[0] for picture in given]
    for size in (2, 32):
        together = read_images(vit, processor, given, list("vwxyz"), batch_size=size)
        assert "".join(result.label for result in together) == "vwxyz"
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.importance, other.importance, atol=1e-5)
            assert one.predicted == other.predicted
            assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_predictions_and_confidences_of_pictures(vit):
    given = pictures(6)
    for picture, result in zip(given, read_images(vit, processor_of(vit), given), strict=True):
        with torch.no_grad():
            logits = vit(pixel_values=pixels_of(picture, vit)).logits[0].tolist()
        chosen = max(range(2), key=logits.__getitem__)
        assert result.predicted == ["ship", "moon"][chosen]
        assert result.confidence == pytest.approx(softmax(logits)[chosen], abs=1e-5)


@pytest.mark.parametrize("tokens", ["all", "content"])
def test_the_class_token_is_no_patch(vit, tokens):
    model = attach_atoms(
        distinct(transformers.ViTForImageClassification(vit.config)), AtomConfig(layer=-1, tokens=tokens)
    )
    picture = pictures(1)
    values = model.atom_importance(pixel_values=pixels_of(picture[0], model))[0]
    grid = read_images(model, processor_of(model), picture)[0].importance
    np.testing.assert_allclose(grid.ravel(), values[1:].numpy(), atol=1e-5)


def test_a_feature_map_has_a_cell_for_each_of_its_places():
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_channels=1, **sizes))
    model = attach_atoms(distinct(model), AtomConfig(layer=-1))
    half = {"image_mean": [0.5], "image_std": [0.5]}
    kind = transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil
    picture = pictures(1)[0].resize((48, 32))
    result = read_images(model, kind(size={"height": 32, "width": 48}, **half), [picture])[0]
    array = np.asarray(picture.convert("L"), np.float32) / 127.5 - 1
    values = model.atom_importance(pixel_values=torch.from_numpy(array)[None, None])[0]
    assert result.importance.shape == (4, 6)  # 32 x 48 at a stride of 8
    np.testing.assert_allclose(result.importance.ravel(), values.numpy(), atol=1e-5)
