"""What `AtomConfig` says of an explainer: `explainer_` + classes, width, blocks, layers, strategies, context, explained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .explainer_head import HEADS, ExplainerHead

if TYPE_CHECKING:
    from .config import AtomConfig

MAX_BLOCKS, MAX_LAYERS, MAX_STRATEGIES = 4, 64, 16

ROUGH = 0.1
"""An explainer that explains less than this share of held-out samples is a rough guide, and says so."""

NAMES = ("classes", "width", "blocks", "layers", "strategies", "context", "explained")
"""Those after the second are None for an explainer that was fitted before there were attention blocks, several layers, and an
importance for each masking strategy; the context also for one that mixes its layers, and what it explains for one that was
fitted before that was kept."""

NO_EXPLAINER = {f"explainer_{name}": None for name in NAMES}


def explainer_sizes(config: AtomConfig) -> dict[str, Any]:
    """The fields of a configuration that describe the explainer."""
    return {name: getattr(config, name) for name in NO_EXPLAINER}


def make_explainer(config: AtomConfig, hidden_size: int) -> ExplainerHead:
    """An untrained explainer of the sizes that a configuration describes, for tokens of width `hidden_size`."""
    return ExplainerHead(
        hidden_size,
        config.explainer_classes,
        config.explainer_width,
        layers=len(config.explainer_layers or [config.layer]),
        blocks=config.explainer_blocks or 0,
        strategies=len(config.explainer_strategies or []),
        context=bool(config.explainer_context),
    )


def explainer_quality(config: AtomConfig) -> str:
    """How much of what masking changes a model's explainer explains, in a sentence; empty where that is not known."""
    explained = config.explainer_explained
    if not explained:
        return ""
    shares = [
        f"{max(0.0, share):.0%} ({name})" for name, share in zip(config.explainer_strategies, explained, strict=True)
    ]
    rough = "; take it for a rough guide" if max(explained) < ROUGH else ""
    told = f"The importance explains {' and '.join(shares)} of what masking tokens of held-out samples changes"
    return f"{told}, beyond equal parts{rough}."


def check_explainer_sizes(config: AtomConfig, check: Callable[[bool, str, str], None]) -> None:
    """Calls `check(condition, name, what)` for everything that the sizes of an explainer, from an untrusted file, must be."""
    classes, width, blocks, layers, strategies, context, explained = explainer_sizes(config).values()
    for name, size in (("explainer_classes", classes), ("explainer_width", width)):
        check(size is None or (_is_whole(size) and size > 0), name, "a whole number above 0")
    check(
        (classes is None) == (width is None),
        "explainer_classes",
        "given together with explainer_width, or neither of them",
    )
    given = [value is not None for value in (blocks, layers, strategies)]
    check(
        (all(given) and classes is not None) or not any(given),
        "explainer_strategies",
        "given together with all other sizes of the explainer, or none of explainer_blocks, _layers and _strategies",
    )
    check(context is None or (context is True and all(given)), "explainer_context", "true, or null")
    check(explained is None or all(given), "explainer_explained", "null where there is no explainer")
    if not all(given):
        return
    check(_is_whole(blocks) and 0 <= blocks <= MAX_BLOCKS, "explainer_blocks", f"a whole number from 0 to {MAX_BLOCKS}")
    is_list = isinstance(layers, list) and 0 < len(layers) <= MAX_LAYERS and all(map(_is_whole, layers))
    check(is_list, "explainer_layers", f"a list of 1 to {MAX_LAYERS} whole numbers")
    is_list = isinstance(strategies, list) and 0 < len(strategies) <= MAX_STRATEGIES
    are_names = is_list and all(isinstance(name, str) and name.isidentifier() for name in strategies)
    check(are_names, "explainer_strategies", f"a list of 1 to {MAX_STRATEGIES} names")
    is_list = isinstance(explained, list) and len(explained) == len(strategies) and all(map(_is_share, explained))
    check(explained is None or is_list, "explainer_explained", "a number of at most 1 for each masking strategy")
    check(
        not blocks or width % HEADS == 0, "explainer_width", f"a multiple of {HEADS}, the explainer's attention heads"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    # Compared, not converted: an int may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -sys.float_info.max <= value <= 1
