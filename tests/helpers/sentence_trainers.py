"""The trainer of sentence-transformers with the flag, and tiny models for it."""

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from atom_hf import AtomArguments, AtomTrainerMixin


class Arguments(AtomArguments, SentenceTransformerTrainingArguments):
    pass


class AtomSentenceTransformerTrainer(AtomTrainerMixin, SentenceTransformerTrainer):
    pass


def sentences(folder):
    transformer = Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
