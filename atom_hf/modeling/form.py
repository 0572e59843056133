"""The form of the energy that a model gets where none is asked for."""

from typing import Any

from .own_outputs import signature

# The losses of Transformers, by `PreTrainedModel.loss_type`, that compare one output a sample with its label.
SAMPLE_LOSSES = tuple(f"For{kind}Classification" for kind in ("Sequence", "Image", "Audio", "Video"))


def default_form(model: Any) -> str:
    """'separation' for a model that classifies (or rates) whole samples, 'paper' for any other.

    What the separation form gains was found with classifiers (`recipes/study/README.md`). Of what writes text, marks tokens or
    embeds sentences nothing is known to speak for it, and small language models had gains by the paper's form.

    A model of one's own class counts as a classifier if it has a loss of its own, which takes `labels`, and does not predict
    tokens.
    """
    kind = getattr(model, "loss_type", None)
    if kind is not None:
        return "separation" if kind in SAMPLE_LOSSES else "paper"
    try:
        predicts_tokens = model.get_output_embeddings() is not None
    except (AttributeError, NotImplementedError):
        predicts_tokens = False
    return "separation" if "labels" in signature(type(model).forward).parameters and not predicts_tokens else "paper"
