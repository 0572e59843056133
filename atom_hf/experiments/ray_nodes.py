"""The machines of a Ray cluster: which of them can take a run, and whether they have what this process has."""

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import AtomError
from ..utils.terminal import get_logger
from ..version import __version__
from .ray_arguments import error_in

logger = get_logger(__name__)

# What results depend on; Ray itself insists on one version of Python and of Ray.
_PACKAGES = ("torch", "transformers", "datasets", "scikit-learn")

_START_SECONDS = 180  # in which every node must start a process


@cache
def installed() -> dict[str, str]:
    """The version of each package that results depend on; of this one, a hash of its code too."""
    folder, code = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        code.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    # What follows a plus sign is how a package was built, such as for the CPU.
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in _PACKAGES}
    return {"atom-hf": f"{__version__} (code {code.hexdigest()[:8]})", **versions}


def differing(here: dict[str, str], there: dict[str, str]) -> str | None:
    """What differs between two of `installed`, in words; None if nothing does."""
    names = [name for name in here if here[name] != there.get(name)]
    return ", ".join(f"{name} is {there.get(name)} there and {here[name]} here" for name in names) or None


def gpus_of_a_run(asked: float | None) -> float:
    """What `--ray_gpus` asks for; by default 1 if there are any."""
    if asked is not None:
        return asked
    return float(any(_count(node, "GPU") >= 1 for node in _alive()))


def check_nodes(given: str, cpus: int, gpus: float, *, may_grow: bool) -> None:
    """Raises `AtomError` if no machine is large enough for a run, or one that is has other versions than this process.

    Where the cluster `may_grow`, too small a one is only warned of.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _alive()
    able = [node for node in nodes if _count(node, "CPU") >= cpus and _count(node, "GPU") >= gpus]
    if not able:
        most = " and ".join(f"{max(_count(node, kind) for node in nodes):g} {kind}s" for kind in ("CPU", "GPU"))
        lacks = f"no machine has the {cpus} CPUs and {gpus:g} GPUs of a run; the most on one are {most}"
        if not may_grow:
            raise AtomError(f"{given}: {lacks}; give --ray_cpus and --ray_gpus that fit")
        logger.warning("%s: %s; the runs wait for one to join", given, lacks)
    task = ray.remote(num_cpus=0, max_retries=0)(installed_there)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in able
    }
    _, late = ray.wait(list(asked), num_returns=len(asked), timeout=_START_SECONDS) if asked else ([], [])
    for handle, node in asked.items():
        name = f"{given}: the machine {node['NodeManagerHostname']}"
        if handle in late:
            raise AtomError(f"{name} has not started a process in {_START_SECONDS} s")
        try:
            other = differing(installed(), ray.get(handle))
        except Exception as error:  # of whatever kind: what is pickled there is not to be trusted to be ours
            why = getattr(error, "cause", None) or error
            raise AtomError(f"{name} cannot run atom-hf ({error_in(str(why))}); install {_listed()} there") from error
        if other:
            raise AtomError(f"{name} has other versions: {other}; install the same on both")


def installed_there() -> dict[str, str]:
    """`installed`, as the function of a task: Ray cannot send what is cached."""
    return installed()


def _listed() -> str:
    return ", ".join(f"{name} {version}" for name, version in installed().items())


def _count(node: dict[str, Any], kind: str) -> float:
    return node["Resources"].get(kind, 0)


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
