"""`atom-hf sample`: a grid of samples from a saved denoiser."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..errors import AtomError
from ..modeling.inference import default_device
from ..utils.bounds import COUNT, Bound
from ..utils.files import check_page
from .denoisers import load_pipeline
from .sampling import sample_images, write_grid

MOST_SEED = 2**32 - 1


@dataclass
class SampleArguments:
    """What to sample."""

    bounds: ClassVar[dict[str, Bound]] = {
        "n": COUNT,
        "steps": COUNT,
        "columns": COUNT,
        "batch_size": COUNT,
        "seed": Bound(0, MOST_SEED, whole=True),
        "label": Bound(0, 2**31, whole=True),
    }

    model: str | None = field(
        default=None,
        metadata={"help": "A folder that atom-hf train has saved, or of another DDPMPipeline of diffusers."},
    )
    n: int = field(default=64, metadata={"help": "Number of samples."})
    output: str | None = field(
        default=None, metadata={"help": "The PNG file to write; samples.png in the folder of the model if not given."}
    )
    label: int | None = field(
        default=None,
        metadata={"help": "The class of all samples, of a conditional model; by default each class in turn."},
    )
    steps: int = field(default=50, metadata={"help": "Steps of denoising."})
    seed: int = field(default=0, metadata={"help": "Seed: sample i is made from seed + i, whatever the batch size."})
    columns: int | None = field(default=None, metadata={"help": "Samples in a row; as many as rows if not given."})
    batch_size: int = field(default=64, metadata={"help": "Samples that are made at once."})


def sample(options: SampleArguments) -> Path:
    """Sample, and write the grid. Returns its path.

    Raises:
        AtomError: no such model, a class that it does not have, samples that are not finite numbers.
    """
    if options.model is None:
        raise AtomError("give --model: the folder of a trained denoiser")
    output = options.output or str(Path(options.model, "samples.png"))
    denoiser, scheduler = load_pipeline(options.model)
    check_page(output, "--output")
    classes, label = denoiser.config.num_class_embeds, options.label
    if label is not None and not classes:
        raise AtomError(f"--label {label}: {options.model!r} is not conditional on classes; leave it out")
    if label is not None and label >= classes:
        raise AtomError(f"--label {label}: {options.model!r} has {classes} classes, 0 to {classes - 1}")
    most = scheduler.config.num_train_timesteps
    if options.steps > most:
        raise AtomError(
            f"--steps {options.steps}: the scheduler of {options.model!r} has {most} steps; give at most as many"
        )
    labels = None
    if classes:
        labels = [number % classes if label is None else label for number in range(options.n)]
    images = sample_images(
        denoiser.to(default_device()),
        scheduler,
        options.n,
        steps=options.steps,
        seed=options.seed,
        labels=labels,
        batch_size=options.batch_size,
    )
    return write_grid(images, output, options.columns)
