"""Parameter randomization, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import mean, randomization

DESCRIPTION = """\
How like an attribution is to that of the same model with random parameters: Spearman's rank correlation of the two, and of
their absolute values. Nearer 0 is better.
"""

INPUTS = """\
predictions: for each sample its attribution by the model with random parameters.
references: for each sample its attribution by the model as it was trained.
Returns {"signed": ..., "absolute": ...}, means over samples without those whose attributions are constant.
"""

CITATION = """\
@inproceedings{adebayo2018sanity,
  title={Sanity Checks for Saliency Maps},
  author={Adebayo, Julius and Gilmer, Justin and Muelly, Michael and Goodfellow, Ian and Hardt, Moritz and Kim, Been},
  booktitle={NeurIPS},
  year={2018},
  note={arXiv 1810.03292}
}
"""


class ParameterRandomization(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self):
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(self, predictions, references):
        found = [randomization(one, other) for one, other in zip(references, predictions, strict=True)]
        return {name: mean([each[name] for each in found]) for name in ("signed", "absolute")}
