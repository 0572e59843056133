"""Insertion, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import area

DESCRIPTION = """\
The area under a model's probability as tokens are given back, those first that an attribution ranks first. More is better.
"""

INPUTS = """\
predictions: for each sample the probabilities from nothing (0) to the whole input (1), in even steps of the share of tokens
    that is there.
Returns {"insertion": the mean area over samples}.
"""

CITATION = """\
@inproceedings{petsiuk2018rise,
  title={{RISE}: Randomized Input Sampling for Explanation of Black-box Models},
  author={Petsiuk, Vitali and Das, Abir and Saenko, Kate},
  booktitle={BMVC},
  year={2018},
  note={arXiv 1806.07421}
}
"""


class Insertion(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self):
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(self, predictions):
        found = [area(curve) for curve in predictions]
        return {"insertion": sum(found) / len(found)}
