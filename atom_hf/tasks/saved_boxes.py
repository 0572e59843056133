"""A learner of a task that has been trained, as a box of another task: `runs/task-supervised:f`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import AtomError, first_line
from ..utils.files import complete, read_json
from .reader import read_task
from .spec import Box, TaskSpec

TASK_NAME, WEIGHTS_NAME, BINDINGS_NAME = "task.task", "model.safetensors", "bindings.json"
"""Of the folder that a trained task is saved to."""

_MOST_BYTES = 2**20


def is_saved_box(text: str) -> bool:
    """Whether a text is the folder of a trained task, with the name of one of its learners behind a colon."""
    found = re.fullmatch(r"(.+):(\w+)", text)
    return found is not None and (Path(found[1]).expanduser() / TASK_NAME).is_file()


def bindings_text(data: object, bind: dict[str, str]) -> str:
    """What `bindings.json` holds: what the data sources and the boxes of a trained task were."""
    return json.dumps({"data": data, "bind": bind}, indent=1, default=str) + "\n"


def saved_learner(text: str, where: str | None = None) -> Box:
    """The learner of a trained task that a text names.

    Args:
        where: begins the error.

    Raises:
        AtomError: the folder is damaged, or has no such learner.
    """
    folder, _, name = text.rpartition(":")
    path = Path(folder).expanduser()
    complete(path)
    spec: TaskSpec = read_task(path / TASK_NAME)
    if name not in spec.learners:
        raise AtomError(f"{where or text}: the task there has no learner {name}; it has {', '.join(spec.learners)}")
    return spec.learners[name]


def saved_network(text: str, where: str | None = None) -> str:
    """What the trained learner that a text names was bound to, such as `mlp(64)`.

    Args:
        where: begins the error.

    Raises:
        AtomError: the folder does not say.
    """
    folder, _, name = text.rpartition(":")
    path = Path(folder).expanduser() / BINDINGS_NAME
    bound = read_json(path, _MOST_BYTES, "list of bindings").get("bind", {}).get(name)
    if not isinstance(bound, str) or is_saved_box(bound):
        raise AtomError(f"{where or text}: {path} does not say what {name} was made of; train the task by atom-hf task")
    return bound


def load_saved_box(box: Box, text: str, make: Callable[[Box, str], nn.Module]) -> nn.Module:
    """The trained learner that a text names, for a box of the same kinds.

    Args:
        make: makes the untrained module of a learner from the text that it was bound to.

    Raises:
        AtomError: the folder is damaged, has no such learner, or one of other kinds.
    """
    folder, _, name = text.rpartition(":")
    path = Path(folder).expanduser()
    where = f"{box.role} {box.name}: {text}"
    learner = saved_learner(text, where)
    kinds = [[[wire.kind for wire in wires] for wires in (one.inputs, one.outputs)] for one in (learner, box)]
    if kinds[0] != kinds[1]:
        shown = [" -> ".join(", ".join(map(str, side)) for side in sides) for sides in kinds]
        raise AtomError(f"{where}: {name} is {shown[0]} there, and {box.name} is {shown[1]}")
    module = make(learner, saved_network(text, where))
    try:
        state = load_file(path / WEIGHTS_NAME)
        own = {
            key.removeprefix(f"boxes.{name}."): value
            for key, value in state.items()
            if key.startswith(f"boxes.{name}.")
        }
        module.load_state_dict(own)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise AtomError(f"{where}: {path / WEIGHTS_NAME} does not hold {name}: {first_line(error)}") from error
    return module
