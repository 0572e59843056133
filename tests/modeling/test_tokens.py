"""Which hidden states are the tokens of an atom, for text, prompts, images and feature maps."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    BertConfig,
    DeiTConfig,
    DeiTModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    GPT2Config,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    SEWConfig,
    SEWForSequenceClassification,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from atom_hf import AtomConfig, AtomError
from atom_hf.modeling.tokens import align, find_tokens, patch_grid, prefix_length, special_token_ids
from helpers.token_ids import (
    ALL,
    ATTENTION,
    CLS,
    CONTENT,
    IDS,
    PAD,
    PATCHES,
    PIXELS,
    SEP,
    SMALL,
    STAGES,
    TEXT,
    VIT,
    mask_of,
)

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
def test_fewer_hidden_states_than_inputs_are_rejected(inputs):
    with pytest.raises(AtomError, match="hidden states have 4 tokens, the inputs 5"):
        find_tokens(torch.zeros(2, 4, 4), inputs, CONTENT, TEXT)


@pytest.mark.parametrize("shape", [(2, 4), (4,), (2, 3, 4, 5, 6)])
def test_hidden_states_of_another_shape_are_rejected(shape):
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


def test_a_feature_map_with_its_width_last_is_told_by_the_width():
    hidden = torch.arange(2 * 2 * 4 * 3.0).view(2, 2, 4, 3)
    last, first = AtomConfig(hidden_size=3), AtomConfig(hidden_size=2)
    tokens, mask = find_tokens(hidden, {"pixel_values": PIXELS}, last, ResNetConfig())
    assert tokens.shape == (2, 8, 3) and mask.all()
    for row in range(2):
        for column in range(4):
            assert torch.equal(tokens[:, 4 * row + column], hidden[:, row, column])
    assert find_tokens(hidden, {"pixel_values": PIXELS}, first, ResNetConfig())[0].shape == (2, 12, 2)


# --- several rows or streams for a text ------------------------------------------------------------------------------


def test_each_choice_is_a_sample_of_its_own():
    ids, attention = torch.stack([IDS, IDS.flip(0)], 1), torch.stack([ATTENTION, ATTENTION.flip(0)], 1)
    hidden = torch.zeros(4, 5, 4)  # as the model flattens them: first sample's choices, then the second's
    rows = [mask_of(torch.zeros(1, 5, 4), {"input_ids": i[None], "attention_mask": a[None]})[0]
            for sample, masks in zip(ids, attention, strict=True) for i, a in zip(sample, masks, strict=True)]  # fmt: skip
    assert mask_of(hidden, {"input_ids": ids, "attention_mask": attention}) == rows
    assert mask_of(hidden, {"input_ids": ids}) == rows


@pytest.mark.parametrize("streams_first", [False, True])
def test_the_streams_of_a_token_are_averaged(streams_first):
    hidden = torch.randn(3, 2, 5, 4)  # three streams
    given = hidden if streams_first else hidden.permute(1, 2, 0, 3)
    tokens, mask = find_tokens(given, {"input_ids": IDS, "attention_mask": ATTENTION}, CONTENT, TEXT)
    torch.testing.assert_close(tokens, (hidden[0] + hidden[1] + hidden[2]) / 3)
    assert mask.int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]


def test_a_token_of_several_codebooks_is_special_where_all_its_ids_are():
    ids = torch.tensor([[CLS, 5, SEP, 6], [CLS, 7, 8, SEP], [CLS, 5, SEP, PAD], [9, SEP, SEP, PAD]])  # two samples
    assert mask_of(torch.zeros(2, 4, 4), {"input_ids": ids}) == [[0, 1, 1, 1], [1, 1, 0, 0]]


def test_latents_are_tokens_all():
    config = SimpleNamespace(num_latents=3)
    assert (
        mask_of(torch.zeros(2, 3, 4), {"input_ids": IDS, "attention_mask": ATTENTION}, model_config=config)
        == [[1] * 3] * 2
    )


# --- shortened sequences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "length"), [(6, 3), (12, 6), (12, 3), (13, 7), (12, 7), (100, 9), (5, 3)])
def test_what_was_pooled_counts_if_any_of_it_does(given, length):
    mask = torch.rand(4, given, generator=torch.Generator().manual_seed(given)) < 0.3
    naive = [
        [any(row[i] for i in range(given * j // length, -(-given * (j + 1) // length))) for j in range(length)]
        for row in mask.tolist()
    ]
    assert align(mask, length).tolist() == naive


def naive_frames(samples, kernels, strides):
    """How many whole windows fit, layer after layer."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = len(range(0, samples - kernel + 1, stride))
    return samples


SOUND = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3}
SPEECH = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
          "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}  # fmt: skip


@pytest.mark.parametrize("kind", [Wav2Vec2ForSequenceClassification, SEWForSequenceClassification])
def test_frames_of_a_recording_are_its_own_where_the_model_says_so(kind):
    config = (Wav2Vec2Config if kind is Wav2Vec2ForSequenceClassification else SEWConfig)(**SOUND, **SPEECH)
    model = kind(config).eval()
    lengths = [800, 430, 111]
    attention = torch.zeros(3, 800, dtype=torch.long)
    for row, length in zip(attention, lengths, strict=True):
        row[:length] = 1
    with torch.no_grad():
        hidden = model(torch.randn(3, 800), attention_mask=attention, output_hidden_states=True).hidden_states[1]
    _, mask = find_tokens(hidden, {"attention_mask": attention}, ALL, config, model)
    frames = [naive_frames(length, config.conv_kernel, config.conv_stride) for length in lengths]
    squeeze = getattr(config, "squeeze_factor", 1)
    assert hidden.shape[1] == frames[0] // squeeze == mask.shape[1]
    ends = [[frame * frames[0] // mask.shape[1] < own for frame in range(mask.shape[1])] for own in frames]
    assert mask.tolist() == ends


def test_the_patches_of_a_spectrogram_overlap():
    config = ASTConfig(**SMALL, num_mel_bins=32, max_length=56, patch_size=16, frequency_stride=8, time_stride=10)
    spectrogram = torch.randn(2, 56, 32)
    rows, columns = len(range(0, 32 - 15, 8)), len(range(0, 56 - 15, 10))
    assert patch_grid(spectrogram, config) == (rows, columns)
    model = ASTForAudioClassification(config).eval()
    with torch.no_grad():
        hidden = model(spectrogram, output_hidden_states=True).hidden_states[-1]
    expected = [[0, 0] + [1] * (rows * columns)] * 2  # [CLS] and distillation
    assert mask_of(hidden, {"input_values": spectrogram}, model_config=config) == expected


# --- sides -----------------------------------------------------------------------------------------------------------

READ = {"input_ids": IDS, "attention_mask": ATTENTION}
WRITTEN = torch.tensor([[SEP, 5, 6, 7], [SEP, 8, PAD, PAD]])
WRITES = AtomConfig(side="decoder", special_token_ids=[PAD, CLS, SEP])
WRITES_ALL = AtomConfig(side="decoder", tokens="all", special_token_ids=[PAD, CLS, SEP])
PADS = SimpleNamespace(pad_token_id=PAD)


@pytest.mark.parametrize(
    ("inputs", "content", "everything"),
    [
        ({"decoder_input_ids": WRITTEN}, [[0, 1, 1, 1], [0, 1, 0, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]]),
        # T5 and others start from the padding token.
        (
            {"decoder_input_ids": WRITTEN.masked_fill(WRITTEN == SEP, PAD)},
            [[0, 1, 1, 1], [0, 1, 0, 0]],
            [[1] * 4, [1, 1, 0, 0]],
        ),
        (
            {"decoder_input_ids": WRITTEN, "decoder_attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])},
            [[0, 1, 0, 0], [0, 1, 0, 0]],
            [[1, 1, 0, 0], [1, 1, 1, 0]],
        ),
        # Labels are what comes next: their last is not fed to the decoder.
        (
            {"labels": torch.tensor([[5, 6, 7, SEP], [8, SEP, -100, -100]])},
            [[0, 1, 1, 1], [0, 1, 0, 0]],
            [[1] * 4, [1, 1, 1, 0]],
        ),
        # A class for each text is no text: the decoder is fed the text that was read, moved on.
        ({"labels": torch.tensor([1, 0])}, [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]], [[1] * 5, [1, 1, 1, 1, 0]]),
        ({"labels": torch.eye(2, 3)}, [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]], [[1] * 5, [1, 1, 1, 1, 0]]),
        ({}, [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]], [[1] * 5, [1, 1, 1, 1, 0]]),
    ],
    ids=["ids", "starts from padding", "mask", "labels", "classes", "several classes", "nothing"],
)
def test_what_a_decoder_writes(inputs, content, everything):
    hidden = torch.zeros(2, len(content[0]), 4)
    assert mask_of(hidden, {**READ, **inputs}, WRITES, PADS) == content
    assert mask_of(hidden, {**READ, **inputs}, WRITES_ALL, PADS) == everything


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


def test_placeholders_of_images_are_no_special_tokens():
    processor = SimpleNamespace(tokenizer=SimpleNamespace(all_special_ids=[0, 1, 2, 30, 31, 32], unk_token_id=None))
    config = SimpleNamespace(image_token_id=30, audio_token_index=31)
    assert special_token_ids(config, processor) == [0, 1, 2, 32]


def test_the_ids_of_a_text_model_within_count():
    inner = BertConfig(pad_token_id=3)
    assert special_token_ids(SimpleNamespace(get_text_config=lambda: inner, eos_token_id=4)) == [3, 4]
