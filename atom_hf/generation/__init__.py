"""Models that make samples, as Transformers models."""
