"""Parameter randomization, as a module of `evaluate`."""

from atom_hf.faithfulness.metrics import mean, randomization
from atom_hf.faithfulness.module import NUMBERS, FaithfulnessMetric


class ParameterRandomization(FaithfulnessMetric):
    """How like an attribution is to that of the same model with random parameters: Spearman's rank correlation of the two, and
    of their absolute values. Nearer 0 is better.
    """

    INPUTS = """
    predictions: for each sample its attribution by the model with random parameters.
    references: for each sample its attribution by the model as it was trained.
    Returns {"signed": ..., "absolute": ...}, means over samples without those whose attributions are constant.
    """
    CITATION = """
    @inproceedings{adebayo2018sanity,
      title={Sanity Checks for Saliency Maps},
      author={Adebayo, Julius and Gilmer, Justin and Muelly, Michael and Goodfellow, Ian and Hardt, Moritz and Kim, Been},
      booktitle={NeurIPS},
      year={2018},
      note={arXiv 1810.03292}
    }
    """
    FEATURES = {"predictions": NUMBERS, "references": NUMBERS}

    def measure(self, prediction, reference):
        return randomization(reference, prediction)

    def summarize(self, found):
        return {name: mean([each[name] for each in found]) for name in ("signed", "absolute")}
