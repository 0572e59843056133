"""The flags of `--ray`, and addresses where no Ray answers."""

import contextlib
import importlib.util
import socket

import pytest

from atom_hf import AtomError
from atom_hf.experiments import ray_arguments
from atom_hf.experiments.ray_arguments import RayArguments, error_in
from atom_hf.finetune.flags import parse_flags


def parsed(*arguments):
    return parse_flags("study FILE", list(arguments), [RayArguments])[0]


def test_without_an_address_it_is_this_machine():
    assert parsed() == RayArguments(None, None, None)
    assert parsed("--ray", "--ray_cpus", "2") == RayArguments("local", 2, None)
    assert parsed("--ray", "auto", "--ray_gpus", "0.25") == RayArguments("auto", None, 0.25)


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AtomError, match=r"--ray needs Ray: pip install 'atom-hf\[ray\]'"):
        parsed("--ray").check()
    parsed().check()


@pytest.mark.parametrize(
    "address", ["nonsense", ":6379", "host:", "host:0", "host:65536", "host:²", "ray://host:10001"]
)
def test_an_address_that_is_none_is_rejected(address):
    with pytest.raises(AtomError, match="is no address of a cluster: give host:port or auto"):
        parsed("--ray", address).check()


@pytest.mark.parametrize("flag", ["--ray_cpus", "--ray_gpus"])
def test_what_a_run_on_ray_takes_needs_ray(flag):
    with pytest.raises(AtomError, match=f"{flag} 1.* is for runs on Ray: give --ray too"):
        parsed(flag, "1").check()


@contextlib.contextmanager
def listening():
    """The address of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.promise("A cluster that does not answer costs a line and a minute, never a wait without end.")
def test_nobody_at_an_address_is_said_in_a_line():
    with listening() as address:
        pass  # closed again: nobody else has taken the port so soon
    with pytest.raises(
        AtomError, match=f"--ray '{address}': nobody answers there .Connection refused.; give the address"
    ):
        parsed("--ray", address).check_connection()


@pytest.mark.promise("A cluster that does not answer costs a line and a minute, never a wait without end.")
def test_somebody_else_at_an_address_is_said_in_a_line(monkeypatch):
    monkeypatch.setattr(ray_arguments, "_CONNECT", "import time; time.sleep(60)")  # as Ray waits, for longer
    monkeypatch.setattr(ray_arguments, "_CONNECT_SECONDS", 0.5)
    with listening() as address, pytest.raises(AtomError, match=r"has not answered as Ray does in 0\.5 s"):
        parsed("--ray", address).check_connection()


def test_what_ray_says_of_a_connection_is_put_in_a_line(monkeypatch):
    raising = "raise RuntimeError('Version mismatch: the cluster has\\n  Ray: 2.1\\n  Python: 3.9')"
    monkeypatch.setattr(ray_arguments, "_CONNECT", raising)
    says = "no connection to Ray: RuntimeError: Version mismatch: the cluster has Ray: 2.1 Python: 3.9"
    with listening() as address, pytest.raises(AtomError, match=says):
        parsed("--ray", address).check_connection()
    monkeypatch.setattr(ray_arguments, "_CONNECT", "raise SystemExit(3)")
    with pytest.raises(AtomError, match="--ray 'auto': no connection to Ray: status 3"):
        parsed("--ray", "auto").check_connection()


def test_the_error_in_a_log_is_its_last():
    log = "Traceback (most recent call last):\n  line\nValueError: first\n\nTraceback:\n  line\nfoo.BarError: last\n  more\n"
    assert error_in(log) == "foo.BarError: last more"
    assert error_in("plain words\nand more") == "plain words and more"
    assert error_in("...\nRPC error: InvalidAuthToken: missing\nConnectionError: failed") == (
        "it asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token holds it"
    )
