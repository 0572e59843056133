"""Tasks on Ray: what is done about those that fail, and a Ray of two workers on this machine."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from atom_hf import AtomError
from atom_hf.experiments import ray_nodes, ray_pool
from atom_hf.experiments.ray_arguments import RayArguments
from atom_hf.experiments.ray_nodes import check_nodes, gpus_of_a_run, installed
from atom_hf.experiments.ray_pool import Call, Outcome, finished, ray_started
from helpers.paths import environment
from helpers.ray_pools import KILLED, answer, die, die_once, fail, meet


class Script:
    """A pool whose outcomes are given: for each argument a list, one a try."""

    def __init__(self, outcomes):
        self.outcomes, self.submitted = outcomes, []

    def submit(self, call):
        self.submitted.append(call.arguments[0])
        return len(self.submitted) - 1

    def next(self, handles):
        return handles[0], self.outcomes[self.submitted[handles[0]]].pop(0)


GOOD, LOST, WRONG = Outcome(result=1), Outcome(failure="lost", may_pass=True), Outcome(failure="wrong")


@pytest.mark.parametrize(
    ("outcomes", "end", "told"),
    [
        ([GOOD], GOOD, []),
        ([WRONG], WRONG, []),
        ([LOST, GOOD], GOOD, ["lost; it is run again (try 2 of 3)"]),
        ([LOST, LOST, GOOD], GOOD, [f"lost; it is run again (try {n} of 3)" for n in (2, 3)]),
        ([LOST, LOST, LOST, GOOD], LOST, [f"lost; it is run again (try {n} of 3)" for n in (2, 3)]),
        ([LOST, WRONG], WRONG, ["lost; it is run again (try 2 of 3)"]),
    ],
)
def test_what_may_pass_is_tried_three_times(outcomes, end, told):
    pool, said = Script({"it": outcomes, "other": [GOOD]}), []
    calls = {name: Call(answer, (name,)) for name in ("it", "other")}
    found = dict(finished(pool, calls, lambda key, what: said.append((key, what))))
    assert found == {"it": end, "other": GOOD} and said == [("it", what) for what in told]
    # Behind the others, which wait already.
    assert pool.submitted == ["it", "other", *["it"] * len(told)]


def test_nothing_to_do_is_done_at_once():
    assert list(finished(Script({}), {}, print)) == []


# A Ray of this machine


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two workers, which import the helpers."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_pool.joblib, "cpu_count", lambda: 2)
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        before = signal.getsignal(signal.SIGTERM)
        with ray_started(RayArguments("local", None, 0.0)) as pool:
            folder = Path(next(finished(pool, {0: Call(answer, (0,))}, print))[1].result[2]["TMPDIR"])
            processes = psutil.Process().children(recursive=True)
            assert folder.is_dir() and len(processes) > 2
            yield pool
        assert not folder.exists() and signal.getsignal(signal.SIGTERM) is before
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive


@pytest.mark.slow
def test_two_workers_run_at_once_on_one_thread_each_and_no_gpu(pool, tmp_path):
    found = dict(finished(pool, {n: Call(meet, (n, str(tmp_path), 2), use_cpu=True) for n in range(2)}, print))
    assert [found[n].result[0] for n in range(2)] == [0, 1]
    processes = {outcome.result[1] for outcome in found.values()}
    assert len(processes) == 2 and os.getpid() not in processes
    for outcome in found.values():
        shown = outcome.result[2]
        assert (shown["OMP_NUM_THREADS"], shown["CUDA_VISIBLE_DEVICES"]) == ("1", "")


@pytest.mark.slow
@pytest.mark.promise("A run of a study on Ray whose process is killed is run again, and costs no other run.")
def test_a_worker_that_is_killed_costs_no_other_task(pool, tmp_path):
    said = []
    calls = {
        "once": Call(die_once, (str(tmp_path / "died"),)),
        "always": Call(die, ()),
        "fails": Call(fail, ()),
        **{n: Call(answer, (n,)) for n in range(3)},
    }
    found = dict(finished(pool, calls, lambda key, what: said.append((key, what))))
    assert found["once"] == Outcome("alive") and found["always"] == Outcome(failure=KILLED, may_pass=True)
    assert found["fails"].failure == "RuntimeError: no outcome and advice"
    assert all(found[n].result[0] == n for n in range(3))
    assert said.count(("once", f"{KILLED}; it is run again (try 2 of 3)")) == 1
    assert [what[-12:] for key, what in said if key == "always"] == ["(try 2 of 3)", "(try 3 of 3)"]


@pytest.mark.slow
def test_a_run_that_fits_nowhere_is_rejected_or_waits(pool, caplog):
    says = "no machine has the 64 CPUs and 0 GPUs of a run; the most on one are 2 CPUs and "
    with pytest.raises(AtomError, match=f"--ray: {says}.*; give --ray_cpus and --ray_gpus that fit"):
        check_nodes("--ray", 64, 0, may_grow=False)
    check_nodes("--ray 'host:1'", 64, 0, may_grow=True)
    assert says in caplog.text and "the runs wait for one to join" in caplog.text
    assert gpus_of_a_run(0.25) == 0.25 and gpus_of_a_run(None) in (0, 1)


@pytest.mark.slow
def test_a_machine_with_other_versions_is_rejected(pool, monkeypatch):
    check_nodes("--ray", 1, 0, may_grow=False)
    here = installed()
    monkeypatch.setattr(ray_nodes, "installed", lambda: {**here, "torch": "1.0"})
    with pytest.raises(AtomError, match=f"has other versions: torch is {here['torch']} there and 1.0 here; install"):
        check_nodes("--ray", 1, 0, may_grow=False)


@pytest.mark.slow
def test_a_machine_that_cannot_run_it_is_rejected(pool, monkeypatch):
    monkeypatch.setattr(ray_nodes, "installed_there", fail)
    with pytest.raises(AtomError, match=r"cannot run atom-hf .no outcome and advice.; install atom-hf"):
        check_nodes("--ray", 1, 0, may_grow=False)


@pytest.mark.slow
def test_a_second_ray_in_one_process_is_rejected(pool):
    with pytest.raises(AtomError, match="is connected to Ray already"), ray_started(RayArguments("local")):
        pass


@pytest.mark.slow
def test_sigterm_interrupts(pool):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
