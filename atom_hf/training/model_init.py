"""Models that `model_init` makes: one for each `train`, and so one for each trial of a hyperparameter search."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

from ..atoms.config import AtomConfig
from ..errors import AtomError
from ..modeling.attach import detach_atoms
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import inner_model
from .arguments import check_arguments
from .loss_scale import TaskLossScale
from .model_setup import prepare_model


class Unwrapped:
    """What the trainer's model wraps, looked up once a model: Accelerate's search takes longer than many a layer.

    It keeps no model alive: a search frees that of each trial.
    """

    def __init__(self) -> None:
        self._outer: weakref.ref | None = None
        self._inner: weakref.ref | None = None

    def of(self, model: Any, accelerator: Any) -> Any:
        """`accelerator.unwrap_model(model)`."""
        if self._outer is None or self._outer() is not model:
            self._outer, self._inner = weakref.ref(model), weakref.ref(accelerator.unwrap_model(model))
        return self._inner()

    def __reduce__(self) -> tuple:
        return Unwrapped, ()  # weak references cannot be pickled, and Ray pickles trainers


class ModelInitMixin:
    """Part of `AtomTrainerMixin`. The trainer has no model between two trials: a search frees it."""

    _atom_on: bool
    _atom_checked: bool
    _atom_new_heads: bool  # whether `model_init` gave a model without heads
    _atom_loss_scale: TaskLossScale
    _atom_found: "Unwrapped"

    @property
    def _atom_model(self) -> AtomMixin:
        return inner_model(self._atom_unwrapped)

    @property
    def _atom_unwrapped(self) -> Any:
        """The trainer's model: the one with atoms, or what holds it. Raises `AtomError` if there is none."""
        if self.model is None:
            raise AtomError(
                "model: the trainer holds none after a hyperparameter search, which frees the model of each trial; call "
                "train with the best trial's arguments first, or load a checkpoint of it"
            )
        return self._atom_found.of(self.model, self.accelerator)

    def _atom_making(self, make: Callable, config: Callable[[], AtomConfig], processing_class: Any) -> Callable:
        """`model_init` whose models have atoms."""

        @functools.wraps(make)  # Trainer counts its arguments
        def make_with_atoms(*trial: Any) -> Any:
            model = make(*trial)
            self._atom_new_heads = model is not None and not isinstance(inner_model(model), AtomMixin)
            return model if model is None else prepare_model(model, config(), processing_class)

        return make_with_atoms

    def _hp_search_setup(self, trial: Any) -> None:
        """Called by `train` once there is a model, of which nothing is loaded, wrapped or in an optimizer yet."""
        super()._hp_search_setup(trial)
        if bool(getattr(self.args, "atom", False)) != self._atom_on:
            raise AtomError(
                f"atom is {self.args.atom} now and was {self._atom_on} when the trainer was made, and a trainer, or a search, "
                "cannot change it; search atom_weight, or make one trainer with atom and one without"
            )
        if not self._atom_on or self.model_init is None:
            return
        if trial is not None:
            # The trial has set its arguments only now; the model was made by those of the trial before.
            check_arguments(self.args)
            if self._atom_new_heads:
                detach_atoms(self.model)
            prepare_model(self.model, self.args.atom_config(), self.processing_class)
        # `model_init` may give another model each time.
        self._atom_checked, self._atom_loss_scale = False, self._atom_loss_scale.anew()
        self._atom_before_training()
