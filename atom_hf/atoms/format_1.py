"""Format 1 of a model's `atom_config.json` and heads: old names of the explainer's fields, and the defaults of that time.

Only this module knows the old names. A model of format 1 keeps the form of energy that it was trained with: a field that its
file leaves out has the default of that time, whatever the default is now.
"""

from typing import Any

VERSION = 1
FIELDS = {"tied_classes": "explainer_classes", "tied_width": "explainer_width"}
TENSORS = {"tied.": "explainer."}
DEFAULTS = {
    "weight": 0.1,
    "weighting": "relative",
    "layer": -2,
    "tokens": "content",
    "side": "encoder",
    "token_reduction": "mean",
    "softening": 0.1,
    "energy_weight": 1.0,
    "neutrality": 1.0,
    "charge_floor": 0.5,
    "charge_floor_weight": 10.0,
    "warmup_ratio": 0.0,
    "schedule": "linear",
    "head_learning_rate": 1e-3,
    "importance_std": 1.5,
    "position_init": "random",
}
# What format 1 had no field for: the one form that there was.
FORM = {"form": "paper", "distance": "absolute", "charges": "learned", "positions": "learned", "net_charge": 0.0}
OTHERS = ("hidden_size", "special_token_ids", "base_model_class", *FIELDS)


def upgrade_config(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration of format 1 under today's names. Fields that format 1 did not know stay as they are."""
    return {**DEFAULTS, **FORM, **{FIELDS.get(name, name): value for name, value in data.items()}}


def upgrade_tensor(name: str) -> str:
    """Today's name of a tensor of the heads."""
    for old, new in TENSORS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
