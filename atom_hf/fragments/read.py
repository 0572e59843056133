"""Read the channels of any model: its units, layers, heads, latents, class probabilities or atoms."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AtomError
from ..modeling.layers import check_layer
from ..modeling.states import StateReader
from ..modeling.unwrap import inner_model
from .attention_heads import HeadReader
from .augmentation import Augmentation, change_sample
from .calibration import check_bits
from .channel import Channel
from .gather import Gathered, Passes, gather
from .kinds import (
    OF_LAYERS,
    check_atoms,
    check_classifier,
    read_importance,
    read_logits,
    read_position,
    read_posterior,
)
from .load import load_model, processor_of, run_name
from .options import SIZE, ChannelOptions
from .points import Points, check_kind, find_points


def read_channels(
    model: Any,
    data: Any,
    *,
    kind: str,
    layer: int | Sequence[int] | str = -1,
    of: str = "samples",
    noise: float | None = None,
    bits: float | None = None,
    quantile: bool = False,
    dropout: int | None = None,
    augment: int | None = None,
    change: Any = change_sample,
    side: str = "encoder",
    size: int = SIZE,
    principal: bool = False,
    temperature: float = 1.0,
    processor: Any = None,
    samples: int | None = None,
    points: int | None = None,
    max_length: int = 128,
    batch_size: int = 32,
    run: str | None = None,
    seed: int = 0,
) -> list[Channel]:
    """The channels of a model for some data points, with their names, and ids by which other points are refused.

    Deterministic values (units, subspaces, space, heads, position) become distributions by one of `noise`, `bits`, `dropout`
    and `augment`; by default by noise at which each channel holds 1 bit. Their information is then set, and only which points
    are told apart is the model's. Hidden states are found in the way in which atoms get theirs.

    Args:
        model: a folder, a Hub id, a built-in name, or a live model (Transformers, PEFT, SentenceTransformer).
        data: what `--dataset` may name, of which the evaluation split is read; a `TaskData`; a `datasets.Dataset` with a column
            "text" or "image"; a list of texts, PIL images or rows; or a list of ready batches of the model's inputs.
        kind: one of `kinds.KINDS`.
        layer: index into the hidden states (0 is the embeddings, -1 the last layer), several of them, or "all".
        of: a data point is a sample ("samples": mean over its tokens), or each token ("tokens").
        noise: standard deviation of the noise, in the units of the values.
        bits: of information to set in each channel.
        quantile: ranks to normal scores first, with the same noise for all: no increasing map of a unit changes anything.
        dropout: passes with dropout, whose mean and variance are the channel's.
        augment: passes over randomly changed samples (`augmentation.change_sample`), likewise.
        change: changes a sample for `augment`: takes a row and a `numpy.random.Generator`, and returns a row.
        side: of an encoder-decoder, "encoder" or "decoder".
        size: dimensions of a subspace.
        principal: subspaces of principal components, the largest first, not of dimensions in their order.
        temperature: of the softmax over classes.
        processor: tokenizer or image processor; needed with a live model and data that are not batches.
        samples: read as many at most, drawn with `seed`.
        points: keep as many tokens at most, drawn with `seed`.
        max_length: texts are cut after this many tokens.
        batch_size: samples a forward pass.
        run: the name of the model; by default of its folder or class.
        seed: of what is drawn.

    Returns:
        one channel a unit, subspace, head or latent, or one a layer or model, in their order.

    Raises:
        AtomError: an unknown kind, options that do not go together, a layer that is not there, a model or data that cannot be
            loaded or do not fit.
    """
    options = ChannelOptions(kind, of, noise, bits, quantile, dropout, augment, size, principal, temperature)
    options.check()
    for name, value, least in (("points", points, 2), ("batch_size", batch_size, 1)):
        if value is not None and value < least:
            raise AtomError(f"{name} must be at least {least}, got {value}")
    given = find_points(data, samples, seed)
    if bits is not None and of == "samples" and given.rows is not None:
        check_bits(bits, given.count)
    if isinstance(model, str):
        run = run_name(model) if run is None else run
        name, model = model, load_model(model)
        processor = processor or (None if given.rows is None else processor_of(name, model))
    base = inner_model(model)
    run = type(base).__name__ if run is None else run
    layers = _check_model(model, given, kind, layer, side, processor)
    changes = Augmentation(augment, change, seed) if augment else None
    how = Passes(processor, max_length, batch_size, dropout, changes, of, points, seed)
    reader = StateReader(model, layers if kind in OF_LAYERS else [-1], side=side, processing_class=processor)
    heads = HeadReader(reader) if kind == "heads" else None
    reads = {
        "heads": heads,
        "importance": read_importance(model),
        "position": read_position(model, of),
        "posterior": read_posterior(model),
        "classes": read_logits(model, reader, of) if kind == "classes" else None,
    }
    read = reads.get(kind) or (lambda inputs: reader(inputs)[0])
    found = gather(read, base, given, how, run)
    about = {"run": run}
    if kind == "posterior":
        return _latents(found["posterior"], about)
    if kind == "classes":
        return _classes(found["classes"], base.config, temperature, about)
    if kind == "importance":
        # A token says one of two things: with probability (1 + q) / 2 that it carries meaning.
        chance = (1 + found["importance"].mean[:, 0].double().clamp(-1, 1)) / 2
        return [Channel.soft(torch.stack([chance, 1 - chance], 1), name=kind, ids=found["importance"].ids, **about)]
    parts = []
    for key, values in found.items():
        place = f"layer {key % reader.count}" if kind in OF_LAYERS else kind
        parts += _parts(values, options, place, heads.heads[key] if heads else 1)
    bar = tqdm(parts, desc=f"noise {run}", unit="channel", leave=False, disable=len(parts) < 100)
    return [_made(name, mean, variance, ids, options, about) for name, mean, variance, ids in bar]


def _parts(
    values: Gathered, options: ChannelOptions, place: str, heads: int
) -> Iterable[tuple[str, Tensor, Tensor | None, list[str]]]:
    """(name, mean [N, d], variance [N, d] or None, ids) of each channel of one layer."""
    mean, variance, ids = values.mean.double(), values.variance, values.ids
    kind, principal = options.kind, options.principal
    width = mean.shape[1]
    if kind in ("space", "position"):
        yield place, mean, variance, ids
        return
    if principal:
        _, _, axes = torch.linalg.svd(mean - mean.mean(0), full_matrices=False)
        mean, width = (mean - mean.mean(0)) @ axes.T, len(axes)
    step = {"units": 1, "heads": width // heads}.get(kind, options.size)
    for start in range(0, width, step):
        end = min(start + step, width)
        what = {"units": f"unit {start}", "heads": f"head {start // step}"}.get(kind)
        what = what or f"{'components' if principal else 'units'} {start}-{end - 1}"
        yield f"{place} {what}", mean[:, start:end], None if variance is None else variance[:, start:end], ids


def _made(
    name: str, mean: Tensor, variance: Tensor | None, ids: list[str], options: ChannelOptions, about: dict[str, Any]
) -> Channel:
    if variance is not None:
        return Channel.gaussian(mean, variance.log(), name=name, ids=ids, **about)
    chosen = {key: getattr(options, key) for key in ("noise", "bits", "quantile")}
    return Channel.deterministic(mean, name=name, ids=ids, **chosen, **about)


def _latents(found: Gathered, about: dict[str, Any]) -> list[Channel]:
    mean, log_variance = found.mean.double().chunk(2, 1)
    return [
        Channel.gaussian(mean[:, place], log_variance[:, place], name=f"latent {place}", ids=found.ids, **about)
        for place in range(mean.shape[1])
    ]


def _classes(found: Gathered, config: Any, temperature: float, about: dict[str, Any]) -> list[Channel]:
    logits = found.mean.double() / temperature
    if config.problem_type != "multi_label_classification":
        return [Channel.soft(logits.softmax(1), name="classes", ids=found.ids, **about)]
    # Several classes may hold: each is a message of its own.
    chances = logits.sigmoid()
    return [
        Channel.soft(torch.stack([chance, 1 - chance], 1), name=config.id2label[place], ids=found.ids, **about)
        for place, chance in enumerate(chances.T)
    ]


def _check_model(
    model: Any, given: Points, kind: str, layer: int | Sequence[int] | str, side: str, processor: Any
) -> Sequence[int] | str:
    """The layers to read. Raises `AtomError` for what can be told to be wrong before a forward pass."""
    base = inner_model(model)
    if not isinstance(base, torch.nn.Module) or not hasattr(base, "config"):
        raise AtomError(f"model must be a Transformers model, a folder or a Hub id; got {type(model).__name__}")
    check_kind(given, base)
    if given.rows is not None and processor is None:
        raise AtomError("processor: give the tokenizer or image processor of a live model, or batches of its inputs")
    if kind in ("importance", "position"):
        check_atoms(model, kind)
    if kind == "classes":
        check_classifier(model)
    if side not in ("encoder", "decoder"):
        raise AtomError(f"side must be 'encoder' or 'decoder', got {side!r}")
    layers = layer if layer == "all" else [layer] if isinstance(layer, int) else layer
    if layers != "all":
        if isinstance(layers, str) or not layers or not all(isinstance(one, int) for one in layers):
            raise AtomError(f"layer must be a whole number, several, or 'all'; got {layer!r}")
        for one in layers:
            check_layer(base, one, side)
    return layers
