"""One arm of a measurement."""

from atom_hf import AtomTrainer
from atom_hf.benchmark.steps import Arm
from helpers.models import collator_for, rows_for, tiny
from helpers.training import arguments


def arm(folder, name="bert", atom=True, **options):
    args = arguments(folder, atom=atom, max_steps=100, logging_strategy="no", **options)
    return Arm(AtomTrainer(tiny(name), args, train_dataset=rows_for(name), data_collator=collator_for(name)))
