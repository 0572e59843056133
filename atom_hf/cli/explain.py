"""`atom-hf explain`: show texts or images under their token importance."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..atoms.explainer_sizes import explainer_quality
from ..builtin import BUILT_IN_MODELS
from ..data.given import STANDARD_INPUT, Given, is_piped, open_picture, read_given
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_run_data, method_flag, target_flag
from ..finetune.pretrained import load_processor
from ..finetune.trained import load_trained
from ..importance.read import read_images, read_rows, read_texts
from ..importance.results import ImageImportance, TextImportance
from ..importance.scoring import check_target
from ..modeling.inference import default_device
from ..modeling.load import load_atom_model
from ..utils.files import check_page
from ..utils.terminal import write_styled
from ..visualization.files import write_files

PER_PAGE = 200

PRINTED = 24
"""How many samples of several pages are printed."""


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
    samples: str = field(
        default="24",
        metadata={
            "help": "Number of samples to show: drawn from the evaluation samples of --dataset, or the first of --file; 'all' "
            f"for all of them. More than {PER_PAGE} go on several pages."
        },
    )
    target: str | None = target_flag()
    method: str = method_flag()
    verify: bool = field(
        default=False,
        metadata={
            "help": "Mask the words or patches with the largest importance of each sample, and show what really happened: ten "
            "forward passes more a sample."
        },
    )
    page: str = field(
        default="importance.html", metadata={"help": "Path of the HTML page; PNGs are written beside it."}
    )


class Explained(NamedTuple):
    """The importance of the samples, and the files that show it."""

    pages: list[Path]
    pictures: list[Path]
    """The samples of the first page, and the map of their atoms if there are two or more."""
    texts: list[TextImportance]
    """Of the first page, as `images`."""
    images: list[ImageImportance]
    count: int
    left_out: int
    fitted: bool
    """Whether their importance is fitted to the prediction; else it is the charge."""


def explain_model(run: RunArguments, options: ExplainArguments) -> Explained:
    """Scores samples by a trained model's token importance, and writes pages and PNGs.

    Raises:
        AtomError: no model, no samples or several kinds of them, files that cannot be read, a model without heads; before
            anything is loaded, where that can be.
    """
    if run.model is None:
        raise AtomError("give --model: a folder or Hub id of a model that was trained with --atom")
    most = _most(options.samples)
    sources = [bool(run.dataset), bool(options.text), bool(options.file)]
    if sum(sources) > 1:
        raise AtomError("give --dataset or --text or --file, one of them")
    check_page(options.page)
    if run.model in BUILT_IN_MODELS:
        raise AtomError(f"--model {run.model!r} has no heads yet: train it with --atom, and give the folder it went to")
    given = Given()
    if not run.dataset:
        texts = options.text or ([STANDARD_INPUT] if not options.file and is_piped() else [])
        if not (texts or options.file):
            raise AtomError("give --dataset or --text or --file, or texts through a pipe")
        given = read_given(texts, options.file, most)
    if options.method == "masking":
        model = load_trained(run.model, run.model_revision)
    else:
        model = load_atom_model(run.model, revision=run.model_revision).to(default_device())
    check_target(options.target, model, options.method)
    read, count, left_out = _reader(run, options, model, given, most)
    fitted = options.method == "masking" or model.atom_config.has_explainer
    what = "each prediction" if options.target is None else repr(options.target)
    title = f"What {what} of {run.model} leans on" if fitted else f"Token importance: {run.model}"
    titles = {"title": title, "fitted": fitted}
    titles["quality"] = "" if options.method == "masking" else explainer_quality(model.atom_config)
    titles["softening"] = model.atom_config.softening if hasattr(model, "atom_config") else 0.0
    places = [_page(options.page, number) for number in range(1, max(1, math.ceil(count / PER_PAGE)) + 1)]
    first: dict[str, list] = {}
    written: list[Path] = []
    for number, place in enumerate(places):
        start = number * PER_PAGE
        shown = read(start, min(start + PER_PAGE, count))
        found = write_files(place, pages=places, start=start, pictured=number == 0, **titles, **shown)
        first, written = first or shown, written or found[1:]
    return Explained(places, written, first.get("texts", []), first.get("images", []), count, left_out, fitted)


def _most(samples: str) -> int | None:
    """The number of samples to show, None for all. Raises `AtomError`."""
    if samples == "all":
        return None
    if not samples.isdecimal() or int(samples) < 1:
        raise AtomError(f"--samples must be at least 1, or all; got {samples}")
    return int(samples)


def _page(page: str, number: int) -> Path:
    """The path of one of several pages, counted from 1."""
    path = Path(page)
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _reader(
    run: RunArguments, options: ExplainArguments, model: Any, given: Given, most: int | None
) -> tuple[Callable[[int, int], dict[str, list]], int, int]:
    """What reads the samples from one number to before another; how many there are to read; how many are left out."""

    def processor(is_image: bool) -> Any:
        return load_processor(run.model, is_image, revision=run.model_revision)

    how = {"target": options.target, "method": options.method, "verified": options.verify}
    if run.dataset:
        data = load_run_data(run)
        count = len(data.eval) if most is None else min(most, len(data.eval))
        rows, loaded = data.eval.shuffle(seed=0), processor(data.is_image)

        def of_dataset(start: int, stop: int) -> dict[str, list]:
            return read_rows(model, loaded, data, rows.select(range(start, stop)), **how)

        return of_dataset, count, len(data.eval) - count
    loaded = processor(bool(given.pictures))

    def of_files(start: int, stop: int) -> dict[str, list]:
        if not given.pictures:
            return {"texts": read_texts(model, loaded, given.texts[start:stop], **how)}
        paths = given.pictures[start:stop]
        images = [open_picture(path) for path in paths]
        return {"images": read_images(model, loaded, images, names=[path.name for path in paths], **how)}

    return of_files, len(given.pictures or given.texts), given.left_out


def main(arguments: list[str]) -> None:
    """`atom-hf explain`."""
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import parse_flags
    from ..visualization.terminal import show_importance

    texts: list[str] = []
    run, options = parse_flags("explain", arguments, [RunArguments, ExplainArguments], texts)
    options.text = [*texts, *options.text]
    found = explain_model(run, options)
    several = len(found.pages) > 1
    images, texts = (part[:PRINTED] if several else part for part in (found.images, found.texts))
    write_styled(show_importance(images, texts, fitted=found.fitted))
    if several:
        print(f"\n... and {found.count - PRINTED:,} more on the pages")
    kind = "text" if found.texts else "image"
    rest = f" of {found.count + found.left_out}; --samples all shows all" if found.left_out else ""
    print(f"\nread      {found.count} {kind}{'s' if found.count != 1 else ''}{rest}")
    print(f"page      {found.pages[0]}{f' to {found.pages[-1]}' if several else ''}")
    for picture in found.pictures:
        print(f"picture   {picture}")
