"""The rows and the classifier of a manipulator, from flags."""

from dataclasses import dataclass
from typing import Any

import datasets
import torch

from ...data.load import TaskData, load_data
from ...data.pictures import Picture, picture_mode
from ...errors import AtomError
from ...finetune.arguments import DATA_FIELDS
from ...finetune.pretrained import find_model, read_config
from ..data_sources import read_pictures
from ..kinds import Kind
from ..saved_boxes import is_saved_box, saved_learner
from .arguments import ManipulateOptions
from .classifier import Classifier, load_classifier
from .features import Body
from .judge import check_judge_rows
from .put import PUTS
from .rows import LabelledRows

LONGEST = 64  # side of images, if not given: an editor of larger ones takes long to train


@dataclass(frozen=True)
class ManipulatorInputs:
    """What a manipulator is made and judged of."""

    name: str
    """Of the data."""
    classifier: Classifier
    labels: list[str]
    train: LabelledRows
    judge: LabelledRows
    """A part of the evaluation rows: the judge learns from them, and the noise of the sparring copy is chosen on them."""
    test: LabelledRows
    """The others, which are edited."""
    texts: list[str] | None
    """Of the test rows, where these are texts."""


def load_inputs(options: ManipulateOptions) -> ManipulatorInputs:
    """The rows and the classifier that flags name. Raises `AtomError`."""
    data = load_data(options.dataset, **{name: getattr(options, name) for name in DATA_FIELDS})
    if data.labels is None:
        raise AtomError(
            f"--dataset {options.dataset!r} has no labels, and an editor writes classes; give --label_column"
        )
    if len(data.labels) < 2:
        raise AtomError(f"--dataset {options.dataset!r} has one class, and there is nothing to turn it into")
    put = options.put or ("steer" if data.is_image else "residual")
    if PUTS[put] == "pixels" and not data.is_image:
        raise AtomError("--put steer does not edit texts; give --put residual")
    if put == "residual":
        body = Body(options.classifier, data.labels, data.is_image, options.classifier_revision, options.max_length)
        train, held = body.read(data.train), body.read(data.eval)
        classifier = body.classifier()
    else:
        kind = image_kind(options, data)
        classifier = load_classifier(options.classifier, kind, data.labels, options.classifier_revision)
        train, held = (_image_rows(rows, kind, options.dataset) for rows in (data.train, data.eval))
    # The ids of the classes are those of the classifier.
    order = torch.tensor([classifier.labels.index(label) for label in data.labels])
    train, held = (LabelledRows(rows.values, order[rows.labels]) for rows in (train, held))
    parts = held.split(options.judge_fraction, options.sample_seed)
    judge, test = map(held.take, parts)
    check_judge_rows(judge, classifier.labels)
    if not len(test):
        raise AtomError("no evaluation rows are left to edit; give a smaller --judge_fraction, or more rows")
    texts = None
    if not data.is_image:
        every = data.eval["text"]
        texts = [every[index] for index in parts[1].tolist()]
    return ManipulatorInputs(data.name, classifier, classifier.labels, train, judge, test, texts)


def image_kind(options: ManipulateOptions, data: TaskData) -> Kind:
    """The pixels that an editor of images takes: those of the task that its classifier learned, else as many channels as the
    classifier takes and the sides of the first picture, at most `--image_size`."""
    if is_saved_box(options.classifier):
        return saved_learner(options.classifier).inputs[0].kind
    try:
        config = read_config(find_model(options.classifier), {"revision": options.classifier_revision})
    except AtomError as error:
        raise AtomError(str(error).replace("--model", "--classifier", 1)) from error
    width, height = data.train.cast_column("image", Picture())[0]["image"].size
    most = options.image_size or min(LONGEST, max(width, height))
    scale = most / max(width, height)
    channels = 1 if picture_mode(config) == "L" else 3
    return Kind("pixels", (channels, max(4, round(height * scale)), max(4, round(width * scale))))


def _image_rows(rows: datasets.Dataset, kind: Kind, name: str) -> LabelledRows:
    pixels: Any = read_pictures(kind, rows.cast_column("image", Picture()), "image", f"--dataset {name!r}")
    return LabelledRows(pixels, torch.tensor(rows["label"]))
