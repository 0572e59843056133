"""Trainers of several players: models that are trained in one step, each by its own loss, as in a GAN."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from ..errors import AtomError, first_line
from ..utils.bounds import COUNT, NOT_NEGATIVE

PLAYERS_HELP = (
    "Options of single learners, as JSON: lr is a learner's own learning rate, and every k updates it at every k-th step "
    'alone, as in {"dis": {"lr": 1e-4}, "gen": {"every": 2}}.'
)


class Player(NamedTuple):
    """How a player is trained."""

    lr: float
    every: int


@dataclass
class PlayerArguments(TrainingArguments):
    """TrainingArguments of several players. `max_grad_norm` bounds the gradient of each player by itself."""

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "players"]

    players: dict | str | None = field(default=None, metadata={"help": PLAYERS_HELP})

    def __post_init__(self) -> None:
        if isinstance(self.players, str):
            try:
                self.players = json.loads(self.players)
            except (ValueError, RecursionError) as error:
                raise AtomError(f"players: {self.players!r} is no JSON: {first_line(error)}") from error
        check_players(self.players)
        super().__post_init__()

    def player(self, name: str) -> Player:
        """How a player is trained."""
        own = (self.players or {}).get(name, {})
        return Player(own.get("lr", self.learning_rate), own.get("every", 1))


def check_players(players: Any) -> None:
    """Raises `AtomError` for options that no player has."""
    if players is None:
        return
    if not isinstance(players, Mapping):
        raise AtomError(
            f"players: give options by the names of learners, such as {{'gen': {{'lr': 1e-4}}}}, got {players!r}"
        )
    bounds = {"lr": NOT_NEGATIVE, "every": COUNT}
    for name, options in players.items():
        if not isinstance(options, Mapping) or not set(options) <= set(bounds):
            raise AtomError(f"players: {name} has lr and every, as in {{'lr': 1e-4, 'every': 2}}, got {options!r}")
        for option, value in options.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if option == "every" and not isinstance(value, int):
                is_number = False
            if not is_number or not math.isfinite(value) or not bounds[option].holds(value):
                raise AtomError(f"players: {option} of {name} must be {bounds[option].asked(0)}, got {value!r}")


class PlayersMixin:
    """Adds players to a Trainer: each has parameter groups of its own in the one optimizer, and so in checkpoints.

    The loss of the model is a sum whose gradient is, for each player, that of its own loss: whatever belongs to the others is
    called with detached parameters. A player whose turn it is not is left as it is.
    """

    args: PlayerArguments
    _players: tuple[Any, dict[str, list[nn.Parameter]]] | None = None

    def players(self) -> dict[str, dict[str, nn.Parameter]]:
        """The parameters of each player, by the player's name and by their own in the model."""
        raise NotImplementedError

    def _parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each player, looked up once: steps of small models are shorter than a walk over their modules."""
        if self._players is None or self._players[0] is not self.model:
            self._players = self.model, {name: list(own.values()) for name, own in self.players().items()}
        return self._players[1]

    def create_optimizer(self, model: Any = None):
        if self.optimizer is not None:
            return super().create_optimizer(model) if model is not None else super().create_optimizer()
        inner = self.accelerator.unwrap_model(self.model)
        decays = set(self.get_decay_parameter_names(inner))
        groups = []
        for name, parameters in self.players().items():
            own = {key: parameter for key, parameter in parameters.items() if parameter.requires_grad}
            for decay in (True, False):
                some = [parameter for key, parameter in own.items() if (key in decays) == decay]
                if some:
                    weight_decay = self.args.weight_decay if decay else 0.0
                    rate = self.args.player(name).lr
                    groups.append({"params": some, "weight_decay": weight_decay, "lr": rate, "player": name})
        make, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, inner)
        if set(options) & {"params", "model", "optimizer_dict"} or not isinstance(make, type):
            raise AtomError(
                f"optim {self.args.optim}: it makes its own parameter groups, and each player has its own; give another"
            )
        self.optimizer = make(groups, **options)
        return self.optimizer

    def _clip_grad_norm(self, model: Any) -> Tensor:
        """Clips each player's gradient by itself, after dropping those of players whose turn it is not. Returns the norm of
        all that are left, before clipping."""
        self._drop_gradients()
        return self._norms(self.args.max_grad_norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None):
        if grad_norm is None:
            self._drop_gradients()
            grad_norm = self._norms(float("inf"))
        return grad_norm

    def _norms(self, most: float) -> Tensor:
        self.accelerator.unscale_gradients(self.optimizer)  # once: a scaler refuses to do it twice
        given = [[p for p in parameters if p.grad is not None] for parameters in self._parameters().values()]
        norms = [torch.nn.utils.clip_grad_norm_(some, most) for some in given if some]
        return norms[0] if len(norms) == 1 else torch.stack(norms).norm()

    def _drop_gradients(self) -> None:
        for name, parameters in self._parameters().items():
            if (self.state.global_step + 1) % self.args.player(name).every:
                for parameter in parameters:
                    parameter.grad = None
