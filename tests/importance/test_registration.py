"""The task is there after `import atom_hf`, whatever is imported first, and that import stays light."""

import subprocess
import sys

FIRST = """
import sys
import atom_hf
assert not {"torch", "transformers", "numpy", "rich"} & set(sys.modules), sorted(sys.modules)
watches = [finder for finder in sys.meta_path if type(finder).__module__ == "atom_hf.registration"]
assert len(watches) == 1
import importlib.util
assert importlib.util.find_spec("json") and importlib.util.find_spec("transformers.pipelines")
from transformers.pipelines import PIPELINE_REGISTRY, check_task
assert "token-importance" in PIPELINE_REGISTRY.get_supported_tasks()
assert not set(watches) & set(sys.meta_path)
assert check_task("token-importance")[1]["impl"] == "atom_hf.importance.pipeline.TokenImportancePipeline"
assert "text-classification" in PIPELINE_REGISTRY.get_supported_tasks()
assert "atom_hf.importance.pipeline" not in sys.modules
"""


def test_importing_atom_hf_first():
    run = subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", FIRST], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_importing_transformers_first():
    from transformers.pipelines import PIPELINE_REGISTRY

    from atom_hf.registration import TASK, register

    PIPELINE_REGISTRY.supported_tasks.pop(TASK)
    before = list(sys.meta_path)
    register()
    register()
    assert sys.meta_path == before and TASK in PIPELINE_REGISTRY.get_supported_tasks()
