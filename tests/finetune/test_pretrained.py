"""From a name and a data set to what a Trainer takes: metrics, labels, pixels, tokenizers."""

import json
import math

import datasets
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import EvalPrediction

from atom_hf.data import TaskData
from atom_hf.errors import AtomError
from atom_hf.tasks import classification_metrics, find_model, image_inputs, perplexity, prepare_task

TINY_GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32}
TINY_BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
TINY_VIT = {**TINY_BERT, "image_size": 8, "patch_size": 4}
LINES = ["The sea is calm to-night.", "The tide is full, the moon lies fair", "Upon the straits; — on the French coast"]


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def text_data(texts, labels=None, pairs=None, names=("no", "yes")):
    columns = {"text": texts}
    if pairs is not None:
        columns["text_pair"] = pairs
    rows = datasets.Dataset.from_dict(columns)
    if labels is None:
        return TaskData("lines", "causal-lm", rows, rows, None)
    rows = rows.add_column("label", labels, feature=datasets.ClassLabel(names=list(names)))
    return TaskData("lines", "text-classification", rows, rows, list(names))


def image_data(images, names=("no", "yes")):
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    columns = {"image": images, "label": [i % 2 for i in range(len(images))]}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return TaskData("pictures", "image-classification", rows, rows, list(names))


# Metrics


def naive_metrics(truth, chosen):
    """Accuracy, the mean of the classes' F1, and Gorodkin's R_K, from counts."""
    classes = sorted({*truth, *chosen})
    pairs = list(zip(truth, chosen, strict=True))
    right, n = sum(t == c for t, c in pairs), len(pairs)
    scores = []
    for k in classes:
        hits = sum(t == c == k for t, c in pairs)
        wrong = sum((t == k) != (c == k) for t, c in pairs)
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    true_counts, chosen_counts = ([part.count(k) for k in classes] for part in (list(truth), list(chosen)))
    covariance = right * n - sum(t * c for t, c in zip(true_counts, chosen_counts, strict=True))
    spread = (n * n - sum(c * c for c in chosen_counts)) * (n * n - sum(t * t for t in true_counts))
    return {
        "accuracy": right / n,
        "f1": sum(scores) / len(scores),
        "mcc": covariance / math.sqrt(spread) if spread else 0.0,
    }


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_against_counts(classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(40, classes))
    truth = rng.integers(0, classes, 40)
    truth[:10] = logits[:10].argmax(1)  # better than chance
    found = classification_metrics(EvalPrediction(predictions=logits, label_ids=truth))
    assert found == pytest.approx(naive_metrics(truth.tolist(), logits.argmax(1).tolist()))
    assert all(type(value) is float for value in found.values())


def test_metrics_where_one_class_is_never_chosen():
    truth, logits = np.array([0, 0, 0, 1]), np.array([[1.0, 0.0]] * 4)
    found = classification_metrics(EvalPrediction(predictions=logits, label_ids=truth))
    # F1 of class 0: 2 * 3 / (2 * 3 + 1); of class 1: none is found.
    assert found == pytest.approx({"accuracy": 0.75, "f1": (6 / 7) / 2, "mcc": 0.0})


def test_metrics_of_a_model_with_more_outputs():
    truth, logits = np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])
    further = np.zeros((2, 3, 5))
    found = classification_metrics(EvalPrediction(predictions=(logits, further), label_ids=truth))
    assert found == {"accuracy": 1.0, "f1": 1.0, "mcc": 1.0}


def test_perplexity():
    assert perplexity(0.0) == 1.0
    # A model that takes each of 50 tokens for equally likely is as perplexed as 50 tokens.
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf


# Causal language models


@pytest.fixture(scope="module")
def without_pad(tmp_path_factory):
    """A folder of a tiny GPT-2 whose tokenizer has, as GPT-2's own, an end-of-text token and no pad token."""
    folder = tmp_path_factory.mktemp("gpt2")
    words = ["<|endoftext|>", *sorted({word for line in LINES for word in line.split()})]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|endoftext|>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = "<|endoftext|>"
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, unk_token=end).save_pretrained(folder)
    config = transformers.GPT2Config(vocab_size=len(words), eos_token_id=0, bos_token_id=0, **TINY_GPT2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def test_language_model_labels_end_and_leave_out_padding_only(without_pad):
    task = prepare_task(text_data(LINES), model=without_pad)
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
    task = prepare_task(text_data(LINES), model=without_pad)
    assert task.processing_class.pad_token == "<|endoftext|>"
    assert task.model.config.pad_token_id == task.processing_class.pad_token_id == 0
    # As a classifier too, which finds its last token by the pad token.
    task = prepare_task(text_data(LINES, [0, 1, 0]), model=without_pad)
    assert task.model.config.pad_token_id == 0
    batch = task.collator([task.train[i] for i in range(3)])
    task.model.eval()
    with torch.no_grad():
        together = task.model(**batch).logits
        alone = [task.model(**task.collator([task.train[i]])).logits for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_long_texts_are_cut(without_pad):
    long = text_data(["sea " * 100, "sea"])
    assert max(map(len, prepare_task(long, model=without_pad, max_length=7).train["input_ids"])) == 7
    # The model has 32 positions.
    assert max(map(len, prepare_task(long, model=without_pad, max_length=500).train["input_ids"])) == 32
    with pytest.raises(AtomError, match="--max_length must be at least 2, got 1"):
        prepare_task(long, model=without_pad, max_length=1)


def test_language_models_have_no_metrics_of_classes(without_pad):
    assert prepare_task(text_data(LINES), model=without_pad).compute_metrics is None


# Tokenizers


@pytest.mark.parametrize("size", [300, 1000])
def test_tokenizer_from_nothing_gives_texts_back(size):
    verses = [f"{line} {i}" for i, line in enumerate(LINES * 20)]
    task = prepare_task(
        text_data(verses), model=None, model_type="gpt2", config_overrides=TINY_GPT2, vocabulary_size=size
    )
    tokenizer = task.processing_class
    assert len(tokenizer) <= size and len(tokenizer) > 256
    assert task.model.get_input_embeddings().num_embeddings == task.model.config.vocab_size == len(tokenizer)
    unseen = ["Où sont les neiges d'antan ?", "  two  spaces , and a comma", "雪 \N{SNOWMAN}\n\ta tab"]
    for text in [*LINES, *unseen]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
    # What was seen often takes fewer tokens than letters.
    assert len(tokenizer(LINES[1])["input_ids"]) < len(LINES[1]) / 1.5
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    config = task.model.config
    assert [config.pad_token_id, config.eos_token_id] == [tokenizer.pad_token_id, tokenizer.eos_token_id]


def test_tokenizer_from_nothing_survives_saving(tmp_path):
    options = {"model_type": "gpt2", "config_overrides": TINY_GPT2, "vocabulary_size": 300, "max_length": 16}
    tokenizer = prepare_task(text_data(LINES), model=None, **options).processing_class
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]
    assert again.decode(again(LINES[2])["input_ids"]) == LINES[2]
    assert again.model_max_length == 16 and again.pad_token == tokenizer.pad_token


def test_a_tokenizer_other_than_the_models(tmp_path, without_pad):
    options = {"model_type": "gpt2", "config_overrides": TINY_GPT2}
    task = prepare_task(text_data(LINES), model=None, tokenizer=without_pad, **options)
    assert task.processing_class(LINES[0])["input_ids"] == task.train["input_ids"][0][:-1]
    assert task.model.config.vocab_size == len(task.processing_class) < 100


def test_pairs_of_texts_are_both_read():
    data = text_data(["a sea", "b"], [0, 1], ["calm tonight", "moon lies fair"])
    task = prepare_task(data, model=None, model_type="bert", config_overrides=TINY_BERT, vocabulary_size=300)
    tokenizer = task.processing_class
    assert tokenizer.decode(task.train["input_ids"][0]).replace(" ", "") == "aseacalmtonight"


# Classes


def test_classes_are_those_of_the_data():
    data = text_data(LINES, [2, 0, 1], names=("low", "middle", "high"))
    task = prepare_task(data, model=None, model_type="bert", config_overrides=TINY_BERT, vocabulary_size=300)
    assert task.model.config.id2label == {0: "low", 1: "middle", 2: "high"}
    assert task.model.config.label2id == {"low": 0, "middle": 1, "high": 2}
    assert task.model.classifier.out_features == 3
    assert task.train["labels"][:] == [2, 0, 1]


def base_weights(model):
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("classifier")}


def test_a_classifier_for_other_classes_starts_anew():
    data = image_data([Image.new("L", (28, 28), i) for i in range(4)])
    other = TaskData("x", data.task, data.train, data.eval, [str(i) for i in range(10)])
    before = transformers.ViTForImageClassification.from_pretrained(find_model("vit-fashion-mnist"))
    same_names = TaskData("x", data.task, data.train, data.eval, [before.config.id2label[i] for i in range(10)])
    renamed, kept, fewer = (prepare_task(d, model="vit-fashion-mnist").model for d in (other, same_names, data))
    assert torch.equal(kept.classifier.weight, before.classifier.weight)
    assert not torch.isclose(renamed.classifier.weight, before.classifier.weight).any(), "as many classes, others"
    assert renamed.classifier.bias.eq(0).all()
    assert renamed.config.id2label[3] == "3" and fewer.classifier.out_features == 2
    for model in (renamed, kept, fewer):
        for name, tensor in base_weights(before).items():
            assert torch.equal(base_weights(model)[name], tensor), name


# Images


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("given", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_any_mode_become_what_the_model_takes(channels, mode, given):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).convert(given)
    data = image_data([picture.convert("RGB")] * 2)
    overrides = {**TINY_VIT, "num_channels": channels}
    task = prepare_task(data, model=None, model_type="vit", config_overrides=overrides)
    pixels = image_inputs([picture, picture], task.processing_class, task.model.config)
    expected = np.asarray(picture.convert(mode), dtype=np.float32).reshape(8, 8, channels).transpose(2, 0, 1)
    assert pixels.shape == (2, channels, 8, 8)
    np.testing.assert_allclose(pixels[0].numpy(), expected / 127.5 - 1, atol=1e-5)


def test_pictures_are_read_when_they_are_needed():
    pictures = [Image.new("L", (12, 12), 10 * i) for i in range(4)]
    task = prepare_task(image_data(pictures), model=None, model_type="vit", config_overrides=TINY_VIT)
    assert not task.remove_unused_columns
    batch = task.collator([task.train[i] for i in (0, 3)])
    assert batch["pixel_values"].shape == (2, 3, 8, 8) and batch["labels"].tolist() == [0, 1]
    assert task.model(**batch).logits.shape == (2, 2)


def test_mirrored_at_random_in_training_only():
    half = np.zeros((8, 8), np.uint8)
    half[:, :4] = 255
    data = image_data([Image.fromarray(half)] * 64)
    plain = prepare_task(data, model=None, model_type="vit", config_overrides=TINY_VIT)
    flipped = prepare_task(data, model=None, model_type="vit", config_overrides=TINY_VIT, horizontal_flip=True)

    def left(rows):
        return torch.stack([row["pixel_values"] for row in rows.select(range(64))])[:, 0, 0, 0]

    assert left(plain.train).eq(1).all() and left(flipped.eval).eq(1).all()
    torch.manual_seed(0)
    first = left(flipped.train)
    assert set(first.tolist()) == {-1.0, 1.0} and 10 < first.eq(-1).sum() < 54
    pixels = next(row["pixel_values"] for row in flipped.train if row["pixel_values"][0, 0, 0] == -1)
    assert torch.equal(pixels, plain.train[0]["pixel_values"].flip(-1))


# Names


def test_embedded_models_are_folders_and_others_stay_names():
    assert transformers.AutoConfig.from_pretrained(find_model("vit-fashion-mnist")).num_labels == 10
    assert find_model("org/name") == "org/name"


@pytest.mark.parametrize("both", [{"model": None}, {"model": "vit-fashion-mnist", "model_type": "vit"}])
def test_a_model_or_a_model_type(both):
    with pytest.raises(AtomError, match=r"give --model .* or --model_type, not both"):
        prepare_task(image_data([Image.new("L", (8, 8))] * 2), **both)


@pytest.mark.parametrize(
    "overrides",
    [
        "hidden_size=24,num_hidden_layers=1",
        {"hidden_size": 24, "num_hidden_layers": 1},
        '{"hidden_size": 24, "num_hidden_layers": 1}',
    ],
)
def test_configuration_overrides_as_text_a_mapping_and_json(overrides):
    data = image_data([Image.new("L", (8, 8))] * 2)
    model = prepare_task(data, model=None, model_type="vit", config_overrides=overrides).model
    assert model.config.hidden_size == 24 and model.config.num_hidden_layers == 1
    assert model.classifier.in_features == 24


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_configuration_overrides_may_hold_lists(form):
    overrides = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    data = image_data([Image.new("RGB", (8, 8))] * 2)
    config = prepare_task(data, model=None, model_type="resnet", config_overrides=form(overrides)).model.config
    assert {name: getattr(config, name) for name in overrides} == overrides


@pytest.mark.parametrize("overrides", ["hidden_dropout_prob=0.25", '{"hidden_dropout_prob": 0.25}'])
def test_configuration_overrides_of_a_pretrained_model_leave_its_weights(overrides):
    data = image_data([Image.new("L", (28, 28), i) for i in range(4)])
    torch.manual_seed(0)
    before = prepare_task(data, model="vit-fashion-mnist").model
    torch.manual_seed(0)
    model = prepare_task(data, model="vit-fashion-mnist", config_overrides=overrides).model
    assert before.config.hidden_dropout_prob != 0.25 and model.config.hidden_dropout_prob == 0.25
    assert {part.p for name, part in model.named_modules() if name.endswith("embeddings.dropout")} == {0.25}
    changed = {k for k, v in model.config.to_dict().items() if v != before.config.to_dict()[k]}
    assert changed == {"hidden_dropout_prob"} and model.config.id2label == {0: "no", 1: "yes"}
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "overrides",
    ["width=3", {"width": 3}, '{"width": 3}', "{", "hidden_size", "hidden_size=wide", '{"hidden_size": "wide"}'],
)
@pytest.mark.parametrize("source", [{"model": "vit-fashion-mnist"}, {"model": None, "model_type": "vit"}], ids=str)
def test_configuration_overrides_that_do_not_fit_are_refused(source, overrides):
    with pytest.raises(AtomError, match=r"^--config_overrides .* does not fit vit: .+") as caught:
        prepare_task(image_data([Image.new("L", (8, 8))] * 2), config_overrides=overrides, **source)
    assert "\n" not in str(caught.value)


def test_encoded_evaluation_rows_are_the_evaluation_rows():
    pictures = [Image.new("L", (8, 8), 20 * i) for i in range(4)]
    for data, options in (
        (image_data(pictures), {"model_type": "vit", "config_overrides": TINY_VIT, "horizontal_flip": True}),
        (text_data(LINES, [0, 1, 0]), {"model_type": "bert", "config_overrides": TINY_BERT, "vocabulary_size": 300}),
        (text_data(LINES), {"model_type": "gpt2", "config_overrides": TINY_GPT2, "vocabulary_size": 300}),
    ):
        task = prepare_task(data, model=None, **options)
        for ours, theirs in zip(task.encode(data.eval), task.eval, strict=True):
            assert {k: np.asarray(v).tolist() for k, v in ours.items()} == {
                k: np.asarray(v).tolist() for k, v in theirs.items()
            }


def test_pixels_are_made_without_a_hold_on_the_model():
    """Datasets pickles what makes them, with all that it refers to, each time that rows are encoded."""
    data = image_data([Image.new("L", (8, 8))] * 2)
    task = prepare_task(data, model=None, model_type="vit", config_overrides=TINY_VIT)
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
