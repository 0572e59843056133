"""Insertion, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import area
from atom_hf.faithfulness.module import NUMBERS, RISE, FaithfulnessMetric


class Insertion(FaithfulnessMetric):
    """The area under a model's probability as tokens are unmasked, those first that an attribution ranks first.

    More is better.
    """

    INPUTS = """
    predictions: for each sample the probabilities from none of its tokens (0) to the whole input (1), in even steps of the
        share of tokens that is there.
    Returns {"insertion": the mean area over samples}.
    """
    CITATION = RISE
    FEATURES = {"predictions": NUMBERS}

    def measure(self, prediction):
        return area(prediction)
