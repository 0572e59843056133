"""Models of a few thousand parameters, and a little real data to train them on."""

import functools
import string

import torch
import transformers

from atom_hf import AtomConfig, attach_atoms

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
IMAGE = dict(num_channels=1, image_size=8, patch_size=2, num_labels=10)
# What to build, and how small.
TINY = {
    "bert": ("BertForSequenceClassification", dict(SIZES, max_position_embeddings=48)),
    "distilbert": ("DistilBertForSequenceClassification", dict(dim=32, n_layers=2, n_heads=2, hidden_dim=48)),
    "roberta": ("RobertaForSequenceClassification", dict(SIZES, max_position_embeddings=50)),
    "gpt2-classifier": ("GPT2ForSequenceClassification", dict(n_embd=32, n_layer=2, n_head=2, n_positions=48)),
    "gpt2": ("GPT2LMHeadModel", dict(n_embd=32, n_layer=2, n_head=2, n_positions=48, bos_token_id=2, eos_token_id=3)),
    "vit": ("ViTForImageClassification", dict(SIZES, **IMAGE)),
    "dinov2-registers": ("Dinov2WithRegistersForImageClassification", dict(SIZES, **IMAGE, num_register_tokens=4)),
    "resnet": (
        "ResNetForImageClassification",
        dict(num_channels=1, num_labels=10, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    ),
    "swin": (
        "SwinForImageClassification",
        dict(IMAGE, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2),
    ),
}
AUTO = {
    "bert": transformers.AutoModelForSequenceClassification,
    "gpt2": transformers.AutoModelForCausalLM,
    "vit": transformers.AutoModelForImageClassification,
}
TEXT = ("bert", "distilbert", "roberta", "gpt2-classifier", "gpt2")


def tiny(name, *, seed=0, dropout=0.0, **overrides):
    """A model made from its configuration, the same one for the same seed, in training mode."""
    class_name, sizes = TINY[name]
    make = getattr(transformers, class_name)
    # Ten times the usual initial weights: with those, a tiny model's logits hardly depend on its input.
    options = {"initializer_range": 0.2, **sizes, **overrides}
    if name in TEXT:
        options = {"vocab_size": len(make_tokenizer()), "pad_token_id": 0, **options}
    config = make.config_class(**options)
    for field, value in config.to_dict().items():
        if "drop" in field and isinstance(value, float):
            setattr(config, field, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(config).train()


@functools.cache
def make_tokenizer():
    """WordPiece with the words of a few verses; any other word falls into pieces of one letter."""
    from transformers import BertTokenizer

    words = sorted({word for row in verse(60) for word in row["text"].lower().split() if word.isalpha()})
    letters = list(string.ascii_lowercase + string.punctuation)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters), *words]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, model_max_length=48)


@functools.cache
def verse(count):
    from atom_hf.data.load import load_data

    return list(load_data("verse", max_train_samples=count, max_eval_samples=2).train)


@functools.cache
def digits(count):
    import numpy as np

    from atom_hf.data.load import load_data

    rows = load_data("digits", max_train_samples=count, max_eval_samples=10).train
    return [(np.asarray(row["image"], dtype=np.float32) / 255 - 0.5, row["label"]) for row in rows]


def rows_for(name, count=16):
    """Training rows for the model `name`: lines of verse, or digits."""
    if name in TEXT:
        rows = []
        for row in verse(60)[:count]:
            ids = make_tokenizer()(row["text"], truncation=True, max_length=48)
            ids.pop("token_type_ids")
            rows.append({**ids, "labels": list(ids["input_ids"]) if name == "gpt2" else row["label"]})
        return rows
    size = 4 if name == "resnet" else 1  # a ResNet leaves one cell of each 8 x 8 pixels
    images = [(torch.from_numpy(image).kron(torch.ones(size, size))[None], label) for image, label in digits(60)]
    return [{"pixel_values": image, "labels": label} for image, label in images[:count]]


def collator_for(name):
    """What makes a batch of the rows of `rows_for`."""
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, default_data_collator

    if name == "gpt2":
        return DataCollatorForSeq2Seq(make_tokenizer())
    return DataCollatorWithPadding(make_tokenizer()) if name in TEXT else default_data_collator


def batch_for(name, count=4, start=0, labels=False):
    """`count` rows as the tensors that the model `name` takes."""
    batch = dict(collator_for(name)(rows_for(name, start + count)[start:]))
    return batch if labels else {key: value for key, value in batch.items() if key != "labels"}


def attached(name, config=None, **options):
    config = config or AtomConfig(
        form="paper", layer=-1
    )  # the one layer that is as wide as the heads in every model here
    return attach_atoms(tiny(name, **options), config, make_tokenizer() if name in TEXT else None)


def same_outputs(a, b):
    """Whether two outputs are of one type and hold the same keys and, to the bit and NaN for NaN, the same tensors."""
    if torch.is_tensor(a):
        return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same_outputs, a, b))
    if hasattr(a, "keys"):
        return type(a) is type(b) and list(a) == list(b) and all(same_outputs(a[k], b[k]) for k in a)
    return type(a) is type(b)  # a cache object
