"""The schedule of the atom loss's weight, step by step."""

from typing import Any

from transformers import TrainerCallback

from ..utils.distributed import sum_over_processes
from ..utils.terminal import get_logger

logger = get_logger(__name__)


class AtomCallback(TrainerCallback):
    """Sets the balancer's strength by the schedule, and updates the balancer after each optimizer step."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer._atom_begin()
        if not self.trainer._atom_checked:
            self.trainer.check_atoms()

    def on_step_begin(self, args, state, control, **kwargs):
        model = self.trainer._atom_model
        model.atom_balancer.strength = model.atom_config.strength(state.global_step / max(1, state.max_steps))

    def on_step_end(self, args, state, control, **kwargs):
        balancer = self.trainer._atom_model.atom_balancer
        balancer.update(sum_over_processes)
        if state.global_step > 1 or not balancer.ratio:
            return
        place, found = self.trainer._atom_model.atom_config.place, balancer.state()
        kind = place.split()[0]  # "layer" or "block"
        if found["steps"] == 0:
            logger.warning(
                f"atom_{place}: no parameter up to this {kind} is trained, so the energy trains only the heads"
            )
        elif found["task_norm"] == 0:
            logger.warning(
                f"atom_{place}: the task loss does not depend on this {kind}, so the relative weight passes nothing of "
                f"the atom loss to the model; choose another {kind}"
            )
