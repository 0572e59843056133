"""Seed agreement, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import agreement, mean
from atom_hf.faithfulness.module import LISTS_OF_NUMBERS, FaithfulnessMetric


class SeedAgreement(FaithfulnessMetric):
    """The mean rank correlation (Spearman) of the attributions of one sample, over each pair of models. 1 is the same order."""

    INPUTS = """
    predictions: for each sample its attributions, one list of a number a token for each model.
    Returns {"seed_agreement": the mean over samples, without those whose attributions are constant}.
    """
    CITATION = """
    @article{spearman1904proof,
      title={The Proof and Measurement of Association between Two Things},
      author={Spearman, Charles},
      journal={The American Journal of Psychology},
      volume={15},
      number={1},
      pages={72--101},
      year={1904}
    }
    """
    FEATURES = {"predictions": LISTS_OF_NUMBERS}

    def measure(self, prediction):
        return agreement(prediction)

    def summarize(self, found):
        return {self.name: mean(found)}
