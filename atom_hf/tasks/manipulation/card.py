"""The model card of a manipulator, from its configuration alone."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ...hub.card import CARD_NAME, MARK, hub_id, is_own
from ...hub.escape import cell, literal, plain, shown
from ...utils.files import write_atomically
from .config import ManipulatorConfig
from .equations import manipulation_task, text_task

TEMPLATE = Path(__file__).parent / "template.md"

PICTURE_NAME = "edits.png"

TAG = "attribute-manipulation"

MEASURES = {
    "success": "edits that the sparring copy reads as their class",
    "success_classifier": "edits that the given classifier reads as their class",
    "judge": "edits that a judge reads as their class",
    "judge_accuracy": "the judge's own accuracy on the rows",
    "gap": "gap: sparring copy minus judge",
    "identity": "identity: distance of a row whose own class is written to itself (RMS)",
    "undo": "undo: distance of an edit that is undone to its row (RMS)",
    "undo_after_noise": "undo, with noise added to the edit before (RMS)",
    "move": "move: distance of an edit to its row (RMS)",
    "energy": "energy distance of edits to rows of their class",
    "energy_of_data": "energy distance of other rows of the class to them",
    "kept": "words of a text that an edit keeps",
    "judge_half": "edits that keep half of the words or more and that the judge reads as their class",
    "words_identity": "words that stay when a text's own class is written",
    "words_undone": "words that are there when an edit is undone",
    "interpolation": "edits whose class becomes likelier with every strength",
}
"""What `evaluate_manipulator` gives, in words."""

LIMITS = (
    "An edit that a classifier reads as its class need not be one to a person: see the judge, which did not take part in "
    "training, and its own accuracy.",
    "What is kept besides the class is fixed by the equations only up to a one-to-one mapping of the rows of one class to "
    "those of another; nothing makes it what a person would keep.",
    "Inputs unlike the training rows are edited as badly as the classifier reads them.",
)


TEXT_LIMITS = (
    LIMITS[0],
    "An edit changes as many tokens as are hidden, and none besides: what says the class with other words stays.",
    "The gaps are filled all at once, so that words written side by side may not fit each other.",
    LIMITS[2],
)


def result_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured, in words and digits."""
    return [(words, f"{found[name]:.3f}") for name, words in MEASURES.items() if isinstance(found.get(name), float)]


def manipulator_card(config: Any, picture: str | None = None, source: str | None = None) -> ModelCard:
    """The card: metadata that the Hub accepts, and Markdown.

    Args:
        config: a `ManipulatorConfig` or `TextManipulatorConfig`.
        picture: the name of a picture beside the card.
        source: the Hub id from which its code loads the model.
    """
    is_text = config.model_type != ManipulatorConfig.model_type
    is_image = not is_text and config.kind.name == "pixels"
    found, labels, base = config.evaluation, config.labels, config.classifier_name
    model, to = literal(source or "path/to/this/folder"), literal(labels[-1])
    if is_image or is_text:
        call = (
            'edit("picture.png", to={})["image"].save("edited.png")' if is_image else 'edit("A text.", to={})["text"]'
        )
        code = (
            "import atom_hf\nfrom transformers import pipeline\n\n"
            f'edit = pipeline("{TAG}", model={model})\n{call.format(to)}'
        )
    else:
        code = (
            "from atom_hf.tasks import Manipulator\n\n"
            f"model = Manipulator.from_pretrained({model})\nedited = model.edit(vectors, to={to})"
        )
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-to-image" if is_image else None,
        tags=["atom-hf", "manipulator", TAG],
        base_model=base if base and "/" in base and hub_id(base) else None,
    )
    values = {
        "mark": MARK,
        "title": shown(f"{config.dataset or 'a'} manipulator"),
        "what": "texts" if is_text else "images" if is_image else "vectors",
        "classifier": shown(base) if base else "that it holds",
        "dataset": shown(config.dataset) if config.dataset else "",
        "picture": picture,
        "code": code,
        "tuned": _tuned(config, is_text),
        "is_text": is_text,
        "task": _task(config, is_text).rstrip().replace("`", "'"),
        "rows": [(words, cell(value)) for words, value in result_rows(found)],
        "evaluated": plain(found.get("rows", "")),
        "edits": plain(found.get("edits", "")),
        "limits": [
            f"Its classes are {cell(', '.join(labels[:20]))}, and no others.",
            *(TEXT_LIMITS if is_text else LIMITS),
        ],
    }
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **values)
    text = re.sub(r"\n{3,}", "\n\n", card.text)
    card.text = re.sub(r"\|\n\n(?=\|)", "|\n", text).rstrip("\n") + "\n"
    return card


def _tuned(config: Any, is_text: bool) -> str:
    """How the sparring copy was made; empty where it is the classifier itself."""
    if is_text:
        return f"fine-tuned on texts with {config.hidden_share:.0%} of the words hidden" if config.hidden_share else ""
    return (
        f"fine-tuned on rows with normal noise of standard deviation {config.noise_std:.3g}" if config.noise_std else ""
    )


def _task(config: Any, is_text: bool) -> str:
    if not config.weights:
        return ""
    if is_text:
        return str(text_task(int(config.classifier.get("vocab_size") or 1), config.num_labels, config.weights))
    return str(manipulation_task(config.kind, config.num_labels, config.weights))


def write_card(config: Any, folder: Any, source: str | None = None) -> None:
    """Write the card to a folder, unless somebody wrote one there."""
    if not is_own(folder):
        picture = PICTURE_NAME if Path(folder, PICTURE_NAME).is_file() else None
        write_atomically(Path(folder, CARD_NAME), manipulator_card(config, picture, source).save)
