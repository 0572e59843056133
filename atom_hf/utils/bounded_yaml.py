"""Read untrusted YAML within bounds, so that neither aliases nor nesting fill the memory."""

from typing import Any

import yaml

_YAML_NODES, _YAML_DEPTH = 100_000, 64


def parse_yaml(text: str) -> Any:
    """The content of YAML text, whose aliases may repeat things, but not expand to more than any settings hold.

    Raises:
        ValueError, RecursionError, yaml.YAMLError: it is not YAML, is nested too deeply, or expands to too much.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure_yaml(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure_yaml(root: yaml.Node) -> None:
    """Raise `ValueError` for nodes that are too many with their aliases expanded, or nested too deeply."""
    measured: dict[int, tuple[int, int]] = {}  # (nodes, depth); (0, 0) while it is being measured
    stack = [root]
    while stack:
        node = stack[-1]
        value = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in value for part in (pair if isinstance(pair, tuple) else (pair,))]
        if id(node) not in measured:
            measured[id(node)] = (0, 0)
            stack += [part for part in inner if id(part) not in measured]
            continue
        stack.pop()
        parts = [measured[id(part)] for part in inner]
        if (0, 0) in parts:
            raise ValueError("an alias holds itself")
        nodes, depth = 1 + sum(n for n, _ in parts), 1 + max((d for _, d in parts), default=0)
        if nodes > _YAML_NODES or depth > _YAML_DEPTH:
            raise ValueError(
                f"it is nested more than {_YAML_DEPTH} deep, or expands to more than {_YAML_NODES} values with its aliases"
            )
        measured[id(node)] = nodes, depth
