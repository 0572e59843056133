"""`atom-hf study --ray` as it is used: a process of its own, whose workers die, which is stopped, and goes on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from helpers.paths import environment
from helpers.ray_pools import KILLED
from helpers.studies import SHORT, kept, keys, values, with_setting, write

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]

SECONDS = 900

# Long enough to be caught while it runs.
SIZES = {24: {"max_steps": 150}}
SHIFTS = {"other": {"eval_dataset": "other.csv"}}


class Command:
    """A command of the command line, in a process of its own, whose workers are known by their environment."""

    def __init__(self, *arguments, **variables):
        self.mark = uuid.uuid4().hex
        # Two cores, if there are as many; and no token is written to the home folder.
        own = {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "2", "MARK": self.mark, **TOKEN, **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atom_hf", *arguments],
            env=environment(**own),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self):
        """(exit status, what it printed, the lines of what it said)."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err.replace("\r", "\n").splitlines()

    def others(self):
        """Processes that it has started, and those that they have."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != self.process.pid and process.environ().get("MARK") == self.mark:
                    found.append(process)
        return found

    def running(self):
        """Its workers that do a run."""
        return [one for one in self.others() if "".join(one.cmdline()).startswith("ray::run_task")]

    def until(self, happened):
        """Waits until it has happened, and returns what did."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if found := happened():
                return found
            time.sleep(0.1)
        raise AssertionError(f"it has not happened: {self.ended()}")


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}


@pytest.mark.promise("A run of a study on Ray whose process is killed is run again, and costs no other run.")
@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_a_study_on_two_workers_is_stopped_goes_on_and_loses_one(tmp_path):
    """What it has in the end is what one process has, to the bit."""
    pytest.importorskip("ray")
    path = write(tmp_path, with_setting(sizes=SIZES, latents=True))
    one = Command("study", path, "--output_dir", "whole")
    status, _, err = one.ended()
    assert status == 0, err

    first = Command("study", path, "--ray")
    first.until(lambda: kept(tmp_path))
    left = first.others()
    first.process.send_signal(signal.SIGTERM)
    status, _, err = first.ended()
    assert status == 130 and err[-1] == "interrupted; the same command resumes after the last finished run"
    assert not any("Traceback" in line for line in err)
    assert not psutil.wait_procs(left, timeout=20)[1]
    before = kept(tmp_path)
    assert 1 <= len(before) < 4

    second = Command("study", path, "--ray")
    second.until(second.running)[0].kill()
    status, out, err = second.ended()
    assert status == 0, err
    assert sum(f"{KILLED}; it is run again (try 2 of 3)" in line for line in err) == 1
    assert "written   " in out and "raylet" not in out
    lines = kept(tmp_path)
    assert lines[: len(before)] == before
    (tmp_path / "whole").rename(tmp_path / "one")
    (tmp_path / "study").rename(tmp_path / "two")
    (tmp_path / "one").rename(tmp_path / "study")
    by_key = dict(zip(keys(lines), values(lines), strict=True))
    assert by_key == dict(zip(keys(kept(tmp_path)), values(kept(tmp_path)), strict=True))
    for picture in (tmp_path / "study" / "latents").iterdir():
        assert picture.read_text() == (tmp_path / "two" / "latents" / picture.name).read_text()


@pytest.fixture
def cluster(tmp_path):
    """The address of a cluster of one machine, whose processes do not run in the test's folder."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "elsewhere").mkdir()
    started = ["start", "--head", "--block", "--port", str(port), "--num-cpus", "2", "--include-dashboard", "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *started, "--disable-usage-stats"],
        env=environment(**TOKEN),
        cwd=tmp_path / "elsewhere",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in process.stdout:
            if "Ray runtime started" in line:
                break
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_study_on_a_cluster_reads_what_the_command_names(tmp_path, cluster):
    """Relative paths are those of the command's folder; without the token there is a line."""
    rows = [f"{['calm', 'wild'][n % 2]} word {n},{['a', 'b'][n % 2]}" for n in range(40)]
    for name in ("train.csv", "other.csv"):
        (tmp_path / name).write_text("\n".join(["text,label", *rows]))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    setting = {
        **{"model_type": "bert", "config_overrides": sizes, "vocabulary_size": 300, "max_length": 16},
        **{"dataset": "train.csv", "eval_dataset": "other.csv", "shifts": SHIFTS, "per_device_train_batch_size": 8},
        "sizes": {24: {"max_steps": 2}},
    }
    path = write(tmp_path, {**SHORT, "settings": {"words": setting}})
    status, _, err = Command("study", path, "--ray", cluster).ended()
    assert status == 0, err
    lines = kept(tmp_path)
    os.rename("study", "cluster")
    assert Command("study", path).ended()[0] == 0
    by_key = dict(zip(keys(lines), values(lines), strict=True))
    assert by_key == dict(zip(keys(kept(tmp_path)), values(kept(tmp_path)), strict=True))

    os.rename("study", "one")
    status, _, err = Command("study", path, "--ray", cluster, RAY_AUTH_MODE="disabled").ended()
    assert status == 2 and err[-1].endswith(
        "it asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token holds it"
    )
    assert not os.path.exists("study")
