"""Batches of random inputs for any model, made from what its `forward` takes and its configuration says.

Two samples never differ in length without padding: the last fifth of every second text or recording is padded, and masked.
"""

import inspect
from typing import Any

import exceptions
import media
import torch
from media import field
from torch import Tensor

TEXT = 12  # tokens of a text, beside the places of images or recordings
CHOICES = 2


def parameters_of(model: Any) -> set[str]:
    """The names of what the model's `forward` takes."""
    return set(inspect.signature(model.forward).parameters)


def text_config(config: Any) -> Any:
    """The part of a configuration that describes the text that is written or read."""
    try:
        return config.get_text_config()
    except ValueError:  # an encoder-decoder of two models names one text part each
        return config.get_text_config(decoder=True)


def make_batch(model: Any, task: str, rows: list[int]) -> dict[str, Tensor]:
    """The samples `rows` as one batch, with labels: the same for the same rows."""
    names = parameters_of(model)
    generator = torch.Generator().manual_seed(sum((row + 1) * 31**i for i, row in enumerate(rows)))
    batch: dict[str, Any] = {}
    if task == "image-classification" and "input_ids" not in names:
        if "spatial_shapes" in names:
            batch = next(media.layouts(model, names, len(rows), generator))
        else:
            batch = {model.main_input_name: media.images(model, len(rows), generator)}
    elif task == "audio-classification":
        batch = media.recordings(model, len(rows), generator)
    else:
        places: dict[int, int] = {}
        sees = "pixel_values" in names and (
            task == "image-classification" or model.config.model_type in exceptions.SEES
        )
        if (
            task == "image-text-to-text"
            or sees
            or (task == "seq2seq-lm" and names & {"input_features", "input_values"})
        ):
            heard = task == "seq2seq-lm"
            batch, places = media.seen_and_heard(model, names, len(rows), generator, heard)
        if names & {"input_ids", "inputs"}:
            batch |= texts(model, task, names, rows, places, generator)
    made = labels(model, task, names, batch, len(rows), generator)
    if task == "multiple-choice":
        # The second choice of each sample is the text of another.
        batch = {name: torch.stack([value, value.roll(1, 0)], 1) for name, value in batch.items()}
    return {**batch, **made}


def texts(
    model: Any, task: str, names: set[str], rows: list[int], places: dict[int, int], generator: Any
) -> dict[str, Tensor]:
    """`input_ids` and what goes with them; `places` says how many placeholder tokens of each id every text holds."""
    config = text_config(model.config)
    vocabulary = field(config, "vocab_size", default=256)
    vocabulary = min(vocabulary) if isinstance(vocabulary, list | tuple) else vocabulary
    length = exceptions.LENGTHS.get(model.config.model_type, TEXT)
    ids = torch.randint(3, max(4, min(vocabulary, 100) - 3), (len(rows), length), generator=generator)
    special = set(special_ids(model.config))
    ordinary = next(i for i in range(3, 200) if i not in special and i not in places)
    ids[torch.isin(ids, torch.tensor([*special, *places]))] = ordinary
    pad = field(config, "pad_token_id", default=0)
    eos = field(config, "eos_token_id")
    pad = 0 if not isinstance(pad, int) or not 0 <= pad < vocabulary else pad
    mask = torch.ones_like(ids)
    short = length - max(1, length // 5)
    mask[1::2, short:] = 0
    eos = eos[0] if isinstance(eos, list) else eos
    if isinstance(eos, int) and 0 <= eos < vocabulary and eos != pad:
        for i, row in enumerate(mask):
            ids[i, int(row.sum()) - 1] = eos  # some classifiers read the one end of each text
    ids[mask == 0] = pad
    separator = field(config, "sep_token_id")
    if task in ("question-answering", "multiple-choice") and isinstance(separator, int):
        ids[:, 3:5] = separator  # behind the question
    if places:
        holders = torch.tensor([i for i, count in places.items() for _ in range(count)]).expand(len(rows), -1)
        ids = torch.cat([ids[:, :1], holders, ids[:, 1:]], 1)
        mask = torch.cat([mask[:, :1], torch.ones_like(holders), mask[:, 1:]], 1)
    found = {"input_ids": ids, "attention_mask": mask}
    if "input_ids" not in names:
        found["inputs"] = ids
    found |= media.beside_text(model, names, ids, sorted(places))
    if "visual_feats" in names:
        found["visual_feats"] = torch.randn(len(rows), 4, model.config.visual_feat_dim, generator=generator)
        found["visual_pos"] = torch.rand(len(rows), 4, model.config.visual_pos_dim, generator=generator)
    if model.config.model_type in exceptions.CODEBOOKS:
        found["input_ids"] = ids.repeat_interleave(model.config.num_codebooks, 0)
    if "bbox" in names:
        found["bbox"] = boxes(model.config, ids.shape, generator)
    return {name: value for name, value in found.items() if name in names}


def shifts_nothing(model: Any) -> bool:
    """Whether an encoder-decoder leaves it to others to make its decoder's input from the labels."""
    if model.config.model_type in exceptions.SHIFTS_NOTHING:
        return True
    return not hasattr(model, "prepare_decoder_input_ids_from_labels") and "decoder_input_ids" in parameters_of(model)


def boxes(config: Any, shape: tuple[int, ...], generator: Any) -> Tensor:
    """Places of words on a page, [B, N, 4] in thousandths, or as many numbers in [0, 1] as the model wants."""
    if config.model_type in exceptions.FRACTIONS:
        return torch.rand(*shape, getattr(config, "dim_bbox", 4), generator=generator)
    corners = torch.randint(0, 100, (*shape, 4), generator=generator)
    return torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:]], -1)


def special_ids(config: Any) -> list[int]:
    """Every id that a configuration names."""
    found: set[int] = set()
    for part in [config, *(getattr(config, part, None) for part in getattr(config, "sub_configs", {}))]:
        for name, value in (vars(part) if part is not None else {}).items():
            if name.endswith(("token_id", "token_index", "token_ids", "_pad_id")):
                found.update(v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, int))
    return sorted(found)


def labels(model: Any, task: str, names: set[str], batch: dict, samples: int, generator: Any) -> dict[str, Tensor]:
    """What the model is to learn, named as it names it."""
    ids = batch.get("input_ids", batch.get("inputs"))
    classes = getattr(model.config, "num_labels", 2)
    mask = batch.get("attention_mask")
    if task in ("sequence-classification", "image-classification", "audio-classification"):
        return {"labels": torch.randint(classes, (samples,), generator=generator)}
    if task == "multiple-choice":
        return {"labels": torch.randint(CHOICES, (samples,), generator=generator)}
    if task == "token-classification":
        made = torch.randint(classes, ids.shape, generator=generator)
        return {"labels": made if mask is None else made.masked_fill(mask == 0, -100)}
    if task == "question-answering":
        if "start_positions" in names:
            return {
                "start_positions": torch.randint(1, 4, (samples,), generator=generator),
                "end_positions": torch.randint(4, 8, (samples,), generator=generator),
            }
        return {"labels": torch.randint(model.config.num_qa_labels, (samples,), generator=generator)}
    if getattr(model.config, "is_encoder_decoder", False) and task in ("seq2seq-lm", "image-text-to-text"):
        made = torch.randint(3, 64, (samples, 7), generator=generator)
        given = {"decoder_input_ids": made.roll(1, 1)} if shifts_nothing(model) else {}
        return {**given, "labels": made.clone().index_fill(1, torch.tensor([5, 6]), -100)}
    if ids is None:  # a text is written about what is seen
        return {"labels": torch.randint(3, 64, (samples, 7), generator=generator)}
    if model.config.model_type in exceptions.CODEBOOKS:
        ids = ids.view(samples, -1, ids.shape[1]).transpose(1, 2)
        mask = mask[..., None].expand(ids.shape)
    made = ids.clone()
    if mask is not None:
        made[mask == 0] = -100
    made[torch.isin(made, torch.tensor(list(media.placeholder_ids(model.config).values()) or [-1]))] = -100
    return {"labels": made}
