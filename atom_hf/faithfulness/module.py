"""Base class and citations of the `evaluate` modules in `modules/`.

`evaluate.load` copies a module's file elsewhere before it is imported, so the modules import this one by its full name.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any

import datasets
import evaluate

NUMBER = datasets.Value("float64")

NUMBERS = datasets.List(NUMBER)

LISTS_OF_NUMBERS = datasets.List(NUMBERS)

# Cited by two modules.
ERASER = """\
@inproceedings{deyoung2020eraser,
  title={{ERASER}: A Benchmark to Evaluate Rationalized {NLP} Models},
  author={DeYoung, Jay and Jain, Sarthak and Rajani, Nazneen Fatema and Lehman, Eric and Xiong, Caiming and Socher, Richard and
    Wallace, Byron C.},
  booktitle={ACL},
  year={2020},
  note={arXiv 1911.03429}
}
"""

RISE = """\
@inproceedings{petsiuk2018rise,
  title={{RISE}: Randomized Input Sampling for Explanation of Black-box Models},
  author={Petsiuk, Vitali and Das, Abir and Saenko, Kate},
  booktitle={BMVC},
  year={2018},
  note={arXiv 1806.07421}
}
"""

INFIDELITY = """\
@inproceedings{yeh2019infidelity,
  title={On the (In)fidelity and Sensitivity of Explanations},
  author={Yeh, Chih-Kuan and Hsieh, Cheng-Yu and Suggala, Arun Sai and Inouye, David I. and Ravikumar, Pradeep},
  booktitle={NeurIPS},
  year={2019},
  note={arXiv 1901.09392}
}
"""


class FaithfulnessMetric(evaluate.Metric, ABC):
    """A metric of single samples, and its mean over them. A subclass's docstring is its description.

    It stays abstract: of the classes in a module's file, `evaluate.load` takes the first that is not.
    """

    INPUTS: str
    CITATION: str
    FEATURES: dict[str, Any]
    """The columns that `compute` takes, in the order in which `measure` takes a sample's values."""

    @abstractmethod
    def measure(self, *sample: Any, **options: Any) -> Any:
        """The metric of one sample. `options` are those of `compute`."""

    def summarize(self, found: list[Any]) -> dict[str, float]:
        """The return value of `compute`, from the metric of each sample."""
        return {self.name: sum(found) / len(found)}

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)),
            citation=inspect.cleandoc(self.CITATION),
            inputs_description=inspect.cleandoc(self.INPUTS),
            features=datasets.Features(self.FEATURES),
        )

    def _compute(self, **given: Any) -> dict[str, float]:
        columns = [given.pop(name) for name in self.FEATURES]
        return self.summarize([self.measure(*sample, **given) for sample in zip(*columns, strict=True)])
