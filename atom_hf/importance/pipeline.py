"""The pipeline "token-importance": the importance of the words of texts and the patches of images."""

import functools
from typing import Any

from transformers import Pipeline
from transformers.image_utils import load_image

from ..errors import AtomError
from ..modeling.layers import is_image_model
from .image import ImageScorer
from .results import ImageImportance, TextImportance
from .text import TextScorer

STRATEGIES = ("average", "none")


class TokenImportancePipeline(Pipeline):
    """The importance of each word of a text, or of each pixel of an image, in one forward pass.

        from transformers import pipeline
        import atom_hf

        pipeline("token-importance", model="runs/my-bert-base-uncased-atom")("Which words matter here?")

    `model` is a folder or Hub id of a model that was trained with `--atom`, or such a model as `load_atom_model` gives it; then
    with its `tokenizer` or `image_processor`. Texts are strings, or {"text": ..., "text_pair": ...} for pairs. Images are
    PIL's, paths, URLs or base64, as other pipelines take them. Lists give lists; generators and data sets give their results
    as they come. Results do not depend on `batch_size`.

    A text gives a list of dicts, in the order of the text:

        {"word": "matter", "importance": 0.42, "start": 12, "end": 18}

    with `text[start:end] == word`; of a pair also "source", 0 or 1. An importance is in [-1, 1], and nan where the word is not
    a token of the atom, or comes after what the model can take (the first 10,000 such words are listed). If it is fitted to
    the prediction, it is the importance for the predicted class.

    An image gives a dict: "importance", float32 [height, width] on the pixels of the original, nan where the model does not
    look (cropped away); "grid", float32 [rows, columns] on its patches; "box", what these cover (left, top, right, bottom) in
    pixels of the original, None for all.

    Options, when the pipeline is made or called:

    - `target`: what the importance is for: a class by its name or index; the predicted class by default. By masking, whatever
      `importance.targets` lists.
    - `method`: "explainer" (default), at one forward pass, or "masking", at one for each token, when the pipeline is made.
    - `aggregation_strategy`: "average" (words: the mean over their tokens; default) or "none" (the tokenizer's pieces).
    - `return_prediction`: also the class and its confidence: an image's dict gets "label" and "score"; a text gives
      {"words": the list as above, "label", "score"}. Both are None for a language model.
    """

    _load_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(
        self, model: Any, tokenizer: Any = None, image_processor: Any = None, method: str = "explainer", **kwargs: Any
    ):
        if isinstance(model, functools.partial):  # from `registration.AtomModel`
            model = model()
        is_image = is_image_model(model)
        kind, given = ("image_processor", image_processor) if is_image else ("tokenizer", tokenizer)
        if given is None:
            raise AtomError(f"{kind}: none can be loaded from the model's folder; give {kind}=...")
        self.scorer = (ImageScorer if is_image else TextScorer)(model, given, method=method)
        if not is_image and tokenizer.pad_token_id is None:
            # Required by the batches of Transformers' pipelines; the scorer does the padding.
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(model=model, **{kind: given}, **kwargs)

    def _sanitize_parameters(
        self,
        aggregation_strategy: str | None = None,
        return_prediction: bool | None = None,
        target: Any = None,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise AtomError(
                f"no such option: {', '.join(unknown)}; token-importance takes target, aggregation_strategy and "
                "return_prediction"
            )
        if aggregation_strategy not in (None, *STRATEGIES):
            raise AtomError(
                f"aggregation_strategy must be one of {', '.join(STRATEGIES)}; got {aggregation_strategy!r}"
            )
        options = {"aggregation_strategy": aggregation_strategy, "return_prediction": return_prediction}
        return (
            {},
            {} if target is None else {"target": target},
            {name: value for name, value in options.items() if value is not None},
        )

    def preprocess(self, sample: Any) -> dict[str, Any]:
        """One encoded sample. The scorer pads: Transformers' batches would pad on the side that the tokenizer says."""
        if isinstance(self.scorer, ImageScorer):
            return {"encoded": self.scorer.encode(load_image(sample))}
        given = {"text": sample} if isinstance(sample, str) else sample
        if not isinstance(given, dict) or "text" not in given or set(given) - {"text", "text_pair"}:
            raise AtomError(f'a text must be a string or {{"text": ..., "text_pair": ...}}, got {str(sample)[:100]!r}')
        return {"encoded": self.scorer.encode(given["text"], given.get("text_pair"))}

    def _forward(self, inputs: dict[str, Any], target: Any = None) -> dict[str, Any]:
        encoded = inputs["encoded"]
        if isinstance(encoded, list):
            return {"encoded": encoded, "found": self.scorer.forward(encoded, target)}
        return {"encoded": encoded, "found": self.scorer.forward([encoded], target)[0]}

    def postprocess(
        self, outputs: dict[str, Any], aggregation_strategy: str = "average", return_prediction: bool = False
    ) -> Any:
        """The words or patches with their importance, as the class's docstring describes."""
        result = self.scorer.result(outputs["encoded"], outputs["found"])
        prediction = {"label": result.predicted, "score": result.confidence} if return_prediction else {}
        if isinstance(result, ImageImportance):
            pixels = {"importance": result.on_pixels(), "grid": result.importance, "box": result.box}
            return {**pixels, **prediction}
        words = _words(result, aggregation_strategy)
        return {"words": words, **prediction} if return_prediction else words


def _words(result: TextImportance, strategy: str) -> list[dict[str, Any]]:
    words = []
    for span in result.words if strategy == "average" else result.pieces:
        word = {"word": span.text, "importance": span.importance, "start": span.start, "end": span.end}
        words.append(word if result.pair is None else {**word, "source": span.source})
    return words
