"""Measures of features by labels that training did not have: probes, neighbours, twins, distances."""

import warnings

import numpy as np

STRENGTHS = (0.01, 0.1, 1.0)  # the inverse weights of the L2 penalty that a linear probe is chosen among

NEIGHBORS = 5

PAIRED = 500  # rows whose pairs a rank correlation is over


def scaled_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Cross-entropy in nats after temperature scaling (Guo et al., arXiv 1706.04599, section 4.2).

    The temperature is fitted on every other row and the loss is that of the others; both ways, and the mean.

    Args:
        logits: [n, classes].
        labels: [n].
    """
    from scipy.optimize import minimize_scalar

    if not np.isfinite(logits).all():
        return float("nan")  # of a model that diverged
    halves = slice(0, None, 2), slice(1, None, 2)
    losses = []
    for fitted, scored in (halves, halves[::-1]):
        found = minimize_scalar(
            lambda t, rows=fitted: cross_entropy(logits[rows] * np.exp(-t), labels[rows]),
            bounds=(-6.0, 6.0),
            method="bounded",
            options={"xatol": 1e-6},
        )
        losses.append(cross_entropy(logits[scored] * np.exp(-found.x), labels[scored]))
    return float(np.mean(losses))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits [n, classes] at labels [n]."""
    from scipy.special import log_softmax

    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def linear_probe(
    features: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> dict[str, float]:
    """Accuracy and MCC on other rows of a logistic regression on features; of two classes the area under the ROC curve too.

    Features are standardised by the mean and standard deviation of the fitted rows. The penalty is the one of `STRENGTHS` that
    does best on every fourth of these rows when it is fitted on the rest.

    Args:
        features, labels: of the rows to fit on, [n, h] and [n].
        others, other_labels: of the rows to score on, [m, h] and [m].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import matthews_corrcoef, roc_auc_score
    from sklearn.preprocessing import StandardScaler

    two = len(np.unique(labels)) == 2
    if not (np.isfinite(features).all() and np.isfinite(others).all()):
        return dict.fromkeys(("accuracy", "mcc", *(["auc"] if two else [])), float("nan"))
    scaler = StandardScaler().fit(features.astype(np.float64))
    x, y = scaler.transform(features.astype(np.float64)), scaler.transform(others.astype(np.float64))

    def fit(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=200).fit(x[rows], labels[rows])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that is not at its end after 200 steps is as good a probe
        every = np.arange(len(labels))
        held = every % 4 == 3
        best = max(STRENGTHS, key=lambda strength: fit(strength, every[~held]).score(x[held], labels[held]))
        model = fit(best, every)
    found = {
        "accuracy": float(model.score(y, other_labels)),
        "mcc": float(matthews_corrcoef(other_labels, model.predict(y))),
    }
    return {**found, "auc": float(roc_auc_score(other_labels, model.decision_function(y)))} if two else found


def neighbor_accuracy(features: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray) -> float:
    """Share of other rows whose label is the most frequent of their 5 nearest, by Euclidean distance of features."""
    from sklearn.neighbors import KNeighborsClassifier

    if not (np.isfinite(features).all() and np.isfinite(others).all()):
        return float("nan")
    return float(KNeighborsClassifier(NEIGHBORS).fit(features, labels).score(others, other_labels))


def twin_retrieval(clean: np.ndarray, corrupted: np.ndarray) -> float:
    """Share of corrupted rows whose nearest among all clean ones [n, h] is the row that they were made of."""
    from scipy.spatial.distance import cdist

    if not (np.isfinite(clean).all() and np.isfinite(corrupted).all()):
        return float("nan")
    return float((cdist(corrupted, clean).argmin(1) == np.arange(len(clean))).mean())


def distance_correlation(outputs: np.ndarray, latent: np.ndarray) -> float:
    """Spearman's rank correlation, over pairs of rows, of the distances of outputs [n, c] and of latents [n, h] (ours).

    The paper's Eq. 3 relates the two distances; this is one number for how far they go together, over the first 500 rows.
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    if not (np.isfinite(outputs).all() and np.isfinite(latent).all()):
        return float("nan")
    first, second = pdist(outputs[:PAIRED]), pdist(latent[:PAIRED])
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)
