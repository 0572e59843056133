"""Sensitivity max, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import sensitivity_of
from atom_hf.faithfulness.module import INFIDELITY, LISTS_OF_NUMBERS, NUMBERS, FaithfulnessMetric


class SensitivityMax(FaithfulnessMetric):
    """How much an attribution changes, at most, as the input changes a little: the largest ||a(x + d) - a(x)|| / ||a(x)|| over
    the changes d that were tried. Less is better.
    """

    INPUTS = """
    predictions: for each sample its attributions, one list of a number a token for each change of the input.
    references: for each sample its attribution on the input as it is.
    Returns {"sensitivity_max": the mean over samples}.
    """
    CITATION = INFIDELITY
    FEATURES = {"predictions": LISTS_OF_NUMBERS, "references": NUMBERS}

    def measure(self, prediction, reference):
        return sensitivity_of(prediction, reference)
