"""One architecture of one task, from its configuration to the loaded heads: `check`."""

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from inputs import make_batch
from report import FAILED, NOT_BUILT, PASSED, PLAIN_FAILS, TEXT_ALONE
from shrink import SCALES, small_config
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from atom_hf import AtomTrainer, AtomTrainingArguments, load_atom_model

TASKS = {
    "sequence-classification": "SEQUENCE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION",
    "masked-lm": "MASKED_LM",
    "causal-lm": "CAUSAL_LM",
    "image-classification": "IMAGE_CLASSIFICATION",
    "audio-classification": "AUDIO_CLASSIFICATION",
    "seq2seq-lm": "SEQ_TO_SEQ_CAUSAL_LM",
    "multiple-choice": "MULTIPLE_CHOICE",
    "question-answering": "QUESTION_ANSWERING",
    "image-text-to-text": "IMAGE_TEXT_TO_TEXT",
}
"""The tasks, and what Transformers calls them in the names of its mappings."""

STEPS = 2


class CheckError(Exception):
    """What is not as it should be, in words."""


class NotBuiltError(Exception):
    """A model that cannot be made here, in words."""


def architectures(task: str) -> dict[str, str]:
    """Model type to class name, as the installed Transformers registers them. Of several classes the first."""
    names = getattr(modeling_auto, f"MODEL_FOR_{TASKS[task]}_MAPPING_NAMES")
    return {kind: name if isinstance(name, str) else name[0] for kind, name in names.items()}


def build(task: str, model_type: str, scale: int = 0) -> PreTrainedModel:
    """A tiny random model of an architecture, in evaluation."""
    model_class = getattr(transformers, architectures(task)[model_type])
    config = _part_for(
        model_class, small_config(model_type, scale, num_labels=2 if task == "question-answering" else 3)
    )
    if task == "causal-lm" and hasattr(config, "is_decoder"):
        config.is_decoder = True
    torch.manual_seed(0)
    return model_class(config).float().eval()


def _part_for(model_class: Any, config: Any) -> Any:
    """The part of a configuration that the class is for: a language model may be registered for a larger whole."""
    if isinstance(config, model_class.config_class):
        return config
    parts = [getattr(config, name, None) for name in config.sub_configs]
    return next((part for part in parts if isinstance(part, model_class.config_class)), config)


def check(task: str, model_type: str) -> tuple[str, str]:
    """(outcome, reason) of one architecture; the reason of what passed is empty."""
    try:
        model, scale = smallest(task, model_type)
    except NotBuiltError as error:
        return NOT_BUILT, str(error)
    except Exception as error:
        return PLAIN_FAILS, words_of(error)
    try:
        train_save_load(model, task, atom=True)
        return (TEXT_ALONE if hasattr(model, "text_alone") else PASSED), ""
    except Exception as error:
        reason = words_of(error)
    try:
        train_save_load(build(task, model_type, scale), task, atom=False)
    except Exception as error:
        words = words_of(error)
        return PLAIN_FAILS, words if words == reason else f"{words} (with the flag on: {reason})"
    return FAILED, reason


def smallest(task: str, model_type: str) -> tuple[PreTrainedModel, int]:
    """The model at the smallest scale that it runs at, on more than text alone if it can, and which of `SCALES` that is.

    Raises:
        NotBuiltError: it cannot be made at any scale.
        Exception: it can be made, and runs at none; what it says at the smallest.
    """
    errors, text_alone = [], None
    for scale in range(len(SCALES)):
        try:
            model = build(task, model_type, scale)
        except Exception as error:
            errors.append(NotBuiltError(words_of(error)))
            continue
        try:
            with torch.no_grad():
                model(**make_batch(model, task, [0, 1]))
            if not hasattr(model, "text_alone"):
                return model, scale
            text_alone = text_alone or (model, scale)
        except Exception as error:
            errors.append(error)
    if text_alone is not None:
        return text_alone
    raise next((error for error in errors if not isinstance(error, NotBuiltError)), errors[0])


def train_save_load(model: PreTrainedModel, task: str, atom: bool, **arguments: Any) -> None:
    """Two steps, saving, loading plainly and with heads; `arguments` are those of `AtomTrainingArguments`.

    Raises `CheckError`, or what went wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        train(model, task, Path(folder, "run"), atom, **arguments)
        _must(
            any(not torch.equal(v, before[n]) for n, v in model.state_dict().items() if n in before),
            "nothing was trained",
        )
        model.eval()
        batch = make_batch(model, task, [0, 1])
        outputs = run(model, batch)
        if atom:
            _must("atoms" not in outputs, "outputs in evaluation hold atoms")
            importance = importance_of(model, batch)
            tokens = ~importance.isnan()
            _must(bool(tokens.any(1).all()), "a sample without a token")
            _must(bool((importance[tokens].abs() <= 1).all()), "importance outside of [-1, 1]")
        saved = Path(folder, "saved")
        model.save_pretrained(saved)
        plain_class = getattr(transformers, type(model).__name__)
        plain, report = plain_class.from_pretrained(saved, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            _must(not report[what], f"loaded plainly: {what} {sorted(map(str, report[what]))[:3]}")
        expected = {n: v for n, v in model.state_dict().items() if not n.startswith("atom_heads.")}
        same_state(expected, plain.state_dict())
        same(outputs, run(plain.eval(), batch), "outputs of the plain model")
        if atom:
            loaded = load_atom_model(saved, plain_class).eval()
            same_state(model.state_dict(), loaded.state_dict())
            same(importance, importance_of(loaded, batch), "importance after loading")
            same(outputs, run(loaded, batch), "outputs of the model loaded with heads")


def train(model: PreTrainedModel, task: str, folder: Path, atom: bool, **arguments: Any) -> None:
    """Two steps of two samples."""
    args = AtomTrainingArguments(
        str(folder), atom=atom, max_steps=STEPS, per_device_train_batch_size=2, use_cpu=True, report_to="none",
        save_strategy="no", logging_steps=1, remove_unused_columns=False, disable_tqdm=True, learning_rate=1e-3,
        dataloader_pin_memory=False, seed=1, **arguments,
    )  # fmt: skip
    trainer = AtomTrainer(
        model=model, args=args, train_dataset=list(range(4)), data_collator=lambda rows: make_batch(model, task, rows)
    )
    heads = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("atom_heads.")}
    trainer.train()
    if atom:
        _must(model.atom_balancer.scale > 0, "the task's loss does not depend on the layer's hidden states")
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    _must(len(losses) == STEPS and all(map(_finite, losses)), f"losses {losses}")
    if atom:
        _must(bool(heads), "no heads were attached")
        unmoved = [n for n, p in model.named_parameters() if n in heads and torch.equal(p, heads[n])]
        _must(not unmoved, f"heads not trained: {unmoved}")


def run(model: PreTrainedModel, batch: dict[str, Tensor]) -> Any:
    """The outputs in evaluation; noise that a model draws is the same each time."""
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = model(**batch)
    # Whether a model also gives its cache is a matter of its configuration.
    return {name: value for name, value in outputs.items() if name != "past_key_values"}


def importance_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """The importance of each token, with the noise of `run`."""
    torch.manual_seed(0)
    return model.atom_importance(**batch)


def same(a: Any, b: Any, what: str) -> None:
    """Raises `CheckError` where two outputs differ."""
    if torch.is_tensor(a):
        _must(torch.is_tensor(b) and a.shape == b.shape, f"{what}: shapes differ")
        _must(torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5, equal_nan=True), f"{what} differ")
    elif isinstance(a, dict):
        _must(list(a) == list(b), f"{what}: {sorted(a)} and {sorted(b)}")
        for name in a:
            same(a[name], b[name], f"{what}: {name}")
    elif isinstance(a, tuple | list):
        _must(len(a) == len(b), f"{what}: lengths differ")
        for one, other in zip(a, b, strict=True):
            same(one, other, what)


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Raises `CheckError` where two state dicts differ."""
    _must(a.keys() == b.keys(), f"state dicts: {sorted(a.keys() ^ b.keys())[:3]}")
    different = [name for name in a if not torch.equal(a[name].float().nan_to_num(), b[name].float().nan_to_num())]
    _must(not different, f"weights changed by saving and loading: {different[:3]}")


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _must(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckError(otherwise)


def words_of(error: BaseException) -> str:
    """The first line of an error that says anything."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return text if isinstance(error, CheckError) else f"{type(error).__name__}: {text}"[:300]
