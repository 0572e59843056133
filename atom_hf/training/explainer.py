"""`trainer.fit_explainer()`: fit an explainer to the predictions of the trained model."""

from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from transformers.trainer_utils import has_length

from ..errors import AtomError
from ..explainer.fit import SAMPLES, ExplainerFit, fit_explainer
from .random_state import keeping_generators, keeping_random_state


class ExplainerMixin:
    """Part of `AtomTrainerMixin`."""

    def fit_explainer(self, samples: int = SAMPLES, **options: Any) -> ExplainerFit:
        """Fit the importance of tokens to the predictions of the trained model, on samples of the training data.

        Call it after `train` and before `save_model`. The model and its charges do not change. Options are those of
        `atom_hf.explainer.fit.fit_explainer`. With several processes each runs a share of the samples.

        Raises:
            AtomError: `atom` is off, the model is sharded or not a classifier, the training data are a stream.
        """
        if not self._atom_on:
            raise AtomError("atom: with the flag off there are no heads to fit an explainer for")
        model = self._atom_unwrapped
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise AtomError(
                "an explainer is fitted on whole models: save this one, and run atom-hf fit-explainer on one process"
            )
        if self.train_dataset is None:
            raise AtomError("train_dataset: none was given, and the explainer is fitted on samples of it")
        if not has_length(self.train_dataset):
            raise AtomError(
                "train_dataset: the explainer is fitted on samples drawn at random, and this one is a stream"
            )
        drawn = torch.randperm(len(self.train_dataset), generator=torch.Generator().manual_seed(self.args.seed))
        drawn = drawn[:samples].tolist()
        select = getattr(self.train_dataset, "select", None)
        rows = Subset(self.train_dataset, drawn) if select is None else select(drawn)
        with keeping_random_state(self.args.device), keeping_generators(self.data_collator):
            loader = self._atom_loader(rows)
            return fit_explainer(model, self.processing_class, loader, samples=samples, seed=self.args.seed, **options)

    def _atom_loader(self, rows: Any) -> DataLoader:
        """A DataLoader over exactly these rows, the last batch included."""
        before, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            # Not the evaluation loader: with persistent workers Trainer keeps it for the evaluation data.
            return self.get_test_dataloader(rows)
        finally:
            self.args.dataloader_drop_last = before
