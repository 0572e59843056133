"""Seed agreement, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import agreement, mean

DESCRIPTION = """\
The mean rank correlation (Spearman) of the attributions of one sample, over each pair of models. 1 is the same order.
"""

INPUTS = """\
predictions: for each sample its attributions, one list of a number a token for each model.
Returns {"seed_agreement": the mean over samples, without those whose attributions are constant}.
"""

CITATION = """\
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


class SeedAgreement(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self):
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.List(datasets.Value("float64"))),
                }
            ),
        )

    def _compute(self, predictions):
        return {"seed_agreement": mean([agreement(given) for given in predictions])}
