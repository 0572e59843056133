"""What an importance's sign and the measures of channels mean, in words: the only place that spells it out."""

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


MEASURES = (
    "Information: how well a channel tells the data points apart; a lower bound, at most log2 of their number.",
    "Shared bits (S): an estimate of what two channels both tell; neither a bound of it.",
    "NMI: shared bits by those that each channel shares with a second message of its own; 1 for the same information, about 0 "
    "for none, and above 1 at times.",
    "VI: the bits that only one of the two tells; no metric.",
    "Chance: the NMI of the same channels when the points of each are permuted independently; adjusted NMI is 0 there.",
)


def meaning(fitted: bool = False) -> tuple[str, ...]:
    """Phrases that make one text. `fitted`: the importance was learned from the model's own output."""
    return FITTED if fitted else PAPER
