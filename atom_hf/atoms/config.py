"""`AtomConfig`: options of the atom heads and the atom loss."""

import json
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import AtomError
from ..utils.files import read_json, write_atomically
from . import format_1
from .energy import TOKEN_REDUCTIONS
from .explainer_sizes import check_explainer_sizes
from .forms import FORMS, TOKEN_RULES
from .heads import POSITION_INITS

CONFIG_NAME = "atom_config.json"

FORMAT_VERSION = 2

HEADS_ID = "heads_id"  # names, in the file of the configuration, the heads that it was saved with

MAX_BYTES = 2**20

MAX_SPECIAL_TOKENS = 2**16

MAX_NAME = 500  # characters of a module's name

SIDES = ("encoder", "decoder")


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class AtomConfig:
    """Options of the atom heads and the atom loss: which tokens form an atom, and how the loss is weighted.

    Every field but the last eight, which describe the model, is also a flag of `AtomTrainingArguments`, named `atom_` + field.
    All are this library's own choices, except `token_reduction="sum"` and `softening=0`, which give the paper's Eq. 5;
    `recipes/study/README.md` is the evidence for the defaults. Raises `AtomError` for an invalid value.
    """

    form: str | None = _option(
        None,
        "Form of the energy: 'paper' is Eqs. 5 to 12 with learned charges and positions; 'separation' (ours) spaces what the "
        "output layer reads, with distances relative to their own scale. By default 'separation' for a model that classifies "
        "whole samples, and 'paper' for any other. Sets the options that are not given: "
        + "; ".join(f"{name} {', '.join(f'{k}={v}' for k, v in form.items())}" for name, form in FORMS.items())
        + ".",
    )
    weight: float | None = _option(
        None,
        "Strength of the atom loss. With weighting 'relative': the norm of its gradient at the hidden states, as a fraction of "
        "the task gradient's norm there. With 'absolute': loss = task + weight * atom loss. A larger weight separates samples "
        "further; with 0 the model trains as in a plain run.",
    )
    weighting: str | None = _option(
        None,
        "'relative' measures both gradients and keeps their ratio at the weight, so that one weight suits models trained from "
        "scratch and pretrained ones; 'absolute' is a weighted sum of losses.",
    )
    layer: int = _option(
        -2,
        "Layer whose hidden states are the tokens: an index into the model's hidden_states (0 is the embeddings, -1 the "
        "last). The energy trains this layer and those before it; the task head reads the last layer.",
    )
    block: str | None = _option(
        None,
        "Of a diffusers model, in place of the layer: the module whose output is the tokens, by its name, such as "
        "down_blocks.1. By default the block at a quarter of the depth.",
    )
    tokens: str | None = _option(
        None,
        "Tokens that belong to an atom: 'read' takes what the output layer reads ([CLS], a pooled output, the last token, or "
        "every token), found from the model; 'content' leaves out padding, special tokens and a vision model's [CLS] or "
        "register tokens; 'all' leaves out padding only.",
    )
    distance: str | None = _option(
        None,
        "'absolute' distances are those of Eq. 7; 'relative' ones are divided by their root mean square over the pairs, so "
        "that the energy falls only as samples become evenly spaced, not as positions grow.",
    )
    charges: str | None = _option(
        None,
        "'learned' charges come from the importance head (Eq. 6); 'fixed' gives every token of an atom the charge 1.",
    )
    positions: str | None = _option(
        None,
        "'learned' positions come from the position head (Eq. 12); 'tokens' are the layer-normalised tokens divided by the "
        "square root of their width.",
    )
    side: str = _option(
        "encoder",
        "Side of an encoder-decoder that the tokens are taken from: 'encoder' (the input) or 'decoder' (the output). Any other "
        "model has one side only: 'encoder'.",
    )
    token_reduction: str = _option(
        "mean",
        "'mean' averages charges over a sample's tokens, so that the weight means the same at any length; 'sum' is the "
        "paper's Eq. 5, and the charge floor and the neutrality then refer to sums too.",
    )
    softening: float = _option(
        0.1,
        "Distances are softened to sqrt(D^2 + softening^2), in units of the positions, so that the energy and its gradient are "
        "finite for coincident samples. 0 is the paper's formula.",
    )
    energy_weight: float = _option(
        1.0, "Weight of the energy within the atom loss; 0 leaves only the constraints, for comparison."
    )
    neutrality: float = _option(
        1.0,
        "Weight of the squared net charge per token within the atom loss; it keeps both signs of importance in use.",
    )
    net_charge: float = _option(
        0.0,
        "Net charge per token that the neutrality term keeps: 0 is neutral; above 0, samples repel at every distance.",
    )
    charge_floor: float = _option(
        0.5,
        "Mean |importance| below which a sample is penalised: without a floor the energy shrinks charges to 0.",
    )
    charge_floor_weight: float = _option(
        10.0, "Weight of the squared shortfall from the charge floor within the atom loss."
    )
    warmup_ratio: float = _option(
        0.0,
        "Fraction of the training steps during which the atom loss trains only the heads, so that untrained heads do not "
        "disturb a pretrained model. (Their gradients count in the norm that max_grad_norm clips.)",
    )
    schedule: str = _option(
        "linear",
        "Schedule of the weight after the warm-up: 'linear' falls to 0 at the end of training, so that the model finishes "
        "on the task alone; 'constant' keeps the weight.",
    )
    head_learning_rate: float = _option(1e-3, "Peak learning rate of the two heads; they follow the model's schedule.")
    importance_std: float = _option(
        1.5, "Initial standard deviation of the importance head's output; at 1.5 mean |importance| is about 0.5."
    )
    position_init: str = _option(
        "random",
        "Initialization of the position head: 'random' like any linear layer, or 'identity', so that positions are the tokens.",
    )

    # These describe the model; set by attach_atoms.
    hidden_size: int | None = None
    special_token_ids: list[int] | None = None
    base_model_class: str | None = None
    # These describe the explainer, if one has been fitted (explainer/fit.py). Those after the second are None for one
    # that was fitted before there were attention blocks, several layers, and an importance for each strategy, the first of
    # which is the default; the context also for one that mixes its layers. What it explains of held-out samples, a share for
    # each strategy, is None for one that was fitted before that was kept.
    explainer_classes: int | None = None
    explainer_width: int | None = None
    explainer_blocks: int | None = None
    explainer_layers: list[int] | None = None
    explainer_strategies: list[str] | None = None
    explainer_context: bool | None = None
    explainer_explained: list[float] | None = None

    def __post_init__(self):
        if self.form is not None and (not isinstance(self.form, str) or self.form not in FORMS):
            raise AtomError(f"form must be {' or '.join(map(repr, FORMS))}; got {self.form!r:.200}")
        # Without a form, which only a model decides (modeling/form.py), what the form sets stays open.
        is_open = {name for name in FORMS["paper"] if getattr(self, name) is None}
        if self.form is not None:
            for name in is_open:
                setattr(self, name, FORMS[self.form][name])
            is_open = set()

        def check(condition: bool, name: str, what: str) -> None:
            if not condition and name not in is_open:
                shown = repr(getattr(self, name))  # may come from an untrusted file
                raise AtomError(f"{name} must be {what}; got {shown if len(shown) < 200 else shown[:200] + '...'}")

        for name in ("weight", "softening", "energy_weight", "neutrality", "charge_floor_weight", "head_learning_rate"):
            check(_is_number(getattr(self, name), at_least=0), name, "a finite number that is not negative")
        for name in ("charge_floor", "warmup_ratio"):
            check(_is_number(getattr(self, name), at_least=0) and getattr(self, name) <= 1, name, "between 0 and 1")
        charge = self.net_charge
        check(_is_number(charge, at_least=-1) and charge <= 1, "net_charge", "between -1 and 1")
        positive = _is_number(self.importance_std, at_least=0) and self.importance_std > 0
        check(positive, "importance_std", "a finite number above 0")
        check(_is_whole(self.layer), "layer", "a whole number")
        rules = "one of " + "; ".join(f"'{rule}' ({what})" for rule, what in TOKEN_RULES.items())
        check(isinstance(self.tokens, str) and self.tokens in TOKEN_RULES, "tokens", rules)
        for name, options in (
            ("side", SIDES),
            ("weighting", ("relative", "absolute")),
            ("schedule", ("linear", "constant")),
            ("token_reduction", TOKEN_REDUCTIONS),
            ("position_init", POSITION_INITS),
            ("distance", ("absolute", "relative")),
            ("charges", ("learned", "fixed")),
            ("positions", ("learned", "tokens")),
        ):
            check(getattr(self, name) in options, name, " or ".join(map(repr, options)))

        block, ids, base = self.block, self.special_token_ids, self.base_model_class
        named = block is None or (isinstance(block, str) and 0 < len(block) <= MAX_NAME)
        check(named, "block", "the name of a module, such as down_blocks.1")
        size = self.hidden_size
        check(size is None or (_is_whole(size) and size > 0), "hidden_size", "a whole number above 0")
        check_explainer_sizes(self, check)
        if isinstance(ids, list) and len(ids) > MAX_SPECIAL_TOKENS:
            raise AtomError(f"special_token_ids holds {len(ids)} ids; at most {MAX_SPECIAL_TOKENS} are allowed")
        whole = ids is None or (isinstance(ids, list) and all(_is_whole(i) and abs(i) < 2**31 for i in ids))
        check(whole, "special_token_ids", "a list of whole numbers of at most 31 bits")
        check(base is None or isinstance(base, str), "base_model_class", "the name of a class")

    @property
    def place(self) -> str:
        """Where the tokens are read, for messages: "layer -2", "block down_blocks.1"."""
        return f"layer {self.layer}" if self.block is None else f"block {self.block}"

    @property
    def trains_heads_apart(self) -> bool:
        """Whether both heads learn on the content tokens beside the energy, which does not train them there.

        Their objective is the paper form's loss on tokens that pass no gradient to the model.
        """
        return self.tokens == "read" or self.charges == "fixed" or self.positions == "tokens"

    @property
    def has_explainer(self) -> bool:
        """Whether importance is the explainer's, fitted to the prediction (explainer/fit.py); else it is the charge."""
        return self.explainer_classes is not None

    def strength(self, progress: float) -> float:
        """The multiplier of the weight by the schedule at `progress` in [0, 1] of a training run."""
        if progress < self.warmup_ratio:
            return 0.0
        return 1.0 - progress if self.schedule == "linear" else 1.0

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON stores exactly; `from_dict` restores it."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AtomConfig":
        """The inverse of `to_dict`; also reads format 1.

        Raises:
            AtomError: another format, or unknown fields.
        """
        if not isinstance(data, dict):
            raise AtomError(f"an atom configuration must be a JSON object, got {type(data).__name__}")
        data = dict(data)
        version = data.pop("format_version", None)
        if not _is_whole(version) or version not in (format_1.VERSION, FORMAT_VERSION):
            raise AtomError(
                f"the atom configuration has format_version {version!r}, this atom-hf reads {format_1.VERSION} and "
                f"{FORMAT_VERSION}; install the version of atom-hf that wrote it"
            )
        is_old = version == format_1.VERSION
        known = {*format_1.DEFAULTS, *format_1.OTHERS} if is_old else {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            # Untrusted names: terminal escape sequences are shown, not sent.
            shown = ", ".join(name[:60] if name.isprintable() else repr(name[:60]) for name in unknown[:10])
            raise AtomError(
                f"the atom configuration has unknown fields {shown}{', ...' if len(unknown) > 10 else ''}; "
                "if a newer atom-hf wrote it, install that"
            )
        config = cls(**(format_1.upgrade_config(data) if is_old else {"form": "paper", **data}))
        if config.form is None:
            raise AtomError(f"form must be {' or '.join(map(repr, FORMS))}; got None: no model's heads are without one")
        return config

    def save(self, folder: str | Path, heads_id: str | None = None) -> None:
        """Write `atom_config.json` to `folder`, with the id of the heads that it belongs to, if they are a file beside it."""
        data = self.to_dict() | ({HEADS_ID: heads_id} if heads_id else {})
        write_atomically(Path(folder, CONFIG_NAME), json.dumps(data, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, file: str | Path) -> "AtomConfig":
        """Read an `atom_config.json`. Raises `AtomError`, naming the file, if it is not one."""
        data = read_json(file, MAX_BYTES, "atom configuration")
        data.pop(HEADS_ID, None)
        try:
            return cls.from_dict(data)
        except AtomError as error:
            raise AtomError(f"{file}: {error}") from error


def _is_number(value: Any, at_least: float) -> bool:
    # Compared, not converted: an int may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and at_least <= value <= sys.float_info.max


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
