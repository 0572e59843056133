"""Flags of `atom-hf fragments`."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..errors import AtomError
from ..finetune.arguments import as_in_train
from ..utils.bounds import COUNT, SEED, Bound
from .compare import ESTIMATORS
from .fusion import OBJECTIVES
from .hotspots import CLUSTERINGS, DISTANCES
from .kinds import KINDS, OF_LAYERS
from .options import SIZE, ChannelOptions

FEWEST = 30  # data points: with fewer, chance decides

TOKENS = 1000  # kept of all, if not given


def _flag(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class FragmentsArguments:
    """The models, the data, what is read of them, and what is found in it."""

    bounds: ClassVar[dict[str, Bound]] = {
        "sample_seed": SEED,
        "seed": SEED,
        "samples": COUNT,
        "points": COUNT,
        "batch_size": COUNT,
        "select": COUNT,
        "min_size": Bound(2, 2**31 - 1, whole=True),
    }

    models: list[str] = field(
        default_factory=list,
        metadata={"help": "The runs: folders, Hub ids or built-in models. Each is a run of one ensemble."},
    )
    dataset: str | None = as_in_train("dataset")
    channels: str | None = _flag(
        "What is read: "
        + "; ".join(f"{name} ({about})" for name, about in KINDS.items())
        + ". Of classifiers classes if not given, else space."
    )
    layer: str = _flag(
        "Layer of units, subspaces, space and heads: an index into the hidden states (0 is the embeddings, -1 the last "
        "layer), several separated by commas, or all.",
        "-1",
    )
    of: str = _flag("A data point is one of: samples (mean over tokens), tokens.", "samples")
    side: str = _flag("Of an encoder-decoder: encoder or decoder.", "encoder")
    noise: float | None = _flag("Standard deviation of the noise that makes values a channel, in their units.")
    bits: float | None = _flag("Set the noise of each channel so that it holds so many bits; 1 if nothing is given.")
    quantile: bool = _flag("Replace values by normal scores of their ranks first.", False)
    dropout: int | None = _flag("In place of noise: mean and variance over so many passes with dropout, 20 or more.")
    augment: int | None = _flag(
        "In place of noise: mean and variance over so many randomly changed samples (images shifted, words left out)."
    )
    size: int = _flag("Dimensions of a subspace.", SIZE)
    principal: bool = _flag("Subspaces of principal components, not of dimensions in their order.", False)
    temperature: float = _flag("Temperature of the classes' softmax.", 1.0)
    samples: int = _flag(
        "Samples to read, drawn from the evaluation split; from all rows where there is no such split.", 300
    )
    points: int | None = _flag(f"With --of tokens: keep so many tokens, drawn at random; {TOKENS} if not given.")
    estimator: str = _flag("One of " + ", ".join(ESTIMATORS) + ".", "auto")
    errors: bool = _flag("Standard errors, by a jackknife over points; takes five times as long.", False)
    distance: str = _flag("Distance of channels in hotspots: " + " or ".join(DISTANCES) + ".", "nmi")
    cluster: str = _flag("Clustering of hotspots: " + " or ".join(CLUSTERINGS) + " (the paper's).", "hdbscan")
    min_size: int | None = _flag("Smallest hotspot; half the runs, at least 3, if not given.")
    regularization: str | None = _flag(
        "A number in each run's configuration, such as beta, by which hotspots are counted."
    )
    fuse: str | None = _flag("Fuse the informative channels into one by: " + ", ".join(OBJECTIVES) + ".")
    fuse_bits: float | None = _flag("Information of the fusion by information or nmi; the best channel's if not given.")
    select: int | None = _flag("With --channels classes: select so many runs for an ensemble, without labels.")
    task: str | None = as_in_train("task")
    dataset_config: str | None = as_in_train("dataset_config")
    eval_dataset: str | None = as_in_train("eval_dataset")
    train_split: str | None = as_in_train("train_split")
    eval_split: str | None = _flag("The split to read; validation or test if there is one, else all rows are read.")
    hold_out: bool = _flag("Read the rows that atom-hf train --hold_out holds out, alone.", False)
    eval_fraction: float = _flag("The fraction of rows that it holds out.", 0.2)
    text_column: str | None = as_in_train("text_column")
    text_pair_column: str | None = as_in_train("text_pair_column")
    image_column: str | None = as_in_train("image_column")
    label_column: str | None = as_in_train("label_column")
    sample_seed: int = as_in_train("sample_seed")
    max_length: int = as_in_train("max_length")
    batch_size: int = _flag("Samples a forward pass.", 32)
    seed: int = _flag("Seed of the samples, the passes, the permutations and the fusion.", 0)
    output_dir: str | None = _flag("Folder of the tables, pictures and page; runs/<data>-fragments by default.")

    def layers(self) -> int | list[int] | str:
        """`--layer` as `read_channels` takes it. Raises `AtomError`."""
        if self.layer == "all":
            return "all"
        try:
            layers = [int(part) for part in self.layer.split(",")]
        except ValueError as error:
            raise AtomError(f"--layer must be whole numbers separated by commas, or all; got {self.layer!r}") from error
        return layers if len(layers) > 1 else layers[0]

    def options(self, kind: str) -> ChannelOptions:
        """The options of how channels of a kind are read, checked. Raises `AtomError`, naming the flag."""
        names = {one.name for one in fields(ChannelOptions)} - {"kind"}
        options = ChannelOptions(kind, **{name: getattr(self, name) for name in names})
        options.check("--", "channels")
        return options

    def check(self) -> None:
        """Raise `AtomError` for what is wrong before anything is loaded."""
        if not self.models:
            raise AtomError("give --models: one or more folders or Hub ids of models")
        if len(set(self.models)) < len(self.models):
            twice = next(name for name in self.models if self.models.count(name) > 1)
            raise AtomError(f"--models {twice!r} is given {self.models.count(twice)} times; give each run once")
        for name, known in (
            ("channels", tuple(KINDS)),
            ("estimator", ESTIMATORS),
            ("distance", DISTANCES),
            ("cluster", CLUSTERINGS),
            ("fuse", OBJECTIVES),
            ("side", ("encoder", "decoder")),
        ):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise AtomError(f"--{name} must be one of {', '.join(known)}; got {value!r}")
        self.options(self.channels or "space")
        layers = self.layers()
        if self.channels is not None and self.channels not in OF_LAYERS and layers != -1:
            raise AtomError(f"--layer is for {', '.join(OF_LAYERS)}; leave it out for --channels {self.channels}")
        if self.samples < FEWEST:
            raise AtomError(f"--samples must be at least {FEWEST}, got {self.samples}: with fewer, chance decides")
        if self.points is not None and self.of != "tokens":
            raise AtomError("--points counts tokens; give --of tokens, or --samples")
        if self.points is not None and self.points < FEWEST:
            raise AtomError(f"--points must be at least {FEWEST}, got {self.points}: with fewer, chance decides")
        if self.fuse_bits is not None and self.fuse in (None, "vi"):
            raise AtomError("--fuse_bits is for --fuse information or nmi; vi bounds itself")
        if self.select is not None and self.channels not in (None, "classes"):
            raise AtomError(f"--select is for --channels classes, got {self.channels}")
        if self.select is not None and self.select > len(self.models):
            raise AtomError(f"--select {self.select}: there are {len(self.models)} runs; give as many at most")
