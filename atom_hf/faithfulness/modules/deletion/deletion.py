"""Deletion, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import area

DESCRIPTION = """\
The area under a model's probability as tokens are taken away, those first that an attribution ranks first. Less is better.
"""

INPUTS = """\
predictions: for each sample the probabilities from the whole input (0) to nothing (1), in even steps of the share of tokens
    that is gone.
Returns {"deletion": the mean area over samples}.
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


class Deletion(evaluate.Metric):
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
        return {"deletion": sum(found) / len(found)}
