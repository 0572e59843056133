"""Checks every architecture that Transformers registers, and writes the table: python recipes/coverage/run.py

Each is built tiny, trained for two steps with the flag on, saved, loaded plainly and with its heads, and compared (`check.py`).
Workers are processes of their own: an architecture that crashes, hangs or takes too much memory is a row of the table. What was
checked before with the same Transformers is not checked again, unless with --fresh or --only_failed. With --channels it reads
the channels of the architectures in place of that (`channels.py`). It writes `results.jsonl`, and the table in README.md.
"""

import argparse
import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

import transformers
from check import TASKS, architectures
from report import FAILED, HERE, KINDS, NOT_BUILT, PASSED, PASSES, READ, RESULTS, read_results, write_report
from tqdm import tqdm

SECONDS, GIBIBYTES = 120, 12


class Worker:
    """A process that checks one architecture after the other, started anew after a crash."""

    def __init__(self, seconds: int, gibibytes: int):
        self.seconds, self.gibibytes = seconds, gibibytes
        self.process: subprocess.Popen | None = None

    def check(self, task: str, model_type: str, *what: str) -> tuple[str, str]:
        """The outcome of `check.check`, or with "channels" of `channels.read_units_and_space`; or what the process died of."""
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            command = [sys.executable, str(HERE / "worker.py"), str(self.gibibytes)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self.process.stdout.readline()  # it says when it has imported everything
        self.process.stdin.write(json.dumps([task, model_type, *what]) + "\n")
        self.process.stdin.flush()
        timer = threading.Timer(self.seconds, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        late = not timer.is_alive()
        timer.cancel()
        if line:
            outcome, reason = json.loads(line)
            return outcome, reason
        code = self.close()
        return FAILED, f"took more than {self.seconds} s" if late else f"the process died (exit status {code})"

    def close(self) -> int | None:
        """Ends the process. Returns its exit status, None if there is none."""
        if self.process is None:
            return None
        with contextlib.suppress(BrokenPipeError):  # it may be gone already
            self.process.stdin.close()
        self.process.stdout.close()
        code, self.process = self.process.wait(), None
        return code


def check_all(pairs: list[tuple[str, str]], jobs: int, seconds: int, gibibytes: int, channels: bool = False) -> None:
    """Checks (task, model type) pairs, or reads their channels, and adds each to the results as soon as it is known."""
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for pair in pairs:
        todo.put(pair)
    done = {(row["task"], row["model_type"]): row for row in read_results()}
    lock = threading.Lock()

    def work() -> None:
        worker = Worker(seconds, gibibytes)
        while True:
            try:
                task, model_type = todo.get_nowait()
            except queue.Empty:
                break
            outcome, reason = worker.check(task, model_type, *(["channels"] if channels else []))
            name = architectures(task)[model_type]
            with lock:
                before = done.get((task, model_type), {})
                if channels:
                    # What a process died of is in the second place, and both kinds were to be read.
                    read = dict(zip(KINDS, (reason, reason) if outcome == FAILED else (outcome, reason), strict=True))
                    done[task, model_type] = {**before, **read}
                else:
                    row = {
                        "task": task,
                        "model_type": model_type,
                        "architecture": name,
                        "outcome": outcome,
                        "reason": reason,
                        "transformers": transformers.__version__,
                    }
                    done[task, model_type] = {**row, **{kind: before[kind] for kind in KINDS if kind in before}}
                write_results(done)
                bar.update()
                bar.set_postfix(failed=failed(done.values(), channels))
        worker.close()

    with tqdm(total=len(pairs), desc="architectures") as bar:
        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def failed(rows: Iterable[dict[str, Any]], channels: bool) -> int:
    """How many rows did not pass."""
    if channels:
        return sum(any(row[kind] not in (READ, NOT_BUILT) for kind in KINDS) for row in rows if set(KINDS) <= set(row))
    return sum(row["outcome"] not in PASSES for row in rows)


def write_results(done: dict[tuple[str, str], dict[str, Any]]) -> None:
    """All rows in the order of the mappings, at once."""
    order = [(task, kind) for task in TASKS for kind in architectures(task)]
    lines = [json.dumps(done[pair]) + "\n" for pair in order if pair in done]
    temporary = RESULTS.with_suffix(".part")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(RESULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help=", ".join(TASKS)
    )
    parser.add_argument("--models", nargs="+", metavar="TYPE", help="model types, such as bert; all if not given")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="time limit of one architecture")
    parser.add_argument("--gibibytes", type=int, default=GIBIBYTES, help="memory limit of one process")
    parser.add_argument("--fresh", action="store_true", help="check again what was checked before")
    parser.add_argument("--only_failed", action="store_true", help="check again what did not pass")
    parser.add_argument(
        "--channels", action="store_true", help="read the units and the space of what was checked before"
    )
    parser.add_argument("--report_only", action="store_true", help="check nothing")
    given = parser.parse_args()
    current = [row for row in read_results() if row["transformers"] == transformers.__version__]
    known = {(row["task"], row["model_type"]): row["outcome"] for row in current}
    pairs = [
        (task, kind)
        for task in given.tasks
        for kind in architectures(task)
        if given.models is None or kind in given.models
    ]
    if not pairs:
        parser.error("--models: none of these is registered for the tasks")
    if given.channels:
        missing = {(row["task"], row["model_type"]) for row in current if given.fresh or not set(KINDS) <= set(row)}
        if given.only_failed:
            missing = {(row["task"], row["model_type"]) for row in current if failed([row], channels=True)}
        pairs = [pair for pair in pairs if pair in missing]
    elif given.only_failed:
        pairs = [pair for pair in pairs if known.get(pair, PASSED) not in PASSES]
    elif not given.fresh:
        pairs = [pair for pair in pairs if pair not in known]
    if not given.report_only:
        check_all(pairs, given.jobs, given.seconds, given.gibibytes, given.channels)
    print(write_report())


if __name__ == "__main__":
    main()
