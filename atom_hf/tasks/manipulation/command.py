"""`atom-hf manipulate`: make an editor of a classifier, judge it, and write its folder; or edit an input with one."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ...errors import AtomError, first_line
from ...finetune.checks import check_reporters, check_schedule
from ...utils.files import check_output_folder, check_page, write_atomically
from ...utils.lock import lock_folder
from ...utils.pictures import in_mode
from ...visualization.edits_picture import Cell, edits_sheet, picture_of
from ...visualization.pictures import save
from ..command import DEFAULT_FOLDER, DRAWING_NAME, METRICS_NAME
from ..drawing import draw_task
from .agreement import edit_agreement
from .arguments import ManipulateOptions, ManipulatorArguments
from .baselines import at_equal_judge, mean_difference_editor, vae_editors
from .equations import manipulation_task
from .evaluation import edit_all, editor_of, evaluate_manipulator, measure, probabilities, read_rows
from .inputs import ManipulatorInputs, load_inputs
from .judge import make_judge
from .loading import load_manipulator
from .manipulator import Manipulator
from .put import FILL
from .report import write_report
from .texts.command import TextInputs, edit_text_input, make_text_manipulator
from .texts.manipulator import TextManipulator
from .train import forget_sparring, manipulate

TASK_NAME = "manipulation.task"

EDITED_NAME = "edited.png"


@dataclass(frozen=True)
class Made:
    """A manipulator that was made."""

    manipulator: Manipulator | TextManipulator
    metrics: dict[str, Any]
    folder: Path
    written: list[Path]


def make_manipulator(options: ManipulateOptions, args: ManipulatorArguments) -> Made:
    """Load, train, judge and save, as flags say. Raises `AtomError`, whatever is wrong, before training starts."""
    of_texts = options.put == FILL
    inputs = TextInputs(options) if of_texts else load_inputs(options)
    if args.output_dir == DEFAULT_FOLDER:
        args.output_dir = os.path.join("runs", f"{inputs.name}-manipulator")
    args = args.with_rate("tokens" if of_texts else inputs.train.kind.name)
    check_output_folder(args.output_dir)
    check_reporters(args)
    check_schedule(args)
    folder = Path(args.output_dir)
    with lock_folder(folder):
        if of_texts:
            names = {"task": TASK_NAME, "drawing": DRAWING_NAME, "metrics": METRICS_NAME}
            manipulator, found, written = make_text_manipulator(inputs, options, args, names)
            return Made(manipulator, found, folder, written)
        manipulator = manipulate(
            inputs.classifier,
            inputs.train,
            inputs.judge,
            labels=inputs.labels,
            put=options.put or ("steer" if inputs.train.kind.name == "pixels" else "residual"),
            hidden_sizes=options.hidden_sizes or None,
            weights=options.weights or None,
            sigma=options.sigma,
            dataset=inputs.name,
            args=args,
        )
        found = judge_all(manipulator, inputs, options, args)
        manipulator.config.evaluation = {
            name: value for name, value in found.items() if isinstance(value, float | int | str)
        }
        written = write_report(folder, manipulator, inputs.test, found, options.samples, inputs.texts)
        spec = manipulation_task(manipulator.config.kind, len(inputs.labels), manipulator.config.weights)
        write_atomically(folder / TASK_NAME, str(spec))
        write_atomically(folder / DRAWING_NAME, draw_task(spec))
        write_atomically(folder / METRICS_NAME, json.dumps(found, indent=1) + "\n")
        manipulator.save_pretrained(folder)
        forget_sparring(folder)
    return Made(manipulator, found, folder, written)


def judge_all(
    manipulator: Manipulator, inputs: ManipulatorInputs, options: ManipulateOptions, args: ManipulatorArguments
) -> dict[str, Any]:
    """What `evaluate_manipulator` measures, with what it is compared with and, of images, what is important."""
    config = manipulator.config
    classifier = inputs.classifier.module.to(args.device).eval()
    found = evaluate_manipulator(
        manipulator,
        inputs.test,
        inputs.judge,
        judge=options.judge,
        classifier=classifier,
        most=options.edit_rows,
        args=args,
        seed=args.seed,
    )
    rows = inputs.test.draw(options.edit_rows, args.seed)
    own = read_rows(manipulator, rows)
    compared: dict[str, Any] = {}
    if config.kind.name == "pixels":
        edits = edit_all(editor_of(manipulator), rows, own, config.num_labels)
        found["agreement"] = edit_agreement(classifier, rows, edits, inputs.train, options.classifier)
    else:
        compared["mean difference"] = mean_difference_editor(inputs.train, config.num_labels)
    by_beta = {}
    if options.compare and config.kind.name == "pixels":
        for beta, (editor, parameters) in vae_editors(manipulator, inputs.train, args).items():
            compared[f"conditional VAE, beta {beta:.3g}"] = editor
            by_beta[beta] = f"conditional VAE, beta {beta:.3g}"
            found["vae_parameters"] = parameters
    if compared:
        judge = make_judge(found["judge_name"], inputs.judge, config.labels, args)
        found["compared"] = {}
        for name, editor in compared.items():
            edits = edit_all(editor, rows, own, config.num_labels)
            one = measure(editor, rows, own, edits, judge, inputs.judge, args.seed)
            found["compared"][name] = {key: value for key, value in one.items() if isinstance(value, float)}
        equal = at_equal_judge({beta: found["compared"][name] for beta, name in by_beta.items()}, found["judge"])
        if equal is not None:
            found["compared"]["conditional VAE, at equal judge"] = equal
    found["parameters"] = sum(parameter.numel() for parameter in manipulator.put.parameters())
    return found


def read_picture(file: str, manipulator: Manipulator) -> torch.Tensor:
    """A picture [1, c, h, w] as the manipulator takes it: in its mode, and resized to its sides. Raises `AtomError`."""
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except Exception as error:  # a broken file raises many kinds of errors
        raise AtomError(f"--edit {file!r} is not a readable picture: {first_line(error)}") from error
    return as_pixels(picture, manipulator)


def as_pixels(picture: Image.Image, manipulator: Manipulator) -> torch.Tensor:
    """Pixels [1, c, h, w] from 0 to 1 of a picture, as the manipulator takes them."""
    channels, height, width = manipulator.config.data_sizes
    shown = in_mode(picture, "L" if channels == 1 else "RGB")
    if shown.size != (width, height):
        shown = shown.resize((width, height))
    pixels = torch.as_tensor(np.asarray(shown, dtype=np.float32) / 255)
    return pixels[None, None] if channels == 1 else pixels.permute(2, 0, 1)[None]


def edit_input(options: ManipulateOptions, folder: str) -> tuple[list[tuple[Any, ...]], str, Path]:
    """Edit a picture, vectors or a text with a manipulator that was made.

    Returns:
        (strength, probability of the class) of each strength, the mean over vectors or texts, and of texts the first edited
        one; the class that was read before; the file that holds the edits: a picture of them in a row, an .npy of vectors
        [strengths, N, d], or a text file.

    Raises:
        AtomError: no manipulator, an input that cannot be read, an unknown class.
    """
    manipulator = load_manipulator(options.model)
    to, strengths, labels = manipulator.class_id(options.to), options.strengths(), manipulator.config.labels
    if isinstance(manipulator, TextManipulator):
        return edit_text_input(manipulator, options.edit, to, strengths, folder)
    is_image = manipulator.config.kind.name == "pixels"
    values = read_picture(options.edit, manipulator) if is_image else read_vectors(options.edit)
    own = manipulator.classify(values).argmax(1)
    target = torch.full((len(values),), to)
    edits = [manipulator.edit(values, to, strength, own=own).cpu() for strength in strengths]
    sure = [float(probabilities(manipulator, edited, target).mean()) for edited in edits]
    before = ", ".join(dict.fromkeys(labels[number] for number in own.tolist()))
    found = list(zip(strengths, sure, strict=True))
    if not is_image:
        file = Path(folder, "edited.npy")
        write_atomically(file, lambda part: _save_array(part, torch.stack(edits).numpy()))
        return found, before, file
    file = Path(folder, EDITED_NAME)
    check_page(str(file), "--output_dir")
    cells = [Cell(picture_of(values[0].numpy()), before)]
    cells += [
        Cell(picture_of(edited[0].numpy()), f"P({labels[to]}) {p:.2f}")
        for edited, (_, p) in zip(edits, found, strict=True)
    ]
    heads = ["original", *(f"{strength:.3g}" for strength in strengths)]
    return found, before, save(file, edits_sheet(heads, [cells], side=160))


def read_vectors(file: str) -> torch.Tensor:
    """Vectors [N, d] from an .npy file. Raises `AtomError`."""
    try:
        values = np.load(file, allow_pickle=False)
        return torch.as_tensor(np.atleast_2d(values).astype(np.float32))
    except (OSError, ValueError, TypeError) as error:
        raise AtomError(f"--edit {file!r} is no .npy file of vectors [N, d]: {first_line(error)}") from error


def _save_array(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)
