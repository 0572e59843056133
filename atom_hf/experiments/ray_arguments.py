"""The flags of `--ray`, and whether Ray answers at the address that it is given."""

import importlib.util
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import AtomError
from ..utils.bounds import COUNT, Bound

HERE = "local"  # what Ray itself calls an instance that it starts

_OPEN_SECONDS = 10  # in which the port must be open

_CONNECT_SECONDS = 60  # in which Ray must answer there

# As a process of its own: Ray tries for a quarter of an hour, logs meanwhile, and takes no interruption.
_CONNECT = "import ray, sys; ray.init(sys.argv[1], logging_level='CRITICAL', log_to_driver=False)"


@dataclass
class RayArguments:
    """Where and how many runs of a study are done at once, other than one after another in this process."""

    help_title: ClassVar[str] = "Many runs at once (Ray: pip install 'atom-hf[ray]')"
    bounds: ClassVar[dict[str, Bound]] = {"ray_cpus": COUNT, "ray_gpus": Bound(0, 1)}

    ray: str | None = field(
        default=None,
        metadata={
            "help": "Do the runs as Ray tasks, as many at once as there is room for: without an address on this machine alone; "
            "else on the cluster at host:port or, with auto, the one that is found, of which this machine must be part.",
            "nargs": "?",
            "const": HERE,
        },
    )
    ray_cpus: int | None = field(
        default=None, metadata={"help": "With --ray: cores of a run, which are its threads too; 1 if not given."}
    )
    ray_gpus: float | None = field(
        default=None,
        metadata={
            "help": "With --ray: GPUs of a run. 0.25 lets four runs share one, 0 trains on the CPU; if not given, 1 if there "
            "are any. Runs with use_cpu take none."
        },
    )

    def check(self) -> None:
        """Raises `AtomError` for flags that cannot be used. Connects to nothing yet."""
        if self.ray is None:
            for name in ("ray_cpus", "ray_gpus"):
                if (value := getattr(self, name)) is not None:
                    raise AtomError(f"--{name} {value} is for runs on Ray: give --ray too, or leave it out")
        elif self.ray != HERE and self.ray != "auto":
            _host_and_port(self.ray)
        if self.ray is not None and importlib.util.find_spec("ray") is None:
            raise AtomError("--ray needs Ray: pip install 'atom-hf[ray]'")

    def check_connection(self) -> None:
        """Raises `AtomError`, within about a minute, if no Ray answers at the address."""
        given = f"--ray {self.ray!r}"
        if self.ray != "auto":
            try:
                socket.create_connection(_host_and_port(self.ray), timeout=_OPEN_SECONDS).close()
            except OSError as error:
                raise AtomError(
                    f"{given}: nobody answers there ({error.strerror or error}); give the address of a running cluster, or "
                    "--ray alone to use this machine"
                ) from error
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CONNECT, self.ray],
                capture_output=True,
                text=True,
                check=False,
                timeout=_CONNECT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise AtomError(
                f"{given}: what listens there has not answered as Ray does in {_CONNECT_SECONDS} s; give the address that "
                "'ray start' has printed"
            ) from error
        if done.returncode:
            raise AtomError(f"{given}: no connection to Ray: {error_in(done.stderr) or f'status {done.returncode}'}")


def error_in(log: str) -> str:
    """The error that ends a log or a traceback, in a line."""
    if "InvalidAuthToken" in log:  # deep in the log of another error
        return "it asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token holds it"
    *_, error = re.split(r"^(?=[\w.]+: )", log, flags=re.MULTILINE)
    return " ".join(error.split())


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "//" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise AtomError(
            f"--ray {address!r} is no address of a cluster: give host:port or auto, or --ray alone to use this machine"
        )
    return host.strip("[]"), int(port)
