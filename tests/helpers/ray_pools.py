"""What stands in for Ray where only what is done with its outcomes is tested; and functions that its workers run."""

import contextlib
import os
import pickle
import signal
import time
from pathlib import Path

import torch

from atom_hf.experiments.ray_arguments import RayArguments
from atom_hf.experiments.ray_pool import Outcome
from atom_hf.experiments.study_run import Measured

KILLED = "its process was killed, or crashed"


class FakePool:
    """Runs the calls in this process, the last first; what is handed over is pickled, as it is to another process.

    Of the runs whose titles are in `lost`, as many tries as it says come to nothing. After `most` calls Ctrl-C is pressed.
    """

    def __init__(self, lost=(), most=None):
        self.cpus, self.gpus, self.lost, self.most = 1, 0.0, dict(lost), most
        self.calls, self.before_each = [], []

    def submit(self, call):
        self.calls.append(call)
        return len(self.calls) - 1

    def next(self, handles):
        if self.most is not None and len(self.before_each) >= self.most:
            raise KeyboardInterrupt
        self.before_each.append(sum(len(file.read_text().splitlines()) for file in Path().glob("**/results.jsonl")))
        handle = handles[-1]
        function, arguments, _ = pickle.loads(pickle.dumps(self.calls[handle]))
        title = arguments[1].title
        if self.lost.get(title):
            self.lost[title] -= 1
            return handle, Outcome(failure=KILLED, may_pass=True)
        return handle, function(*arguments)


@contextlib.contextmanager
def fake_ray(monkeypatch, pool):
    """Context manager: `--ray` uses this pool."""
    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(RayArguments, "check", lambda self: None)  # Ray need not be installed
        patch.setattr("atom_hf.experiments.study.ray_started", lambda options: contextlib.nullcontext(pool))
        yield pool
    torch.set_num_threads(threads)


def measured_at_once(job, *_):
    """In place of `run_job`, where what a run finds does not count."""
    return Measured({"accuracy": 0.5 + job.seed / 10, "loss": 1 + job.seed + (job.arm == "atom"), "seconds": 1.0}, None)


def without_training(monkeypatch):
    """No run of a study is trained, here or in a pool."""
    monkeypatch.setattr("atom_hf.experiments.study.check_job", lambda *_: None)
    for module in ("study", "study_tasks"):
        monkeypatch.setattr(f"atom_hf.experiments.{module}.run_job", measured_at_once)


def answer(value):
    """A task that returns at once, where it ran and with what."""
    shown = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TMPDIR")}
    return Outcome((value, os.getpid(), shown))


def meet(value, folder, count):
    """A task that returns when so many of it have begun."""
    Path(folder, str(value)).touch()
    end = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < count:
        if time.monotonic() > end:
            return Outcome(failure="nobody else came")
        time.sleep(0.1)
    return answer(value)


def die_once(file):
    """A task whose process is killed the first time."""
    if not Path(file).exists():
        Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome("alive")


def die():
    """A task whose process is killed each time."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    """A task that fails as no outcome says."""
    raise RuntimeError("no outcome\nand advice")
