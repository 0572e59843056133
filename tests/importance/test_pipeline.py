"""The pipeline "token-importance" against the model's own `atom_importance`, and in everything that it takes."""

import base64
import io
import json
import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoImageProcessor, AutoTokenizer, pipeline
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomConfig, AtomError, attach_atoms, load_atom_model
from atom_hf.finetune.pretrained import find_model
from atom_hf.importance.by_masking import masked_importance
from atom_hf.modeling.attach import add_explainer
from helpers.models import make_tokenizer, tiny

TEXTS = ["And rivers rushing of great the", "the sea", "Of what is past, or passing,\n or to come 😀", "a"]
GREY = {"size": {"height": 8, "width": 8}, "image_mean": [0.5], "image_std": [0.5]}


def saved(model, processor, folder):
    attach_atoms(model.eval(), AtomConfig(layer=-1), processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "bert": saved(tiny("bert"), make_tokenizer(), root / "bert"),
        "gpt2": saved(tiny("gpt2"), make_tokenizer(), root / "gpt2"),
        "vit": saved(tiny("vit"), ViTImageProcessorPil(**GREY), root / "vit"),
    }


@pytest.fixture(scope="module")
def pipes(folders):
    return {kind: pipeline("token-importance", model=folder, device="cpu") for kind, folder in folders.items()}


def pictures(count=3, size=(24, 18)):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8)) for _ in range(count)]


def same(one, other):
    assert [word["word"] for word in one] == [word["word"] for word in other]
    values = [[word["importance"] for word in words] for words in (one, other)]
    assert values[0] == pytest.approx(values[1], abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_pieces_are_what_the_model_says(pipes, folders, kind):
    model, tokenizer = load_atom_model(folders[kind]), AutoTokenizer.from_pretrained(folders[kind])
    for text in TEXTS:
        encoded = tokenizer(text, return_tensors="pt")
        values = model.atom_importance(**encoded)[0]
        found = pipes[kind](text, aggregation_strategy="none")
        assert [piece["importance"] for piece in found] == pytest.approx(values[~values.isnan()].tolist(), abs=1e-6)
        for strategy in ("none", "average"):
            found = pipes[kind](text, aggregation_strategy=strategy)
            assert found == sorted(found, key=lambda word: word["start"])
            assert all(text[word["start"] : word["end"]] == word["word"] != "" for word in found)
            assert all(set(word) == {"word", "importance", "start", "end"} for word in found)


def test_a_word_is_the_mean_of_its_pieces(pipes):
    text = "unfathomable seas"  # the vocabulary has neither: one piece a letter
    pieces, words = pipes["bert"](text, aggregation_strategy="none"), pipes["bert"](text)
    assert len(pieces) == 16 and [word["word"] for word in words] == text.split()
    for word in words:
        inside = [piece["importance"] for piece in pieces if word["start"] <= piece["start"] < word["end"]]
        assert word["importance"] == pytest.approx(sum(inside) / len(inside), abs=1e-6)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_lists_and_generators_give_what_single_texts_give(pipes, kind, side):
    alone = [pipes[kind](text) for text in TEXTS]
    pipes[kind].tokenizer.padding_side = side
    for found in (
        pipes[kind](TEXTS),
        pipes[kind](TEXTS, batch_size=3),
        list(pipes[kind]((text for text in TEXTS), batch_size=2)),
        list(pipes[kind](transformers.pipelines.base.KeyDataset([{"x": text} for text in TEXTS], "x"), batch_size=4)),
    ):
        assert len(found) == len(alone)
        for one, other in zip(alone, found, strict=True):
            same(one, other)


def test_pairs(pipes, folders):
    pairs = [{"text": "the sea", "text_pair": "rivers rushing"}, {"text": "a", "text_pair": "of great the sea"}]
    found = pipes["bert"](pairs, batch_size=2)
    assert [(word["word"], word["source"]) for word in found[0]] == [
        ("the", 0), ("sea", 0), ("rivers", 1), ("rushing", 1),
    ]  # fmt: skip
    same(found[1], pipes["bert"](pairs[1]))
    model, tokenizer = load_atom_model(folders["bert"]), AutoTokenizer.from_pretrained(folders["bert"])
    values = model.atom_importance(**tokenizer("a", "of great the sea", return_tensors="pt"))[0]
    pieces = pipes["bert"](pairs[1], aggregation_strategy="none")
    assert [piece["importance"] for piece in pieces] == pytest.approx(values[~values.isnan()].tolist(), abs=1e-6)


def test_predictions_on_request(pipes, folders):
    model, tokenizer = load_atom_model(folders["bert"]), AutoTokenizer.from_pretrained(folders["bert"])
    found = pipes["bert"](TEXTS[0], return_prediction=True)
    with torch.no_grad():
        scores = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits.softmax(-1)[0]
    assert found["label"] == model.config.id2label[int(scores.argmax())]
    assert found["score"] == pytest.approx(float(scores.max()), abs=1e-6)
    same(found["words"], pipes["bert"](TEXTS[0]))
    found = pipes["gpt2"](TEXTS[0], return_prediction=True)
    assert (found["label"], found["score"]) == (None, None) and found["words"]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_long_and_empty_texts(pipes, kind):
    text = " ".join(["the"] * 10_000)
    found = pipes[kind](text)
    assert len(found) == 10_000 and found[-1]["end"] == len(text)
    assert [not math.isnan(word["importance"]) for word in found] == [True] * 46 + [False] * 9954
    assert pipes[kind]("") == [] and pipes[kind](["", "the sea"], batch_size=2)[0] == []
    same(pipes[kind](["", "the sea"], batch_size=2)[1], pipes[kind]("the sea"))


def test_images_on_the_pixels_of_the_original(pipes, folders, tmp_path):
    model = load_atom_model(folders["vit"])
    images = pictures()
    images[0].save(tmp_path / "one.png")
    coded = io.BytesIO()
    images[0].save(coded, "PNG")
    processor = AutoImageProcessor.from_pretrained(folders["vit"])
    inputs = processor(images[0].convert("L"), return_tensors="pt")
    grid = model.atom_importance(**inputs)[0, 1:].reshape(4, 4).numpy()
    for given in (images[0], str(tmp_path / "one.png"), base64.b64encode(coded.getvalue()).decode()):
        found = pipes["vit"](given)
        assert set(found) == {"importance", "grid", "box"} and found["box"] is None
        np.testing.assert_allclose(found["grid"], grid, atol=1e-6)
        assert found["importance"].shape == (18, 24) and found["importance"].dtype == np.float32
        for y, x in ((0, 0), (17, 23), (9, 5)):
            assert found["importance"][y, x] == pytest.approx(grid[int((y + 0.5) / 4.5), x // 6], abs=1e-6)
    for one, other in zip(images, pipes["vit"](images, batch_size=2, return_prediction=True), strict=True):
        np.testing.assert_allclose(pipes["vit"](one)["grid"], other["grid"], atol=1e-5)
        assert other["label"] in model.config.label2id and 0 < other["score"] <= 1


def test_what_a_centre_crop_cuts_off_has_no_importance():
    """Heads that see embeddings alone: a square with an edge in it, in an even picture, moves the patch that it fills."""
    model = tiny("vit", num_channels=3, image_size=16, patch_size=4)
    model.vit.embeddings.position_embeddings.data.zero_()
    cropping = CLIPImageProcessorPil(do_resize=False, crop_size={"height": 16, "width": 16})
    pipe = pipeline("token-importance", model=attach_atoms(model, AtomConfig(layer=0)), image_processor=cropping)
    array = np.full((32, 64, 3), 100, np.uint8)
    array[12:16, 32:34] = 200
    found = pipe(Image.fromarray(array))
    assert found["box"] == pytest.approx((24, 8, 40, 24), abs=0.1)
    inside = np.zeros((32, 64), bool)
    inside[8:24, 24:40] = True
    np.testing.assert_array_equal(np.isnan(found["importance"]), ~inside)
    unlike = np.abs(found["importance"] - np.nanmedian(found["importance"]))
    bright = np.argwhere(unlike > 1e-4)
    assert (*bright.min(0), *bright.max(0)) == (12, 32, 15, 35) and np.nanmax(unlike) > 1e-2


def test_a_saved_pipeline_loads_plainly_and_without_remote_code(pipes, tmp_path):
    pipes["bert"].save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "atom_heads.safetensors" in names and not any(name.endswith(".py") for name in names)
    assert "custom_pipelines" not in (tmp_path / "config.json").read_text()
    plain, found = transformers.BertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values()) and type(plain) is transformers.BertForSequenceClassification
    assert pipeline("text-classification", model=str(tmp_path))("the sea")[0]["label"]
    same(pipeline("token-importance", model=str(tmp_path))(TEXTS[0]), pipes["bert"](TEXTS[0]))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_an_adapter(tmp_path):
    peft = pytest.importorskip("peft")
    base = tiny("bert")
    base.save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    base = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    model = attach_atoms(peft.get_peft_model(base, lora), AtomConfig(layer=-1), make_tokenizer())
    model.save_pretrained(tmp_path / "adapter")
    values = model.atom_importance(**make_tokenizer()(TEXTS[0], return_tensors="pt"))[0]
    pipe = pipeline("token-importance", model=str(tmp_path / "adapter"))
    found = pipe(TEXTS[0], aggregation_strategy="none")
    assert [piece["importance"] for piece in found] == pytest.approx(values[~values.isnan()].tolist(), abs=1e-5)


def test_heads_that_cannot_be_read_are_rejected_and_not_left_out(folders, tmp_path):
    model = tiny("bert")
    folder = saved(model, make_tokenizer(), tmp_path / "cut")
    heads = tmp_path / "cut" / "atom_heads.safetensors"
    heads.write_bytes(heads.read_bytes()[:-10])
    with pytest.raises(AtomError, match=r"atom_heads\.safetensors"):
        pipeline("token-importance", model=folder)
    with pytest.raises(AtomError, match=r"has no atom_config\.json"):
        pipeline("token-importance", model=find_model("vit-fashion-mnist"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aggregation_strategy": "max"}, "aggregation_strategy must be one of average, none; got 'max'"),
        ({"top_k": 3}, "no such option: top_k"),
    ],
)
def test_options_that_are_none(pipes, options, words):
    with pytest.raises(AtomError, match=words):
        pipes["bert"]("the sea", **options)


def test_what_cannot_be_read_is_rejected_in_a_line(pipes):
    with pytest.raises(AtomError, match="BertForSequenceClassification has no heads"):
        pipeline("token-importance", model=tiny("bert"), tokenizer=make_tokenizer())
    with pytest.raises(AtomError, match="tokenizer: none can be loaded from the model's folder"):
        pipeline("token-importance", model=load_atom_model(pipes["bert"].model.name_or_path))
    for sample in (3, {"text": "a", "pair": "b"}, {"text_pair": "b"}, ["a", "b", 3]):
        with pytest.raises(AtomError, match="a text must be a string or"):
            pipes["bert"](sample)
    with pytest.raises(AtomError, match="text_pair must be a string, got int"):
        pipes["bert"]({"text": "a", "text_pair": 3})
    with pytest.raises(AtomError, match="lone surrogate"):
        pipes["bert"]("the \ud800 sea")


def test_a_target_by_its_name_or_its_place_and_by_masking(folders, tmp_path):
    model = load_atom_model(folders["bert"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = add_explainer(model, explainer_classes=model.config.num_labels, explainer_width=8)
        torch.nn.init.normal_(head.outer.weight)
    saved = tmp_path / "fitted"
    model.save_pretrained(saved)
    make_tokenizer().save_pretrained(saved)
    pieces = {"device": "cpu", "aggregation_strategy": "none"}
    fitted = pipeline("token-importance", model=str(saved), **pieces)
    texts, inputs = ["the sea", "great rivers"], make_tokenizer()("the sea", return_tensors="pt")
    for target in ("LABEL_0", 0, "LABEL_1", 1):
        values = load_atom_model(saved).atom_importance(**inputs, target=target)[0, 1:-1].tolist()
        assert [word["importance"] for word in fitted(texts, target=target)[0]] == pytest.approx(values, abs=1e-5)
    one, other = (fitted("the sea", target=target) for target in (0, 1))
    assert [word["importance"] for word in one] != [word["importance"] for word in other]
    masked = pipeline("token-importance", model=str(saved), method="masking", **pieces)
    expected = masked_importance(model, make_tokenizer(), dict(inputs), 1).importance[0, 1:-1].tolist()
    assert [word["importance"] for word in masked("the sea", target=1)] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(AtomError, match="target 'LABEL_2' is no class of the model; give one of LABEL_0, LABEL_1"):
        fitted("the sea", target="LABEL_2")


def test_gpt2_with_its_own_tokenizer(tmp_path):
    """Bytes as tokens, the space before a word in its token, and no padding token."""
    texts = ["The sea 😀 is\n\ncalm", "Été à la mer… 👩‍👩‍👧", "a", "rivers  of\tthe north\n"]
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(texts * 3, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    rules = json.loads(backend._tokenizer.to_str())["model"]
    tokenizer = transformers.GPT2Tokenizer(vocab=rules["vocab"], merges=[tuple(pair) for pair in rules["merges"]])
    assert tokenizer.pad_token is None
    model = tiny("gpt2", vocab_size=len(tokenizer), n_positions=80, bos_token_id=0, eos_token_id=0, pad_token_id=None)
    saved(model, tokenizer, tmp_path)
    pipe = pipeline("token-importance", model=str(tmp_path))
    assert [[word["word"] for word in words] for words in pipe(texts, batch_size=3)] == [
        ["The", "sea", "😀", "is", "calm"],
        ["Été", "à", "la", "mer", "…", "👩\u200d👩\u200d👧"],
        ["a"],
        ["rivers", "of", "the", "north"],
    ]
    for text, found in zip(texts, pipe(texts, batch_size=3, aggregation_strategy="none"), strict=True):
        assert all(text[piece["start"] : piece["end"]] == piece["word"] for piece in found)
        same(found, pipe(text, aggregation_strategy="none"))
    values = model.atom_importance(**tokenizer("a", return_tensors="pt"))[0].tolist()
    assert [word["importance"] for word in pipe("a")] == pytest.approx(values, abs=1e-6)
