"""Flags of `atom-hf manipulate`."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...errors import AtomError
from ...finetune.arguments import as_in_train
from ...utils.bounds import COUNT, SEED, Bound
from ..arguments import TaskArguments
from .equations import check_weights, text_weights
from .evaluation import ROWS
from .put import FILL, PUTS, SHARE
from .sparring import sigmas_to_try

FILLING_STEPS = 300

RATES = {"pixels": 2e-3, "vector": 1e-3, "tokens": 2e-4}


def _flag(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class ManipulatorArguments(TaskArguments):
    """TrainingArguments of a manipulator: by default its learning rate rises over the first third of the steps, then falls."""

    learning_rate: float | None = _flag(
        "Peak of the learning rate; 2e-3 for images, 1e-3 for vectors and 2e-4 for texts if not given."
    )
    max_steps: int = _flag("Number of optimizer steps.", 1000)
    per_device_train_batch_size: int = _flag("Rows of a batch, on each device.", 128)
    lr_scheduler_type: str = _flag("The scheduler of the learning rate.", "cosine")
    warmup_steps: float = _flag("Steps over which the learning rate rises, or their share if below 1.", 0.3)

    def with_rate(self, kind: str) -> "ManipulatorArguments":
        """The arguments themselves, with the learning rate of rows of a kind if none was given."""
        self.learning_rate = RATES[kind] if self.learning_rate is None else self.learning_rate
        return self


@dataclass
class ManipulateOptions:
    """What to make an editor of, or what to edit."""

    bounds: ClassVar[dict[str, Bound]] = {
        "sample_seed": SEED,
        "edit_rows": COUNT,
        "filling_steps": Bound(0, 2**31 - 1, whole=True),
        "samples": Bound(1, 100, whole=True),
        "image_size": Bound(4, 1024, whole=True),
    }

    classifier: str | None = _flag(
        "The classifier to make an editor of: a folder, a Hub id, a built-in model, or a learner of a trained task such as "
        "runs/task-supervised:f."
    )
    classifier_revision: str | None = _flag("A branch, tag or commit of the classifier on the Hub.")
    dataset: str | None = as_in_train("dataset")
    put: str | None = _flag(
        "The editor: "
        + ", ".join(
            f"{name} ({'images' if kind == 'pixels' else 'what the output layer reads'})" for name, kind in PUTS.items()
        )
        + f", {FILL} (texts, some of whose words it writes anew). By default steer for images and residual for texts."
    )
    hidden_sizes: list[int] = field(
        default_factory=list, metadata={"help": "Widths of the editor; its own if not given."}
    )
    weights: list[float] = field(
        default_factory=list,
        metadata={
            "help": "Weights of putget, getput, undo and law, and optionally of putput; 1 10 10 0.3 for images and 1 1 1 0.3 "
            "for residual if not given. Of fill, of putget and denoise; 1 1."
        },
    )
    sigma: str = _flag(
        "Noise that the sparring copy of the classifier is tuned on, of the range of the inputs; 0 for none. auto: the largest "
        "of 0.5, 0.3, 0.2 and 0.1 that costs at most two points of accuracy. Of fill, the share of words "
        "that are hidden from it.",
        "auto",
    )
    filler: str | None = _flag(
        "Of fill, the model that fills gaps: a masked language model or its encoder, by its folder, Hub id or built-in name, "
        "such as minilm, with the classifier's tokenizer. By default the classifier's own encoder."
    )
    hidden_share: float = _flag("Of fill, the share of a text's tokens that are written anew.", SHARE)
    filling_steps: int = _flag("Of fill, steps of learning to fill gaps before classes are written.", FILLING_STEPS)
    image_size: int | None = _flag(
        "Longest side of the images that are edited; that of the data, at most 64, if not given."
    )
    judge: str | None = _flag(
        "What judges the edits: svm, linear, a network such as 'conv(32, 64)', or the folder or Hub id of another classifier. "
        "By default svm for images and linear for residual and fill."
    )
    judge_fraction: float = _flag("The fraction of the evaluation rows that the judge learns from.", 0.5)
    edit_rows: int = _flag("Rows whose edits are judged, at most, to every class but their own.", ROWS)
    compare: bool = _flag("Compare with a conditional VAE of equal size and steps, over four betas.", False)
    samples: int = _flag("Rows to show on the page.", 10)
    model: str | None = _flag("A manipulator that was made: a folder or Hub id, for --edit.")
    edit: str | None = _flag(
        "With --model: a picture to edit; with one of residual, an .npy file of vectors; with one of fill, a text or "
        "a .txt file of a text a line."
    )
    to: str | None = _flag("With --edit: the class to turn it into.")
    strength: str = _flag("With --edit: from 0 to 1, or several as FIRST:LAST:COUNT, as in 0:1:9.", "1")
    task: str | None = as_in_train("task")
    dataset_config: str | None = as_in_train("dataset_config")
    eval_dataset: str | None = as_in_train("eval_dataset")
    train_split: str | None = as_in_train("train_split")
    eval_split: str | None = as_in_train("eval_split")
    eval_fraction: float = as_in_train("eval_fraction")
    hold_out: bool = as_in_train("hold_out")
    text_column: str | None = as_in_train("text_column")
    text_pair_column: str | None = as_in_train("text_pair_column")
    image_column: str | None = as_in_train("image_column")
    label_column: str | None = as_in_train("label_column")
    max_train_samples: int | None = as_in_train("max_train_samples")
    max_eval_samples: int | None = as_in_train("max_eval_samples")
    sample_seed: int = as_in_train("sample_seed")
    max_length: int = as_in_train("max_length")

    def check(self) -> None:
        """Raise `AtomError` for flags that are wrong, or that do not go together, before anything is loaded."""
        if self.edit is not None or self.model is not None or self.to is not None:
            missing = [name for name in ("model", "edit", "to") if getattr(self, name) is None]
            if missing:
                raise AtomError(f"give --{missing[0]} too: --model OUT --edit INPUT --to CLASS edits an input")
            if self.classifier is not None:
                raise AtomError("--classifier makes an editor and --edit uses one; give either")
            self.strengths()
            return
        if self.classifier is None:
            raise AtomError(
                "give --classifier: a folder, a Hub id, or a learner of a trained task; or --model and --edit"
            )
        if self.dataset is None:
            raise AtomError("give --dataset: a Hub id, a file or folder, or a built-in one")
        if self.put is not None and self.put not in (*PUTS, FILL):
            raise AtomError(f"--put {self.put!r} is unknown; give one of {', '.join((*PUTS, FILL))}")
        sigmas_to_try(self.sigma)
        if self.put == FILL:
            self._check_fill()
        elif self.weights:
            check_weights(self.weights)
        if not 0 < self.judge_fraction < 1:
            raise AtomError(f"--judge_fraction must be between 0 and 1, such as 0.5, got {self.judge_fraction}")

    def _check_fill(self) -> None:
        text_weights(self.weights or None)
        if not 0 < self.hidden_share < 1:
            raise AtomError(f"--hidden_share must be between 0 and 1, such as 0.25, got {self.hidden_share}")
        for name in ("hidden_sizes", "compare", "image_size"):
            if getattr(self, name):
                raise AtomError(f"--{name} is not for --put {FILL}; leave it out")

    def strengths(self) -> list[float]:
        """The strengths that `--strength` names. Raises `AtomError`."""
        parts = self.strength.split(":")
        try:
            numbers = [float(part) for part in parts]
            if len(numbers) == 3:
                first, last, count = numbers
                if count != int(count) or not 2 <= count <= 100:
                    raise ValueError
                numbers = [first + (last - first) * step / (int(count) - 1) for step in range(int(count))]
            elif len(numbers) != 1:
                raise ValueError
            if not all(math.isfinite(number) and 0 <= number <= 1 for number in numbers):
                raise ValueError
        except ValueError:
            raise AtomError(
                f"--strength must be a number from 0 to 1, or FIRST:LAST:COUNT of such, as in 0:1:9, got {self.strength!r}"
            ) from None
        return numbers
