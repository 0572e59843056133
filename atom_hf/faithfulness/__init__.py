"""Faithfulness of token importance to the model's prediction, beside other attributions.

`atom-hf faithfulness` measures it; `load_metric` gives its metrics as modules of `evaluate`.
"""

from pathlib import Path
from typing import Any

from ..errors import AtomError

MODULES = Path(__file__).parent / "modules"


def load_metric(name: str) -> Any:
    """A metric in the layout of `evaluate`: with `compute`, `description`, `citation` and `inputs_description`.

    `evaluate.load(path)` of a folder in `MODULES` gives the same one. Neither needs the Hub.

    Args:
        name: comprehensiveness, sufficiency, deletion, insertion, infidelity, sensitivity_max, seed_agreement or
            parameter_randomization.

    Raises:
        AtomError: no such metric, or `evaluate` is not installed.
    """
    names = sorted(path.name for path in MODULES.iterdir() if (path / f"{path.name}.py").is_file())
    if name not in names:
        raise AtomError(f"name must be one of {', '.join(names)}; got {name!r}")
    try:
        import evaluate
    except ImportError as error:
        raise AtomError("load_metric needs evaluate: pip install 'atom-hf[faithfulness]'") from error
    return evaluate.load(str(MODULES / name))
