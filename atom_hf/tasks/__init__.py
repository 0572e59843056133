"""Objectives as equations between models: written, drawn, reasoned about, compiled to a loss, and trained by Trainer.

After *A Pattern Language for Machine Learning Tasks* (arXiv 2407.02424). docs/tasks.md teaches the language.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import TaskArguments
    from .drawing import draw_task
    from .manipulation.config import ManipulatorConfig
    from .manipulation.evaluation import evaluate_manipulator
    from .manipulation.manipulator import Manipulator
    from .manipulation.texts.manipulator import TextManipulator
    from .manipulation.texts.train import manipulate_texts
    from .manipulation.train import manipulate
    from .model import TaskModel
    from .reader import read_task
    from .refinement import Refinement, refines
    from .spec import TaskSpec
    from .trainer import TaskTrainer

# PyTorch and Transformers take seconds to import, and a task can be read, drawn and reasoned about without them.
_HOMES = {
    "Manipulator": "manipulation.manipulator",
    "ManipulatorConfig": "manipulation.config",
    "Refinement": "refinement",
    "TaskSpec": "spec",
    "TaskArguments": "arguments",
    "TaskModel": "model",
    "TaskTrainer": "trainer",
    "TextManipulator": "manipulation.texts.manipulator",
    "draw_task": "drawing",
    "evaluate_manipulator": "manipulation.evaluation",
    "manipulate": "manipulation.train",
    "manipulate_texts": "manipulation.texts.train",
    "read_task": "reader",
    "refines": "refinement",
}

__all__ = [
    "Manipulator",
    "ManipulatorConfig",
    "Refinement",
    "TaskArguments",
    "TaskModel",
    "TaskSpec",
    "TaskTrainer",
    "TextManipulator",
    "draw_task",
    "evaluate_manipulator",
    "manipulate",
    "manipulate_texts",
    "read_task",
    "refines",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
