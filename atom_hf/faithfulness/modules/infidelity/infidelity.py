"""Infidelity, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import infidelity_of
from atom_hf.faithfulness.module import INFIDELITY, NUMBERS, FaithfulnessMetric


class Infidelity(FaithfulnessMetric):
    """The mean squared error of an attribution as a prediction of how much a model's probability falls when random sets of
    tokens are switched off. Less is better.
    """

    INPUTS = """
    predictions: for each sample, of each set, the sum of the attributions of its tokens.
    references: for each sample, of each set, how far the probability falls as it is switched off.
    normalize: each sample's predictions are scaled first by what fits best, which may be negative.
    Returns {"infidelity": the mean over samples}.
    """
    CITATION = INFIDELITY
    FEATURES = {"predictions": NUMBERS, "references": NUMBERS}

    def measure(self, prediction, reference, normalize=False):
        return infidelity_of(prediction, reference, normalize=normalize)
