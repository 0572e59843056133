"""The sizes of an explainer, as `AtomConfig` has them: `explainer_` + classes, width, blocks, layers, strategies, context."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .explainer_head import HEADS, ExplainerHead

if TYPE_CHECKING:
    from .config import AtomConfig

MAX_BLOCKS, MAX_LAYERS, MAX_STRATEGIES = 4, 64, 16

NAMES = ("classes", "width", "blocks", "layers", "strategies", "context")
"""Those after the second are None for an explainer that was fitted before there were attention blocks, several layers, and an
importance for each masking strategy; the last one also for one that mixes its layers."""

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


def check_explainer_sizes(config: AtomConfig, check: Callable[[bool, str, str], None]) -> None:
    """Calls `check(condition, name, what)` for everything that the sizes of an explainer, from an untrusted file, must be."""
    classes, width, blocks, layers, strategies, context = explainer_sizes(config).values()
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
    if not all(given):
        return
    check(_is_whole(blocks) and 0 <= blocks <= MAX_BLOCKS, "explainer_blocks", f"a whole number from 0 to {MAX_BLOCKS}")
    is_list = isinstance(layers, list) and 0 < len(layers) <= MAX_LAYERS and all(map(_is_whole, layers))
    check(is_list, "explainer_layers", f"a list of 1 to {MAX_LAYERS} whole numbers")
    is_list = isinstance(strategies, list) and 0 < len(strategies) <= MAX_STRATEGIES
    are_names = is_list and all(isinstance(name, str) and name.isidentifier() for name in strategies)
    check(are_names, "explainer_strategies", f"a list of 1 to {MAX_STRATEGIES} names")
    check(
        not blocks or width % HEADS == 0, "explainer_width", f"a multiple of {HEADS}, the explainer's attention heads"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
