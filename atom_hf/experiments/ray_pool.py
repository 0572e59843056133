"""Tasks on Ray: started on this machine, or a cluster; run again if they fail in a way that may pass."""

import contextlib
import io
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import joblib

from ..errors import AtomError, UnfinishedError
from .ray_arguments import HERE, RayArguments, error_in
from .ray_nodes import check_nodes, gpus_of_a_run

TRIES = 3

_STORE_BYTES = 80_000_000  # about the least that Ray takes: what a task returns is small


class Outcome(NamedTuple):
    """What became of a task: its result, or why it has none."""

    result: Any = None
    failure: str | None = None
    may_pass: bool = False
    """Whether another try may succeed."""


class Call(NamedTuple):
    """A function of a module, which returns an `Outcome`, and its arguments, which are plain values."""

    function: Callable[..., Outcome]
    arguments: tuple
    use_cpu: bool = False
    """Whether it leaves GPUs alone."""


class RayPool:
    """Tasks of `cpus` cores and `gpus` GPUs each, on the Ray that this process is connected to."""

    def __init__(self, cpus: int, gpus: float):
        self.cpus, self.gpus = cpus, gpus
        self._functions: dict[Callable, Any] = {}

    def submit(self, call: Call) -> Any:
        """Hands a call to Ray, which runs it when there is room. Returns a handle."""
        import ray

        if call.function not in self._functions:
            # Tries are counted in `finished`, which tells of each. Ray's own are silent, and endless where memory is short.
            self._functions[call.function] = ray.remote(max_retries=0)(call.function)
        room = {"num_cpus": self.cpus, "num_gpus": 0 if call.use_cpu else self.gpus}
        return self._functions[call.function].options(**room).remote(*call.arguments)

    def next(self, handles: list[Any]) -> tuple[Any, Outcome]:
        """Waits for one of the tasks. Returns its handle and its outcome.

        Raises `UnfinishedError` if Ray itself has ended on this machine.
        """
        import ray

        (handle,), _ = ray.wait(handles, num_returns=1)
        try:
            return handle, ray.get(handle)
        except ray.exceptions.LocalRayletDiedError as error:
            raise UnfinishedError(
                "Ray has ended on this machine; the same command resumes after the last finished run"
            ) from error
        except Exception as error:  # Ray's own: those of the function are in its outcome
            return handle, Outcome(failure=_why(error), may_pass=True)


def finished(
    pool: RayPool, calls: Mapping[Any, Call], tell: Callable[[Any, str], None]
) -> Iterator[tuple[Any, Outcome]]:
    """Runs all calls, and yields the key of each and its outcome as they end.

    One that fails in a way that may pass is run again, up to `TRIES` times in all: `tell` is told why, each time.
    """
    waiting = {pool.submit(call): (key, 1) for key, call in calls.items()}
    while waiting:
        handle, outcome = pool.next(list(waiting))
        key, tries = waiting.pop(handle)
        if outcome.failure is not None and outcome.may_pass and tries < TRIES:
            tell(key, f"{outcome.failure}; it is run again (try {tries + 1} of {TRIES})")
            waiting[pool.submit(calls[key])] = key, tries + 1
        else:
            yield key, outcome


@contextmanager
def ray_started(options: RayArguments) -> Iterator[RayPool]:
    """Context manager: Ray on this machine or a cluster, as `--ray` says. At its end whatever still runs there is stopped.

    Meanwhile SIGTERM does what Ctrl-C does, so that no worker outlives this process.

    Raises:
        AtomError: nobody answers at the address, Ray cannot be started, or `check_nodes` finds something wrong.
    """
    import ray

    is_local, cpus = options.ray == HERE, options.ray_cpus or 1
    given = "--ray" if is_local else f"--ray {options.ray!r}"
    if not is_local:
        options.check_connection()
    if ray.is_initialized():
        raise AtomError(f"{given}: this process is connected to Ray already; call ray.shutdown() first")
    where: dict[str, Any] = {"address": options.ray}
    # The second hides the GPUs from tasks that ask for none.
    variables = {"OMP_NUM_THREADS": str(cpus), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    with ExitStack() as stack:
        # Ray prints there what befell a worker, of which there is one line of our own.
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if is_local:
            # In /tmp whatever TMPDIR says, since the paths of sockets must be short.
            folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            variables["TMPDIR"] = folder  # so that what a killed worker leaves is removed too
            # Ray itself counts cores that this process may not use.
            where |= {"num_cpus": joblib.cpu_count(), "object_store_memory": _STORE_BYTES}
            where |= {"include_dashboard": False, "_temp_dir": folder}
        stack.enter_context(_restoring_sigterm())
        stack.callback(ray.shutdown)
        try:
            quietly = {"logging_level": logging.CRITICAL, "log_to_driver": False}
            ray.init(**where, **quietly, runtime_env={"env_vars": variables})
        except Exception as error:
            why = f"{error_in(str(error))}; if this machine is very busy, try again later"  # Ray waits half a minute
            raise AtomError(f"{given}: Ray cannot be {'started' if is_local else 'reached'}: {why}") from error
        _take_sigterm()
        gpus = gpus_of_a_run(options.ray_gpus)
        check_nodes(given, cpus, gpus, may_grow=not is_local)
        yield RayPool(cpus, gpus)


def _why(error: Exception) -> str:
    """Why Ray has no result of a task."""
    from ray import exceptions

    for kind, why in (
        (exceptions.OutOfMemoryError, "its machine ran out of memory, and Ray stopped its process"),
        (exceptions.WorkerCrashedError, "its process was killed, or crashed"),
        (exceptions.NodeDiedError, "its machine has left the cluster"),
        (exceptions.ObjectLostError, "its machine has left the cluster with its result"),
    ):
        if isinstance(error, kind):
            return why
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {error_in(str(cause))}"


@contextmanager
def _restoring_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _take_sigterm() -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
