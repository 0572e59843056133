"""The run that a comparison shows: its samples for the page, and its model, where it is kept, to try and to share."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..atoms.explainer_sizes import explainer_quality
from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.run import RunResult
from ..finetune.saving import save_card, save_trained, why_unsaved
from ..hub.card import CardFacts, Comparison, is_own, write_card
from ..hub.card_facts import facts_of_trainer
from ..importance.read import read_samples
from ..utils.pictures import eight_bit
from ..visualization.pictures import png, save

MODEL_FOLDER, PICTURE_NAME = "model", "sample.png"  # within the folder of the comparison

LONGEST_SAMPLE = 100  # letters of a text to try the model on, which stands on a command line


@dataclass(frozen=True)
class KeptModel:
    """A trained model in a folder, and a sample of its evaluation data to try it on."""

    folder: Path
    facts: CardFacts
    """What its card says."""
    text: str | None = None
    """A short evaluation text, if the model reads single texts and there is one."""
    picture: Path | None = None
    """A file with an evaluation picture, if the model reads pictures."""


def page_samples(result: RunResult, samples: int) -> dict[str, Any]:
    """What the page shows of a run: evaluation samples with their importance."""
    model = result.trainer.accelerator.unwrap_model(result.trainer.model)
    shown = read_samples(model, result.trainer.processing_class, result.data, samples)
    config = model.atom_config
    legend = {"fitted": config.has_explainer, "quality": explainer_quality(config)}
    return {**shown, "softening": config.softening, **legend}


def keep_model(result: RunResult, folder: Path, name: str, card_samples: int) -> KeptModel:
    """Saves the model of a run under `folder`, with its card, and beside it a sample to try it on.

    Args:
        result: a run with the atom loss.
        folder: that of the comparison.
        name: of the model, in its card and on the Hub.
        card_samples: number of evaluation rows that its card shows.

    Raises:
        AtomError: it could not be saved.
    """
    trainer, target = result.trainer, folder / MODEL_FOLDER
    trainer.args.output_dir = str(target)
    trainer.card_facts["name"] = name
    save_trained(trainer)
    save_card(trainer, result.data, card_samples)
    if (why := why_unsaved(trainer)) is not None:
        raise AtomError(why)
    text, picture = _short_text(result.data), None
    if result.data.is_image:
        picture = save(folder / PICTURE_NAME, png(eight_bit(result.data.eval[0]["image"])))
    return KeptModel(target, facts_of_trainer(trainer), text, picture)


def write_kept_card(kept: KeptModel, comparison: Comparison | None) -> None:
    """Writes the card of a kept model anew, with the comparison that it is a run of, if that is of the atom loss alone."""
    if comparison is not None and not is_own(kept.folder):
        write_card(replace(kept.facts, comparison=comparison, is_compared=True), kept.folder)


def _short_text(data: TaskData) -> str | None:
    """The first evaluation text that is one word of a command line; None for pictures and pairs."""
    if data.is_image or "text_pair" in data.eval.column_names:
        return None
    texts = data.eval.select(range(min(100, len(data.eval))))["text"]
    fit = (text for text in texts if text.isprintable() and " " in text and len(text) <= LONGEST_SAMPLE)
    return next((text for text in fit if not text.startswith("-")), None)
