"""Models with heads, for importance that is fitted to their predictions."""

from atom_hf import AtomConfig, attach_atoms
from atom_hf.explainer.fit import fit_explainer
from helpers.models import TEXT, batch_for, make_tokenizer, tiny


def with_heads(name="bert", **options):
    model = tiny(name, **options)
    return attach_atoms(model, AtomConfig(), make_tokenizer() if name in TEXT else None)


def batches_of(name="bert", count=16, size=8):
    return [batch_for(name, min(size, count - start), start) for start in range(0, count, size)]


def fitted(model, name="bert", **options):
    options = {"copies": 2, "sets": 4, **options}
    return fit_explainer(model, make_tokenizer() if name in TEXT else None, batches_of(name), **options)
