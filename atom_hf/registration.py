"""Register the pipelines of atom-hf with Transformers, without importing what takes seconds to import."""

import functools
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

TASK = "token-importance"

MANIPULATION = "attribute-manipulation"

PIPELINES = "transformers.pipelines"


class AtomModel:
    """Stands in for the model class in `pipeline`: loads the base with its heads."""

    @classmethod
    def from_pretrained(cls, name_or_folder: str, **kwargs: Any) -> functools.partial:
        """Return the call of `load_atom_model`, which the pipeline makes in its own `__init__`.

        If it were made here, `pipeline` would take any error for a wrong class, and load the plain model instead.
        """
        from .modeling.load import load_atom_model

        kwargs.pop("_from_pipeline", None)
        return functools.partial(load_atom_model, name_or_folder, **kwargs)


class ManipulatorModel:
    """Stands in for the model class in `pipeline`: loads a manipulator."""

    @classmethod
    def from_pretrained(cls, name_or_folder: str, **kwargs: Any) -> functools.partial:
        """Return the call that loads it, which the pipeline makes itself; see `AtomModel`."""
        from .tasks.manipulation.loading import from_pretrained

        kwargs.pop("_from_pipeline", None)
        return functools.partial(from_pretrained, name_or_folder, **kwargs)


def register() -> None:
    """Register the pipelines now, or as soon as Transformers' pipelines are imported."""
    if PIPELINES in sys.modules:
        _add(sys.modules[PIPELINES])
    else:
        sys.meta_path.insert(0, _Watch())


def _add(pipelines: Any) -> None:
    # By class name, as Transformers lists its own: `register_pipeline` would mark it as custom code that `save_pretrained`
    # copies beside the model, which then needs trust_remote_code wherever it is loaded.
    tasks = {
        TASK: (AtomModel, "importance.pipeline.TokenImportancePipeline"),
        MANIPULATION: (ManipulatorModel, "tasks.manipulation.pipeline.AttributeManipulationPipeline"),
    }
    for task, (model, home) in tasks.items():
        pipelines.PIPELINE_REGISTRY.supported_tasks[task] = {
            "impl": f"{__package__}.{home}",
            "pt": (model,),
            "type": "multimodal",
            "default": {},  # none: the user must give a model
        }
    # `pipeline` reads a model's configuration before it imports what runs it.
    for home in ("tasks.manipulation.config", "tasks.manipulation.texts.config"):
        importlib.import_module(f"{__package__}.{home}")


class _Watch(importlib.abc.MetaPathFinder):
    """Import hook: finds Transformers' pipelines as usual, and adds the tasks after the module has run."""

    _is_asking = False

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if name != PIPELINES or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_add(module: Any) -> None:
                run(module)
                _add(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = run_and_add
        return spec
