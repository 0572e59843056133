"""Comprehensiveness, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import comprehensiveness
from atom_hf.faithfulness.module import ERASER, NUMBER, NUMBERS, FaithfulnessMetric


class Comprehensiveness(FaithfulnessMetric):
    """How much a model's probability falls when the tokens that an attribution ranks first are masked: the mean over
    ERASER's bins (1, 5, 10, 20 and 50 % of the tokens). More is better.
    """

    INPUTS = """
    predictions: for each sample the probabilities with the first 1, 5, 10, 20 and 50 % of its tokens masked
        (atom_hf.faithfulness.metrics.bin_counts), in this order.
    references: for each sample the probability on the whole input.
    Returns {"comprehensiveness": the mean over samples}.
    """
    CITATION = ERASER
    FEATURES = {"predictions": NUMBERS, "references": NUMBER}

    def measure(self, prediction, reference):
        return comprehensiveness(reference, prediction)
