"""Sensitivity max, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import sensitivity_of

DESCRIPTION = """\
How much an attribution changes, at most, as the input changes a little: the largest ||a(x + d) - a(x)|| / ||a(x)|| over the
changes d that were tried. Less is better.
"""

INPUTS = """\
predictions: for each sample its attributions, one list of a number a token for each change of the input.
references: for each sample its attribution on the input as it is.
Returns {"sensitivity_max": the mean over samples}.
"""

CITATION = """\
@inproceedings{yeh2019infidelity,
  title={On the (In)fidelity and Sensitivity of Explanations},
  author={Yeh, Chih-Kuan and Hsieh, Cheng-Yu and Suggala, Arun Sai and Inouye, David I. and Ravikumar, Pradeep},
  booktitle={NeurIPS},
  year={2019},
  note={arXiv 1901.09392}
}
"""


class SensitivityMax(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self):
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.List(datasets.Value("float64"))),
                    "references": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(self, predictions, references):
        found = [sensitivity_of(moved, given) for moved, given in zip(predictions, references, strict=True)]
        return {"sensitivity_max": sum(found) / len(found)}
