"""Deletion, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import area
from atom_hf.faithfulness.module import NUMBERS, RISE, FaithfulnessMetric


class Deletion(FaithfulnessMetric):
    """The area under a model's probability as tokens are masked, those first that an attribution ranks first.

    Less is better.
    """

    INPUTS = """
    predictions: for each sample the probabilities from the whole input (0) to none of its tokens (1), in even steps of the
        share of tokens that is masked.
    Returns {"deletion": the mean area over samples}.
    """
    CITATION = RISE
    FEATURES = {"predictions": NUMBERS}

    def measure(self, prediction):
        return area(prediction)
