"""Infidelity, as a module of `evaluate`."""

import datasets
import evaluate

from atom_hf.faithfulness.metrics import infidelity_of

DESCRIPTION = """\
The mean squared error of an attribution's own account of how a model's probability falls as random sets of tokens are
switched off. Less is better.
"""

INPUTS = """\
predictions: for each sample, of each set, the sum of the attributions of its tokens.
references: for each sample, of each set, how far the probability falls as it is switched off.
normalize: each sample's predictions are scaled first by what fits best, which may be negative.
Returns {"infidelity": the mean over samples}.
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


class Infidelity(evaluate.Metric):
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

    def _compute(self, predictions, references, normalize=False):
        pairs = zip(predictions, references, strict=True)
        found = [infidelity_of(account, change, normalize=normalize) for account, change in pairs]
        return {"infidelity": sum(found) / len(found)}
