"""Tiny models, trained in a test on a rule that is known, for importance of every target.

Texts are words of `make_tokenizer`. One of them, the key, decides: what its place is differs from text to text.
"""

import functools

import torch
import transformers

from helpers.models import make_tokenizer, tiny

KEYS, VALUES = 4, 4
LENGTH = 7


def words():
    """Ids of words: those of the keys, those of the values, and fillers."""
    tokenizer = make_tokenizer()
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))[-40:]
    return torch.tensor(ids[:KEYS]), torch.tensor(ids[KEYS : KEYS + VALUES]), torch.tensor(ids[KEYS + VALUES :])


def texts(count, seed=0):
    """(ids [count, LENGTH] between [CLS] and [SEP], which key [count], its place [count])."""
    generator = torch.Generator().manual_seed(seed)
    keys, _, fillers = words()
    ids = fillers[torch.randint(len(fillers), (count, LENGTH), generator=generator)]
    chosen = torch.randint(KEYS, (count,), generator=generator)
    places = torch.randint(1, LENGTH - 1, (count,), generator=generator)
    ids[torch.arange(count), places] = keys[chosen]
    tokenizer = make_tokenizer()
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    return ids, chosen, places


def inputs_of(ids):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def train(model, batch_of, steps=80, rate=3e-3):
    """Trains a model on batches by their number; returns it in evaluation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        model.train()
        for step in range(steps):
            loss = model(**batch_of(step)).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.eval()


@functools.cache
def classifier():
    """The class is the key."""
    names = {i: f"key {i}" for i in range(KEYS)}
    model = tiny("bert", num_labels=KEYS, id2label=names, label2id={name: i for i, name in names.items()})

    def batch(step):
        ids, chosen, _ = texts(32, step)
        return {**inputs_of(ids), "labels": chosen}

    return train(model, batch)


@functools.cache
def of_labels():
    """Label i holds for the keys from i on."""
    model = tiny("bert", num_labels=3, problem_type="multi_label_classification")

    def batch(step):
        ids, chosen, _ = texts(32, step)
        return {**inputs_of(ids), "labels": (chosen[:, None] > torch.arange(3)).float()}

    return train(model, batch)


@functools.cache
def regression():
    """The number is that of the key."""
    model = tiny("bert", num_labels=1)

    def batch(step):
        ids, chosen, _ = texts(32, step)
        return {**inputs_of(ids), "labels": chosen.float()}

    return train(model, batch)


@functools.cache
def tagger():
    """The label of each token is the key of its text."""
    sizes = {
        name: value for name, value in tiny("bert").config.to_dict().items() if name not in ("id2label", "label2id")
    }
    names = {i: f"key {i}" for i in range(KEYS)}
    config = transformers.BertConfig(**{**sizes, "id2label": names, "label2id": {name: i for i, name in names.items()}})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertForTokenClassification(config)

    def batch(step):
        ids, chosen, _ = texts(32, step)
        return {**inputs_of(ids), "labels": chosen[:, None].expand(-1, LENGTH).contiguous()}

    return train(model, batch)


@functools.cache
def language_model():
    """The words behind a text are the value of its key, and the next value."""
    model = tiny("gpt2")

    def batch(step):
        ids, chosen, _ = texts(32, step)
        ids = torch.cat([ids, continuation(chosen)], 1)
        labels = ids.clone()
        labels[:, :LENGTH] = -100
        return {**inputs_of(ids), "labels": labels}

    return train(model, batch, steps=150)


def continuation(chosen):
    """The ids [B, 2] behind texts of these keys."""
    values = words()[1]
    return torch.stack([values[chosen], values[(chosen + 1) % VALUES]], 1)


@functools.cache
def reader():
    """The answer is the key, and the word behind it."""
    sizes = tiny("bert").config.to_dict()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes))

    def batch(step):
        ids, _, places = texts(32, step)
        ends = (places + 1).clamp(max=LENGTH - 2)
        return {**inputs_of(ids), "start_positions": places, "end_positions": ends}

    return train(model, batch, steps=150)


@functools.cache
def writer():
    """It writes the value of the key, and the end."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=len(make_tokenizer()), d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2,
                pad_token_id=0, eos_token_id=make_tokenizer().sep_token_id, decoder_start_token_id=0, dropout_rate=0.0,
            )
        )  # fmt: skip

    def batch(step):
        ids, chosen, _ = texts(32, step)
        ends = torch.full((32, 1), make_tokenizer().sep_token_id)
        return {**inputs_of(ids), "labels": torch.cat([continuation(chosen)[:, :1], ends], 1)}

    return train(model, batch, steps=150, rate=1e-2)


def pictures(count, seed=0, side=16):
    """(pixels [count, 1, side, side] with one bright quarter, which quarter [count])."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.2 * torch.randn(count, 1, side, side, generator=generator)
    chosen = torch.randint(4, (count,), generator=generator)
    for pixel, quarter in zip(pixels, chosen.tolist(), strict=True):
        down, across = divmod(quarter, 2)
        half = side // 2
        pixel[0, down * half : (down + 1) * half, across * half : (across + 1) * half] += 2
    return pixels, chosen


@functools.cache
def looker(name):
    """The class is the bright quarter."""
    options = {"resnet": {}, "swin": {"image_size": 16}, "vit": {"image_size": 16, "patch_size": 4}}[name]
    model = tiny(name, num_labels=4, **options)

    def batch(step):
        pixels, chosen = pictures(32, step)
        return {"pixel_values": pixels, "labels": chosen}

    return train(model, batch, steps=60)
