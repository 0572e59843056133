"""Comprehensiveness, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import comprehensiveness

DESCRIPTION = """\
How much a model's probability falls when the tokens that an attribution ranks first are taken away: the mean over ERASER's
bins (1, 5, 10, 20 and 50 % of the tokens). More is better.
"""

INPUTS = """\
predictions: for each sample the probabilities with the first 1, 5, 10, 20 and 50 % of its tokens taken away
    (atom_hf.faithfulness.metrics.bin_counts), in this order.
references: for each sample the probability on the whole input.
Returns {"comprehensiveness": the mean over samples}.
"""

CITATION = """\
@inproceedings{deyoung2020eraser,
  title={{ERASER}: A Benchmark to Evaluate Rationalized {NLP} Models},
  author={DeYoung, Jay and Jain, Sarthak and Rajani, Nazneen Fatema and Lehman, Eric and Xiong, Caiming and Socher, Richard and
    Wallace, Byron C.},
  booktitle={ACL},
  year={2020},
  note={arXiv 1911.03429}
}
"""


class Comprehensiveness(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self):
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.Value("float64"),
                }
            ),
        )

    def _compute(self, predictions, references):
        found = [comprehensiveness(full, without) for full, without in zip(references, predictions, strict=True)]
        return {"comprehensiveness": sum(found) / len(found)}
