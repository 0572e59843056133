"""`TaskArguments`: Transformers' TrainingArguments, with the options of single learners."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from transformers import TrainingArguments

from ..errors import AtomError, first_line
from ..utils.bounds import COUNT, NOT_NEGATIVE

PLAYERS_HELP = (
    "Options of single learners, as JSON: lr is a learner's own learning rate, and every k updates it at every k-th step "
    'alone, as in {"dis": {"lr": 1e-4}, "gen": {"every": 2}}.'
)


class Player(NamedTuple):
    """How a learner is trained."""

    lr: float
    every: int


@dataclass
class TaskArguments(TrainingArguments):
    """TrainingArguments of a task. `max_grad_norm` bounds the gradient of each learner by itself."""

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "players"]

    players: dict | str | None = field(default=None, metadata={"help": PLAYERS_HELP})
    remove_unused_columns: bool = field(default=False, metadata={"help": "A task names the columns that it uses."})

    def __post_init__(self) -> None:
        if isinstance(self.players, str):
            try:
                self.players = json.loads(self.players)
            except (ValueError, RecursionError) as error:
                raise AtomError(f"players: {self.players!r} is no JSON: {first_line(error)}") from error
        check_players(self.players)
        super().__post_init__()

    def player(self, name: str) -> Player:
        """How a learner is trained."""
        own = (self.players or {}).get(name, {})
        return Player(own.get("lr", self.learning_rate), own.get("every", 1))


def check_players(players: Any) -> None:
    """Raises `AtomError` for options that no learner has."""
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
