"""One run at a time in a folder: who is refused, and whose lock is taken over."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from atom_hf import AtomError
from atom_hf.utils import lock
from atom_hf.utils.lock import HOST, LOCK_NAME, lock_folder
from helpers.paths import environment

pytestmark = pytest.mark.promise(
    "One run at a time writes to a folder.",
    "a second process, a killed owner, another host, every command that writes a folder",
)


HOLDER = """
import sys, time
from atom_hf.utils.lock import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def owner(pid, host=HOST):
    return json.dumps({"pid": pid, "host": host, "since": "2024-01-01 00:00:00"})


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def held(tmp_path):
    """A folder that another process is writing to, and that process."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, env=environment())
    assert holder.stdout.readline() == b"held\n"
    yield tmp_path, holder
    holder.kill()
    holder.wait()
    holder.stdout.close()


def test_a_folder_that_another_process_writes_to_is_refused_in_a_line_that_names_it(held):
    folder, holder = held
    with pytest.raises(AtomError) as caught, lock_folder(folder):
        pass
    message = str(caught.value)
    assert message.startswith(
        f"--output_dir {str(folder)!r} is being written to by process {holder.pid} on {HOST}, since "
    )
    assert "give another folder" in message and str(folder / LOCK_NAME) in message and "\n" not in message


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_process_is_taken_over(held, end):
    folder, holder = held
    holder.send_signal(end)
    holder.wait()
    assert (folder / LOCK_NAME).exists()
    with lock_folder(folder):
        assert json.loads((folder / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not (folder / LOCK_NAME).exists()


def test_the_same_process_holds_it_once(tmp_path):
    with lock_folder(tmp_path):
        with pytest.raises(AtomError, match=f"--into .* process {os.getpid()} on "), lock_folder(tmp_path, "--into"):
            pass
        assert (tmp_path / LOCK_NAME).exists()
    with lock_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_failure_releases_it(tmp_path):
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path):
        raise ZeroDivisionError
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "host": null, "since": 0}', "ÿ" * 9000])
def test_a_lock_file_without_an_owner_is_taken_over(tmp_path, content):
    (tmp_path / LOCK_NAME).write_text(content, encoding="latin-1")
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["host"] == HOST


def test_a_process_of_another_host_that_holds_no_lock_has_ended(tmp_path):
    (tmp_path / LOCK_NAME).write_text(owner(os.getpid(), "elsewhere"))
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["host"] == HOST


def test_a_child_that_outlives_the_owner_keeps_nobody_out(tmp_path, dead):
    file = tmp_path / LOCK_NAME
    file.write_text(owner(dead))
    with file.open() as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        with lock_folder(tmp_path):
            assert json.loads(file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("how", ["no fcntl", "no locks"])
def test_where_files_cannot_be_locked_the_owner_decides(tmp_path, monkeypatch, dead, how):
    if how == "no fcntl":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    file = tmp_path / LOCK_NAME
    for pid, host in ((os.getpid(), HOST), (dead, "elsewhere")):
        file.write_text(owner(pid, host))
        with (
            pytest.raises(AtomError, match=f"process {pid} on {host}, .*if it has ended, remove"),
            lock_folder(tmp_path),
        ):
            pass
    file.write_text(owner(dead))
    with lock_folder(tmp_path):
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_folder_that_was_made_and_stays_empty_is_removed(tmp_path):
    with lock_folder(tmp_path / "runs" / "one"):
        assert (tmp_path / "runs" / "one" / LOCK_NAME).exists()
    assert not list(tmp_path.iterdir())
    with lock_folder(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one" / "model").touch()
    assert [path.name for path in (tmp_path / "runs" / "one").iterdir()] == ["model"]


def test_a_folder_that_cannot_be_made_is_rejected(tmp_path):
    (tmp_path / "file").touch()
    says = r"^--output_dir '.*file/inner' cannot be written to: "
    with pytest.raises(AtomError, match=says), lock_folder(tmp_path / "file" / "inner"):
        pass
    assert (tmp_path / "file").is_file()


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(AtomError, match="cannot be written to: No space left on device"), lock_folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
