"""`atom-hf explain`: show texts or images under their token importance."""

import contextlib
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from ..builtin import BUILT_IN_MODELS
from ..data.sources import DATA_FILES, IMAGE_FILES
from ..errors import AtomError, first_line
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.pretrained import load_processor
from ..importance.read import read_images, read_samples, read_texts
from ..importance.results import ImageImportance, TextImportance
from ..modeling.inference import default_device
from ..modeling.load import load_atom_model
from ..utils.files import check_page
from ..utils.pictures import eight_bit
from ..utils.terminal import write_styled
from ..visualization.files import write_files

STANDARD_INPUT = "-"


@dataclass
class ExplainArguments:
    """The samples to show, and the file of the page."""

    text: list[str] = field(
        default_factory=list,
        metadata={"help": "Texts to show; the flag itself may be left out. - is standard input, one text per line."},
    )
    file: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files to show: texts (one per line), images, or folders of images. For data with labels give --dataset."
        },
    )
    samples: int = field(
        default=24,
        metadata={
            "help": "Number of samples to show: drawn from the evaluation samples of --dataset, or the first of --file."
        },
    )
    page: str = field(
        default="importance.html", metadata={"help": "Path of the HTML page; PNGs are written beside it."}
    )


@dataclass
class Given:
    """The texts or images from the command line, before a model is loaded."""

    texts: list[str] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """The file of each image."""
    left_out: int = 0
    """The number of samples beyond --samples."""


class Explained(NamedTuple):
    """The importance of the samples, and the files that show it."""

    page: Path
    pictures: list[Path]
    """The samples, and the map of their atoms if there are two or more."""
    texts: list[TextImportance]
    images: list[ImageImportance]
    left_out: int
    fitted: bool
    """Whether their importance is fitted to the prediction; else it is the charge."""


def explain_model(run: RunArguments, options: ExplainArguments) -> Explained:
    """Scores samples by a trained model's token importance, and writes a page and PNGs.

    Raises:
        AtomError: no model, no samples or several kinds of them, files that cannot be read, a model without heads; before
            anything is loaded, where that can be.
    """
    if run.model is None:
        raise AtomError("give --model: a folder or Hub id of a model that was trained with --atom")
    if options.samples < 1:
        raise AtomError(f"--samples must be at least 1, got {options.samples}")
    sources = [bool(run.dataset), bool(options.text), bool(options.file)]
    if sum(sources) > 1:
        raise AtomError("give --dataset or --text or --file, one of them")
    check_page(options.page)
    if run.model in BUILT_IN_MODELS:
        raise AtomError(f"--model {run.model!r} has no heads yet: train it with --atom, and give the folder it went to")
    given = Given()
    if not run.dataset:
        texts = options.text or ([STANDARD_INPUT] if not options.file and _is_piped() else [])
        if not (texts or options.file):
            raise AtomError("give --dataset or --text or --file, or texts through a pipe")
        given = read_given(texts, options.file, options.samples)
    model = load_atom_model(run.model, revision=run.model_revision)
    model.to(default_device())

    def processor(is_image: bool) -> Any:
        return load_processor(run.model, is_image, revision=run.model_revision)

    left_out = given.left_out
    if run.dataset:
        data = load_run_data(run)
        shown = read_samples(model, processor(data.is_image), data, options.samples)
        left_out = len(data.eval) - min(options.samples, len(data.eval))
    elif given.images:
        shown = {"images": read_images(model, processor(True), given.images, names=given.names)}
    else:
        shown = {"texts": read_texts(model, processor(False), given.texts)}
    config = model.atom_config
    title = f"Token importance: {run.model}"
    page, *pictures = write_files(
        options.page, title=title, softening=config.softening, fitted=config.has_explainer, **shown
    )
    return Explained(page, pictures, shown.get("texts", []), shown.get("images", []), left_out, config.has_explainer)


def read_given(texts: list[str], files: list[str], samples: int) -> Given:
    """The texts or images that the command line names. Of files and standard input the first `samples`. Raises `AtomError`."""
    given, listed = Given(), []
    for text in texts:
        if text != STANDARD_INPUT:
            given.texts.append(text)
            continue
        with contextlib.suppress(AttributeError, ValueError):  # UTF-8 as in files, whatever the locale says
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        lines = _lines(sys.stdin, "standard input")
        given.texts += lines[:samples]
        given.left_out += max(0, len(lines) - samples)
    if any(not text.strip() for text in given.texts):
        raise AtomError("--text: an empty text has no words; give one with some")
    pictures: list[Path] = []
    for file in files:
        path, where = Path(file).expanduser(), f"--file {file!r}"
        if path.is_dir():
            found = sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_FILES and child.is_file())
            if not found:
                raise AtomError(
                    f"{where}: no images in this folder (their names end in {', '.join(IMAGE_FILES)}); "
                    "a folder of folders of images is a --dataset"
                )
            pictures += found
        elif not path.is_file():
            raise AtomError(f"{where}: there is no such file or folder")
        elif path.suffix.lower() in IMAGE_FILES:
            pictures.append(path)
        elif path.suffix.lower() in DATA_FILES:
            raise AtomError(f"{where} has columns: give it as --dataset")
        else:
            try:
                with path.open(encoding="utf-8") as opened:
                    listed += _lines(opened, where)
            except OSError as error:
                raise AtomError(f"{where} cannot be read: {first_line(error)}") from error
    if pictures and listed:
        raise AtomError("--file: texts and images were given; give either")
    given.texts += listed[:samples]
    given.images = [_open(path) for path in pictures[:samples]]
    given.names = [path.name for path in pictures[:samples]]
    given.left_out += max(0, len(pictures) + len(listed) - samples) if files else 0
    return given


def _is_piped() -> bool:
    """Whether standard input is a pipe or file: not a terminal, and not absent."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _lines(stream: Any, where: str) -> list[str]:
    """The lines of a file that are not empty. Raises `AtomError`."""
    try:
        lines = [line.rstrip("\r\n") for line in stream if line.strip()]
    except UnicodeDecodeError as error:
        raise AtomError(f"{where} is not UTF-8 text ({first_line(error)})") from error
    if not lines:
        raise AtomError(f"{where} is empty; give one text per line")
    return lines


def _open(path: Path) -> Image.Image:
    """A picture, the right way up. Raises `AtomError`."""
    try:
        with Image.open(path) as opened:
            opened.load()
            return eight_bit(ImageOps.exif_transpose(opened))
    except Exception as error:  # a broken file raises many kinds of errors
        raise AtomError(f"--file {str(path)!r} is not a readable image: {first_line(error)}") from error


def main(arguments: list[str]) -> None:
    """`atom-hf explain`."""
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import parse_flags
    from ..visualization.terminal import show_importance

    texts: list[str] = []
    run, options = parse_flags("explain", arguments, [RunArguments, ExplainArguments], texts)
    options.text = [*texts, *options.text]
    found = explain_model(run, options)
    shown = show_importance(found.images, found.texts, fitted=found.fitted)
    write_styled(shown)
    count = len(found.texts) + len(found.images)
    rest = f" of {count + found.left_out}; --samples shows more" if found.left_out else ""
    print(f"\nread      {count} {'text' if found.texts else 'image'}{'s' if count != 1 else ''}{rest}")
    print(f"page      {found.page}")
    for picture in found.pictures:
        print(f"picture   {picture}")
