"""Update an existing model card on save or push."""

from pathlib import Path

from huggingface_hub import ModelCard

from ..errors import AtomError
from .card import CARD_NAME, EARLIER, is_generated, is_own
from .card_snippets import load_from
from .escape import code

SAVED_AGAIN = (
    "The model was loaded and saved again without a run that this card knows of: if its weights were changed then, what is "
    "told here is of those before."
)

_RUN = "\n## Training\n"  # only in the card of a run

_READING, _LIMITS = "\n## Reading importances\n\n", "\n## Limits\n\n"


def card_to_push(folder: str | Path, repo_id: str, there: str | None, revision: str | None = None) -> str | None:
    """The text of the card to push with a folder; None if the repository keeps the card that it has.

    A card that somebody wrote is pushed unchanged. A generated card gets the name of its repository, and never replaces a
    card `there` that somebody wrote. If a model is pushed back to where it was loaded from without a new run, the card of the
    run that is `there` stays, with a note.

    Raises:
        AtomError: the card is not UTF-8 text.
    """
    file = Path(folder, CARD_NAME)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise AtomError(f"{file} is not UTF-8 text, as a model card must be: fix or remove it") from error
    if not is_generated(text):
        return text
    if there is not None and not is_generated(there):
        return None
    if there is not None and _RUN not in text and _RUN in there and _base_in(text) == repo_id:
        text = saved_again(there, text)
    return _not_its_own_base(load_from(text, repo_id, revision), repo_id)


def saved_again(text: str, new: str) -> str:
    """Add a note to a generated card whose model was loaded and saved again without a new run.

    The section on importances is taken from the `new` card of the model alone if it differs: an explainer may have been
    fitted in between.
    """
    known, now = (part.split(_READING, 1)[-1].split(_LIMITS, 1)[0] for part in (text, new))
    # In the card of a run, the section begins with the run's numbers.
    if _READING in text and not known.endswith(now):
        text = text.replace(_READING + known, _READING + now, 1)
    return text if SAVED_AGAIN in text else text.replace(_LIMITS, f"{_LIMITS}- {SAVED_AGAIN}\n", 1)


def keeps_card(folder: str | Path) -> bool:
    """Whether the card in a folder is that of a run, about which a model that was loaded from there knows less."""
    file = Path(folder, CARD_NAME)
    return not is_own(folder) and file.is_file() and _RUN in file.read_text(encoding="utf-8")


def _base_in(text: str) -> str | None:
    return ModelCard(text, ignore_metadata_errors=True).data.get("base_model")


def _not_its_own_base(text: str, repo_id: str) -> str:
    """Remove the base model from a generated card's metadata if it is the repository itself."""
    card = ModelCard(text, ignore_metadata_errors=True)
    if card.data.get("base_model") != repo_id or card.data.get("library_name") == "peft":
        return text
    card.data.base_model = None
    card.data.pop("base_model_relation")
    shown_before = f"[{repo_id}](https://huggingface.co/{repo_id})"
    return str(card).replace(shown_before, f"{code(repo_id)} ({EARLIER})", 1)
