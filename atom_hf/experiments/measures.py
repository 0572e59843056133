"""Measures of a trained model apart from its loss: calibration, latent space, robustness, generated text."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import torch
from torch.nn import functional as F

from ..data.load import TaskData
from ..finetune.metrics import classification_metrics, perplexity
from ..finetune.run import Prepared
from ..utils.statistics import effective_rank
from .features import encode, read_outputs, same_inputs
from .probes import cross_entropy, distance_correlation, linear_probe, neighbor_accuracy, scaled_loss, twin_retrieval
from .regularizers import collecting_latents

BINS = 15

NOISE = 0.2  # standard deviation of the noise on an image, as a share of the whole range of its values

DROPPED = 0.2  # share of the words that are taken out of a text

PROMPT, WRITTEN, SAMPLES = 3, 24, 200  # tokens given, tokens written after them, texts written


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error in [0, 1] with 15 bins of equal width (Guo et al., arXiv 1706.04599, Eq. 3).

    Args:
        probabilities: [n, classes].
        labels: [n].
    """
    if not np.isfinite(probabilities).all():
        return float("nan")  # of a model that diverged
    # By hand: torchmetrics, which has it, is not among the dependencies, and no other of its measures is needed.
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(labels))


def entropy(probabilities: np.ndarray) -> float:
    """Mean entropy in nats of distributions [n, classes]."""
    from scipy import stats

    return float(stats.entropy(probabilities, axis=1).mean())


def neighbor_distance(latent: np.ndarray) -> float:
    """Mean distance of latents [n, h] to the nearest other, over the mean distance of all pairs: no unit."""
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(latent))
    mean = distances.sum() / (len(latent) * (len(latent) - 1))
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(1).mean() / max(mean, 1e-30))


def distinct(texts: Sequence[Sequence[Any]], n: int) -> float:
    """Distinct n-grams over all n-grams of the texts, each a sequence of words (Li et al., arXiv 1510.03055)."""
    grams = [gram for text in texts for gram in zip(*(text[i:] for i in range(n)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def repetition(texts: Sequence[Sequence[Any]]) -> float:
    """Share of the words that repeat the word before them, over texts as sequences of words."""
    pairs = Counter(a == b for text in texts for a, b in pairwise(text))
    return pairs[True] / max(1, pairs.total())


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4, 0 to 100, of each text against all others (Zhu et al., arXiv 1802.01886); less is more diverse."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(effective_order=True)
    return float(
        np.mean(
            [
                metric.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score
                for i, text in enumerate(texts)
                if text.strip()
            ]
        )
    )


def corrupt(rows: datasets.Dataset, seed: int) -> datasets.Dataset:
    """The rows with noise on their images, or with words missing from their texts; the same for the same seed."""
    rng = np.random.default_rng(seed)
    if "image" in rows.column_names:
        from PIL import Image

        def noisy(image: Any) -> Any:
            # A palette's indices and a mask's bits are not brightness.
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"), dtype=np.float64)
            noise = rng.normal(0, NOISE * 255, pixels.shape)
            return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))

        images = [noisy(image) for image in rows[:]["image"]]
        return datasets.Dataset.from_dict(
            {"image": images, "label": rows[:]["label"]},
            features=datasets.Features({"image": datasets.Image(), "label": rows.features["label"]}),
        )

    def gaps(text: str) -> str:
        words = text.split()
        return " ".join(word for word in words if rng.random() >= DROPPED) or text

    columns = {
        name: list(map(gaps, rows[:][name])) if name.startswith("text") else rows[:][name] for name in rows.column_names
    }
    return datasets.Dataset.from_dict(columns, features=rows.features)


def measure_classifier(
    prepared: Prepared, shifts: dict[str, datasets.Dataset], seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """The measures of a classifier on its evaluation data, and its features there [n, h].

    Args:
        prepared: after training.
        shifts: rows of other distributions by name, each with the same classes.
        seed: of the corruption.
    """
    from scipy.special import softmax

    logits, labels, latent = read_outputs(prepared, encode(prepared, prepared.data.eval))
    logits = logits.astype(np.float64)
    probabilities = softmax(logits, axis=1)
    found = classification_metrics(_Prediction(logits, labels))
    measures = {
        "accuracy": found["accuracy"],
        "mcc": found["mcc"],
        "loss": cross_entropy(logits, labels),
        "calibration_error": calibration_error(probabilities, labels),
        "entropy": entropy(probabilities),
        "effective_rank": effective_rank(latent),
        "neighbor_distance": neighbor_distance(latent),
    }
    for name, rows in {"corrupted": corrupt(prepared.data.eval, seed), **shifts}.items():
        other, truth, features = read_outputs(prepared, encode(prepared, rows))
        scores = classification_metrics(_Prediction(other, truth))
        measures |= {f"{name} accuracy": scores["accuracy"], f"{name} mcc": scores["mcc"]}
        if name == "corrupted":
            twin = twin_retrieval(latent, features)
    known, truth, _ = read_outputs(prepared, encode(prepared, prepared.data.train))
    measures |= {
        "scaled loss": scaled_loss(logits, labels),
        "train accuracy": classification_metrics(_Prediction(known, truth))["accuracy"],
        "twin": twin,
        "distance_correlation": distance_correlation(logits, latent),
    }
    return measures, latent


def measure_probes(
    prepared: Prepared, probes: dict[str, TaskData], prefix: str = "", known: np.ndarray | None = None
) -> dict[str, float]:
    """How well other labels than the model's are read from its features: by a linear probe, and from nearest neighbours.

    Args:
        prepared: the model as it is now.
        probes: by name, rows to fit on (`train`) and rows to score on (`eval`), with the other labels.
        prefix: goes between the probe's name and the measure's.
        known: the model's features of its evaluation rows, if they have been read: those need not be read again.
    """
    measures = {}
    for name, data in probes.items():
        _, fitted, x = read_outputs(prepared, encode(prepared, data.train))
        if known is not None and same_inputs(data.eval, prepared.data.eval):
            scored, y = np.array(data.eval[:]["label"]), known
        else:
            _, scored, y = read_outputs(prepared, encode(prepared, data.eval))
        found = linear_probe(x, fitted, y, scored)
        start = f"{name} {prefix}"
        measures |= {f"{start}probe": found["accuracy"], f"{start}neighbors": neighbor_accuracy(x, fitted, y, scored)}
        measures |= {f"{start}probe {other}": found[other] for other in ("mcc", "auc") if other in found}
    return measures


@torch.no_grad()
def measure_writer(prepared: Prepared, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """The measures of a causal language model on its evaluation data, and its latents there [n, h].

    The latent of a text is the mean over its tokens. Texts are sampled at temperature 1 after the first
    three tokens of evaluation texts.
    """
    trainer = prepared.trainer
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    tokenizer = prepared.task.processing_class
    total = count = disorder = 0.0
    rows = []
    with collecting_latents(model) as latents:
        for batch in trainer.get_eval_dataloader():
            labels = batch.pop("labels")[:, 1:]
            logits = model(**batch).logits[:, :-1].float()
            known = labels != -100
            log_probabilities = F.log_softmax(logits[known], dim=-1)
            total += F.nll_loss(log_probabilities, labels[known], reduction="sum").item()
            disorder -= (log_probabilities.exp() * log_probabilities).sum().item()
            count += known.sum().item()
            mask = batch["attention_mask"].unsqueeze(-1)
            rows.append(((latents.pop() * mask).sum(1) / mask.sum(1)).float().cpu())
    latent = torch.cat(rows).numpy()
    written = _write(model, tokenizer, prepared.task.eval, seed)
    words = [text.split() for text in written]
    loss = total / count
    return {
        "perplexity": perplexity(loss),
        "loss": loss,
        "entropy": disorder / count,
        "effective_rank": effective_rank(latent),
        "neighbor_distance": neighbor_distance(latent),
        "distinct-1": distinct(words, 1),
        "distinct-2": distinct(words, 2),
        "self_bleu": self_bleu(written),
        "repetition": repetition(words),
    }, latent


def _write(model: Any, tokenizer: Any, encoded: Any, seed: int) -> list[str]:
    prompts = [row[:PROMPT] for row in encoded["input_ids"][: 2 * SAMPLES] if len(row) > PROMPT][:SAMPLES]
    ids = torch.tensor(prompts, device=model.device)
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=WRITTEN,
            pad_token_id=tokenizer.pad_token_id,
        )
    return tokenizer.batch_decode(written[:, PROMPT:], skip_special_tokens=True)


class _Prediction:
    def __init__(self, predictions: np.ndarray, label_ids: np.ndarray):
        self.predictions, self.label_ids = predictions, label_ids


def less_is_better(measure: str) -> bool:
    """Whether a smaller value of a measure is the better one; of `entropy` and the latent space neither is."""
    return measure in ("loss", "perplexity", "calibration_error", "self_bleu", "repetition")
