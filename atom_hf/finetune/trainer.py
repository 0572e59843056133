"""A trainer that loads checkpoints whose weights have other names than in memory."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from ..modeling.heads_file import check_index
from ..training.trainer import AtomTrainer


class RenamedWeightsTrainer(AtomTrainer):
    """AtomTrainer, for runs from the command line; `saving.RunTrainer` adds how they save.

    Without the flag, Transformers saves some models (ViT, for one) under other names than their parameters have in memory.
    Trainer loads a checkpoint by the names in memory, and skips what it does not find, with only a warning: a run that is
    resumed, or ends with its best model, would continue from new weights. Such a checkpoint is loaded as a model is.

    (With the flag, checkpoints are saved under the names in memory.)
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        if not self._load_renamed(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_best_model(self) -> None:
        if not self._load_renamed(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_renamed(self, checkpoint: str) -> bool:
        """Loads a checkpoint whose weights have other names than the model's. Returns whether it is one."""
        model = self.model
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self._atom_on or is_sharded or not isinstance(model, PreTrainedModel):
            return False
        if _names(checkpoint) <= set(model.state_dict()):
            return False
        saved = type(model).from_pretrained(checkpoint, use_safetensors=True, trust_remote_code=False)
        model.load_state_dict(saved.state_dict())
        return True


def _names(checkpoint: str) -> set[str]:
    """The names of the weights of a checkpoint; none of one that Trainer itself is left to judge."""
    file = Path(checkpoint, SAFE_WEIGHTS_NAME)
    if not file.is_file():
        return set(check_index(checkpoint))
    try:
        with safe_open(file, framework="pt") as tensors:
            return set(tensors.keys())
    except (OSError, SafetensorError):
        return set()
