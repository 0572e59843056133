"""The two forms of the energy, by the fields of `AtomConfig` that they set, and the rules of which tokens form an atom."""

TOKEN_RULES = {
    "read": "what the model's output layer reads: [CLS], a pooled output, the last token, or every token",
    "content": "padding, special tokens and a vision model's [CLS] or register tokens are left out",
    "all": "everything but padding",
}

# What the two forms of the energy differ in. A field that is not given has the value of the form.
FORMS = {
    "paper": {
        "weight": 0.1,
        "weighting": "relative",
        "tokens": "content",
        "distance": "absolute",
        "charges": "learned",
        "positions": "learned",
    },
    "separation": {
        "weight": 0.5,
        "weighting": "absolute",
        "tokens": "read",
        "distance": "relative",
        "charges": "fixed",
        "positions": "tokens",
    },
}
