"""Makes the pipeline "token-importance" known to Transformers, without importing what takes seconds to import."""

import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

TASK = "token-importance"

PIPELINES = "transformers.pipelines"


class AtomModel:
    """What `pipeline` takes for the class of the model: it loads the base with its heads."""

    @classmethod
    def from_pretrained(cls, name_or_folder: str, **kwargs: Any) -> functools.partial:
        """The call of `load_atom_model` that the pipeline makes when it is made itself.

        Were it made here, `pipeline` would take whatever is refused for a wrong class, and go on to the plain model.
        """
        from .modeling.load import load_atom_model

        kwargs.pop("_from_pipeline", None)
        return functools.partial(load_atom_model, name_or_folder, **kwargs)


def register() -> None:
    """Registers the pipeline now, or as soon as Transformers' pipelines are imported."""
    if PIPELINES in sys.modules:
        _add(sys.modules[PIPELINES])
    else:
        sys.meta_path.insert(0, _Watch())


def _add(pipelines: Any) -> None:
    # By the name of its class, as Transformers lists its own: `register_pipeline` would mark it as code that `save_pretrained`
    # copies beside the model, which then asks for trust_remote_code wherever it is loaded.
    pipelines.PIPELINE_REGISTRY.supported_tasks[TASK] = {
        "impl": f"{__package__}.importance.pipeline.TokenImportancePipeline",
        "pt": (AtomModel,),
        "type": "multimodal",
        "default": {},  # none: a model has to be given
    }


class _Watch(importlib.abc.MetaPathFinder):
    """Finds Transformers' pipelines as they would have been found, and has the task added when they have run."""

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
