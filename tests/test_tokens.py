"""Which hidden states are the tokens of an atom, for text, prompts, images and feature maps."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    DeiTConfig,
    DeiTModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    GPT2Config,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from atom_hf import AtomConfig, AtomError
from atom_hf.tokens import find_tokens, patch_grid, prefix_length, special_token_ids

TEXT = GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=20)
VIT = ViTConfig(image_size=32, patch_size=8)  # 16 patches
PIXELS = torch.zeros(2, 3, 32, 32)

CLS, SEP, PAD = 1, 2, 0
IDS = torch.tensor([[CLS, 5, 6, 7, SEP], [CLS, 8, SEP, PAD, PAD]])
ATTENTION = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
CONTENT = AtomConfig(special_token_ids=[PAD, CLS, SEP])
ALL = AtomConfig(tokens="all", special_token_ids=[PAD, CLS, SEP])


def mask_of(hidden, inputs, config=CONTENT, model_config=TEXT):
    tokens, mask = find_tokens(hidden, inputs, config, model_config)
    assert mask.dtype == torch.bool and mask.shape == tokens.shape[:2]
    return mask.int().tolist()


# --- text -----------------------------------------------------------------------------------------------------------


def test_padding_and_special_tokens_are_left_out_of_a_text():
    hidden = torch.randn(2, 5, 4)
    tokens, mask = find_tokens(hidden, {"input_ids": IDS, "attention_mask": ATTENTION}, CONTENT, TEXT)
    assert torch.equal(tokens, hidden), "masked, not removed"
    assert mask.int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]


def test_all_leaves_out_padding_only():
    assert mask_of(torch.zeros(2, 5, 4), {"input_ids": IDS, "attention_mask": ATTENTION}, ALL) == ATTENTION.tolist()


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        # An id of padding inside the text is a special token with or without an attention mask.
        ({"input_ids": IDS}, [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]),
        ({"attention_mask": ATTENTION}, ATTENTION.tolist()),
        ({"input_ids": None, "attention_mask": ATTENTION}, ATTENTION.tolist()),
        ({"input_ids": IDS, "attention_mask": None}, [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]),
        ({}, [[1] * 5] * 2),
        # A mask over pairs of tokens (packed sequences) says nothing about single ones.
        ({"attention_mask": torch.zeros(2, 1, 5, 5)}, [[1] * 5] * 2),
        ({"attention_mask": ATTENTION.bool()}, ATTENTION.tolist()),
        ({"attention_mask": ATTENTION.float()}, ATTENTION.tolist()),
    ],
)
def test_each_input_is_looked_at_if_it_is_there(inputs, expected):
    assert mask_of(torch.zeros(2, 5, 4), inputs) == expected


@pytest.mark.parametrize("ids", [None, []])
def test_without_special_ids_every_attended_token_counts(ids):
    config = AtomConfig(special_token_ids=ids)
    assert mask_of(torch.zeros(2, 5, 4), {"input_ids": IDS, "attention_mask": ATTENTION}, config) == ATTENTION.tolist()


def test_a_prompt_in_front_belongs_to_no_atom():
    hidden = torch.zeros(2, 8, 4)
    inputs = {"input_ids": IDS, "attention_mask": ATTENTION}
    assert mask_of(hidden, inputs) == [[0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0]]
    assert mask_of(hidden, inputs, ALL) == [[0, 0, 0, *row] for row in ATTENTION.tolist()]
    # PEFT extends the attention mask over its prompt, and input_ids stay as they are.
    extended = torch.nn.functional.pad(ATTENTION, (3, 0), value=1)
    inputs = {"input_ids": IDS, "attention_mask": extended}
    assert mask_of(hidden, inputs) == [[0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0]]


def test_a_text_with_images_keeps_its_first_tokens():
    inputs = {"input_ids": IDS, "attention_mask": ATTENTION, "pixel_values": torch.zeros(2, 3, 8, 8)}
    assert mask_of(torch.zeros(2, 5, 4), inputs, model_config=VIT) == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    "inputs", [{"input_ids": IDS}, {"attention_mask": ATTENTION}], ids=["input_ids", "attention_mask"]
)
def test_fewer_hidden_states_than_inputs_are_refused(inputs):
    with pytest.raises(AtomError, match="hidden states have 4 tokens, the inputs 5"):
        find_tokens(torch.zeros(2, 4, 4), inputs, CONTENT, TEXT)


@pytest.mark.parametrize("shape", [(2, 4), (4,), (2, 3, 4, 5, 6)])
def test_hidden_states_of_another_shape_are_refused(shape):
    with pytest.raises(AtomError, match="hidden states must be"):
        find_tokens(torch.zeros(shape), {}, CONTENT, TEXT)


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "prefix"), [(17, 1), (18, 2), (21, 5), (16, 0), (4, 0)],
    ids=["[CLS]", "[CLS] and distillation", "[CLS] and 4 registers", "no prefix", "hierarchical"],
)  # fmt: skip
def test_what_stands_before_the_patches_is_left_out(length, prefix):
    hidden = torch.zeros(2, length, 4)
    assert prefix_length(length, PIXELS, VIT) == prefix
    assert mask_of(hidden, {"pixel_values": PIXELS}, model_config=VIT) == [[0] * prefix + [1] * (length - prefix)] * 2
    assert mask_of(hidden, {"pixel_values": PIXELS}, ALL, VIT) == [[1] * length] * 2


SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
STAGES = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2}
PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        (lambda: ViTModel(ViTConfig(**PATCHES)), 1),
        (lambda: DeiTModel(DeiTConfig(**PATCHES)), 2),
        (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**PATCHES, num_register_tokens=4)), 5),
        (lambda: SwinModel(SwinConfig(**STAGES)), 0),
    ],
    ids=["ViT", "DeiT", "DINOv2 with registers", "Swin"],
)  # fmt: skip
def test_the_prefix_of_real_models(model, prefix):
    model = model().eval()
    with torch.no_grad():
        states = model(PIXELS, output_hidden_states=True).hidden_states
    for hidden in states:
        mask = torch.tensor(mask_of(hidden, {"pixel_values": PIXELS}, model_config=model.config))
        assert mask[:, :prefix].sum() == 0 and mask[:, prefix:].all()


@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [((32, 32), 8, (4, 4)), ((32, 64), 16, (2, 4)), ((32, 64), (8, 16), (4, 4)), ((37, 30), [8, 8], (4, 3))],
)
def test_the_patch_grid(size, patch, grid):
    pixels, config = torch.zeros(1, 3, *size), SimpleNamespace(patch_size=patch)
    assert patch_grid(pixels, config) == grid
    assert prefix_length(grid[0] * grid[1] + 1, pixels, config) == 1


def test_what_has_no_patches_has_no_grid_and_no_prefix():
    assert patch_grid(PIXELS, ResNetConfig()) is None
    assert prefix_length(7, PIXELS, ResNetConfig()) == 0
    video = torch.zeros(2, 4, 3, 32, 32)
    assert patch_grid(video, VIT) is None and prefix_length(65, video, VIT) == 0


def test_a_feature_map_is_read_row_by_row():
    hidden = torch.arange(2 * 3 * 2 * 4.0).view(2, 3, 2, 4)
    tokens, mask = find_tokens(hidden, {"pixel_values": PIXELS}, CONTENT, ResNetConfig())
    assert tokens.shape == (2, 8, 3) and mask.all() and mask.shape == (2, 8)
    for row in range(2):
        for column in range(4):
            assert torch.equal(tokens[:, 4 * row + column], hidden[:, :, row, column])


def test_the_feature_maps_of_a_real_model():
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    model = ResNetModel(config).eval()
    with torch.no_grad():
        hidden = model(PIXELS, output_hidden_states=True).hidden_states[-1]
    tokens, mask = find_tokens(hidden, {"pixel_values": PIXELS}, CONTENT, config)
    assert tokens.shape == (2, hidden.shape[2] * hidden.shape[3], 8) and mask.all()


# --- special ids ----------------------------------------------------------------------------------------------------


def tokenizer(**special):
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "a", "b"]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


BERT_LIKE = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}


def test_the_tokenizer_says_what_is_special_and_unknown_words_stay():
    made = tokenizer(**BERT_LIKE, mask_token="[MASK]")
    assert made.unk_token_id == 3
    # The model's configuration is not asked: its ids are often those of another vocabulary.
    assert special_token_ids(BertConfig(pad_token_id=6), made) == [0, 1, 2, 4]
    assert special_token_ids(TEXT, SimpleNamespace(tokenizer=made)) == [0, 1, 2, 4], "inside a processor"


def test_a_tokenizer_like_object_without_an_unknown_token():
    assert special_token_ids(TEXT, SimpleNamespace(all_special_ids=[2, 0, 2])) == [0, 2]
    assert special_token_ids(TEXT, SimpleNamespace(all_special_ids=[2, 0], unk_token_id=None)) == [0, 2]
    assert special_token_ids(TEXT, SimpleNamespace(all_special_ids=[])) == []


def test_a_mark_that_is_also_the_unknown_token_is_special():
    # GPT-2, OPT and CLIP have one token for both; OPT starts and CLIP ends every text with it.
    made = tokenizer(bos_token="[SEP]", eos_token="[SEP]", unk_token="[SEP]", pad_token="[PAD]")
    assert special_token_ids(TEXT, made) == [0, 2]


@pytest.mark.parametrize("processing_class", [None, SimpleNamespace(size=224)], ids=["nothing", "an image processor"])
def test_without_a_tokenizer_the_configuration_is_asked(processing_class):
    config = GPT2Config(bos_token_id=7, eos_token_id=[9, 8], pad_token_id=None)
    assert special_token_ids(config, processing_class) == [7, 8, 9]
    assert special_token_ids(BertConfig(pad_token_id=0), processing_class) == [0]
    assert special_token_ids(ViTConfig(), processing_class) == []
    assert special_token_ids(ResNetConfig(), processing_class) == []
    assert special_token_ids(SimpleNamespace(), processing_class) == []
