"""Metrics of the tasks: accuracy, F1, Matthews correlation, perplexity; and of the importance."""

import math
from typing import Any

import numpy as np
import torch

CLASSIFICATION_METRICS = ("accuracy", "f1", "mcc")

IMPORTANCE_KEYS = ("importance", "positive_share", "negative_share")


def classification_metrics(prediction: Any) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews' correlation coefficient of logits [n, classes] against labels [n]."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    logits = prediction.predictions
    chosen = np.argmax(logits[0] if isinstance(logits, tuple) else logits, axis=-1)
    truth = prediction.label_ids
    return {
        "accuracy": float(accuracy_score(truth, chosen)),
        "f1": float(f1_score(truth, chosen, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(truth, chosen)),
    }


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy in nats per token; infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def importance_metrics(trainer: Any, batches: int) -> dict[str, float]:
    """Mean |importance| and the shares of either sign, over the first `batches` batches of a trainer's evaluation data."""
    found = []
    model = trainer.accelerator.unwrap_model(trainer.model)
    for _, batch in zip(range(batches), trainer.get_eval_dataloader(), strict=False):
        values = model.atom_importance(**batch)
        found.append(values[~values.isnan()].cpu())
    values = torch.cat(found)
    shares = values.abs(), (values > 0).float(), (values < 0).float()
    return {name: share.mean().item() for name, share in zip(IMPORTANCE_KEYS, shares, strict=True)}
