"""The pipeline "attribute-manipulation": pictures, vectors or texts turned into a class."""

import functools
from typing import Any

import numpy as np
import torch
from transformers import Pipeline
from transformers.image_utils import load_image

from ...errors import AtomError
from ...visualization.edits_picture import picture_of
from .command import as_pixels
from .evaluation import probabilities
from .manipulator import Manipulator
from .texts.manipulator import TextManipulator


class AttributeManipulationPipeline(Pipeline):
    """An input turned into a class, by a `Manipulator` or a `TextManipulator`.

        from transformers import pipeline
        import atom_hf

        edit = pipeline("attribute-manipulation", model="runs/digits-manipulator")
        edit("three.png", to="8")["image"].save("eight.png")

    Pictures are PIL's, paths, URLs or base64, as other pipelines take them; vectors are arrays [d]; texts are strings. Lists
    give lists; generators and data sets give their results as they come.

    Each gives a dict: "image" (PIL, of the manipulator's size), "vector" (float32 [d]) or "text"; "label", the class that was
    read before; "to" and "strength"; "score", the probability of the class that is read from the edit.

    Options, when the pipeline is made or called:

    - `to`: the class, by name or id.
    - `strength`: from 0, the class that was read, to 1 (default).
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _load_tokenizer = False

    def __init__(self, model: Any, **kwargs: Any):
        if isinstance(model, functools.partial):  # from `registration.ManipulatorModel`
            model = model()
        if not isinstance(model, Manipulator | TextManipulator):
            raise AtomError(f"model: {type(model).__name__} is no manipulator; make one by atom-hf manipulate")
        super().__init__(model=model, **kwargs)

    def _sanitize_parameters(
        self, to: int | str | None = None, strength: float | None = None, **unknown: Any
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise AtomError(f"no such option: {', '.join(unknown)}; attribute-manipulation takes to and strength")
        if to is not None:
            self.model.class_id(to)
        if strength is not None and not 0 <= strength <= 1:
            raise AtomError(f"strength must be from 0 to 1, got {strength}")
        return {}, {name: value for name, value in (("to", to), ("strength", strength)) if value is not None}, {}

    def preprocess(self, sample: Any) -> dict[str, Any]:
        """The values [1, ...] of one input, or the text itself."""
        if isinstance(self.model, TextManipulator):
            if not isinstance(sample, str):
                raise AtomError(f"a text must be a string, got {type(sample).__name__}")
            return {"text": sample}
        if self.model.config.kind.name == "pixels":
            return {"values": as_pixels(load_image(sample), self.model)}
        try:
            return {"values": torch.as_tensor(np.asarray(sample, dtype=np.float32))[None]}
        except (TypeError, ValueError) as error:
            raise AtomError(f"a vector must be numbers, got {str(sample)[:100]!r}") from error

    def _forward(self, inputs: dict[str, Any], to: int | str | None = None, strength: float = 1.0) -> dict[str, Any]:
        if to is None:
            raise AtomError(f"to: give the class to turn it into, one of {', '.join(self.model.config.labels)}")
        if isinstance(self.model, TextManipulator):
            return self._edited_text(inputs["text"], self.model.class_id(to), strength)
        values = inputs["values"]
        own, target = self.model.classify(values).argmax(1), self.model.class_id(to)
        edited = self.model.edit(values, target, strength, own=own)
        score = probabilities(self.model, edited.cpu(), torch.full((len(values),), target))
        return {"edited": edited, "own": own, "target": target, "strength": strength, "score": score}

    def _edited_text(self, text: str, target: int, strength: float) -> dict[str, Any]:
        own = self.model.classify([text]).argmax(1)
        edited = self.model.edit([text], target, strength, own=own)
        score = self.model.classify(edited).softmax(1)[:, target]
        return {"edited": edited, "own": own, "target": target, "strength": strength, "score": score}

    def postprocess(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The result, as the class's docstring describes."""
        labels, edited = self.model.config.labels, outputs["edited"][0]
        if isinstance(self.model, TextManipulator):
            shown = {"text": edited}
        elif self.model.config.kind.name == "pixels":
            shown = {"image": picture_of(edited.cpu().numpy())}
        else:
            shown = {"vector": edited.cpu().numpy()}
        return {
            **shown,
            "label": labels[int(outputs["own"][0])],
            "to": labels[outputs["target"]],
            "strength": outputs["strength"],
            "score": float(outputs["score"][0]),
        }
