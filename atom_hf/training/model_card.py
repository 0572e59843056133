"""Model card of a trainer's run, written with the saved model when the flag is on."""

import functools
import inspect
import os
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..hub.card import check_facts, is_own, write_card
from ..hub.card_facts import describes, facts_of_trainer


class CardMixin:
    """Part of `AtomTrainerMixin`. With the flag off only the Trainer's own `create_model_card` writes a card."""

    _atom_on: bool

    @functools.cached_property
    def card_facts(self) -> dict[str, Any]:
        """Facts for the card that a trainer cannot know, by the names of `CardFacts`: a dictionary to fill."""
        return {}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self._atom_on:
            check_facts(self.card_facts, "card_facts")
        return super().train(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        folder = output_dir or self.args.output_dir
        checkpoint = _internal_call and os.path.basename(folder).startswith(PREFIX_CHECKPOINT_DIR)
        # Checked before saving: PEFT writes a card of its own when an adapter is saved.
        writes = self._atom_on and not checkpoint and not is_own(folder)
        super().save_model(output_dir, _internal_call)
        if writes:
            self._atom_write_card(folder)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card of the run to `output_dir`, unless the user's own card is there.

        Arguments are those of the Trainer's own `create_model_card`, which runs instead with the flag off, or for a model that
        is not from Transformers.
        """
        make = super().create_model_card
        if not (self._atom_on and describes(self.accelerator.unwrap_model(self.model))):
            return make(*args, **kwargs)
        if not is_own(self.args.output_dir):
            self._atom_write_card(self.args.output_dir, inspect.signature(make).bind(*args, **kwargs).arguments)

    def _atom_write_card(self, folder: str, given: dict[str, Any] | None = None) -> None:
        known = describes(self.accelerator.unwrap_model(self.model))
        if known and self.is_world_process_zero() and os.path.isdir(folder):
            write_card(facts_of_trainer(self, given), folder)
