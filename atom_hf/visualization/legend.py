"""The meaning of an importance's sign in words: the only place that spells it out."""

PAPER = (
    "As the paper reads it: +1 carries meaning and tells the sample apart;",
    "−1 tells it apart without carrying meaning;",
    "0 carries meaning but does not tell it apart.",
)

FITTED = (
    "Positive: the prediction leans on it;",
    "negative: it speaks against it;",
    "0: the prediction does not need it.",
)


def meaning(fitted: bool = False) -> tuple[str, ...]:
    """Phrases that make one text. `fitted`: the importance was learned from the model's own output."""
    return FITTED if fitted else PAPER
