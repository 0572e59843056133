"""Lock a folder for one run at a time: a lock file with the process and the host of the run that writes there."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import AtomError

try:
    import fcntl
except ImportError:  # Windows: only the process id shows whether it still runs
    fcntl = None

LOCK_NAME = ".atom-hf.lock"  # hidden: what is pushed leaves it out

HOST = platform.node()

_TRIES = 100  # others may remove the file, or its empty folder, between two steps here

_OWNER_BYTES = 4096


@contextmanager
def lock_folder(folder: str | Path, flag: str = "--output_dir") -> Iterator[None]:
    """Context manager: the folder, made if need be, is this process's own to write until the end.

    The lock of a process that ended without removing it is taken over. The operating system itself releases a lock when its
    process ends, on whatever host that was; the file names the holder, and decides where files cannot be locked.

    Raises:
        AtomError: another run is writing there, or the folder is not writable.
    """
    path = Path(folder, LOCK_NAME)
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        held = _take(path, flag)
    except AtomError:
        _remove_empty(made)
        raise
    try:
        yield
    finally:
        if _is_at(held, path):
            path.unlink(missing_ok=True)
        os.close(held)
        _remove_empty(made)  # of a run that was rejected before it wrote anything


def is_held(file: Any) -> bool:
    """Lock an open file until it is closed. Returns whether another process has it, as far as files can be locked here."""
    return _lock(file.fileno()) is False


def is_alive(pid: Any) -> bool:
    """Whether there is a process of this number on this host."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError, TypeError):
        return False
    return True


def _take(path: Path, flag: str) -> int:
    """The descriptor of the lock file, locked and with this process's name in it."""
    shown = repr(str(path.parent))
    for attempt in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and attempt < _TRIES - 1:
                continue
            raise AtomError(f"{flag} {shown} cannot be written to: {error.strerror}; give another folder") from error
        owner = _owner(held)
        gone = owner.get("host") == HOST and not is_alive(owner.get("pid"))
        free = _lock(held)
        if free is None:  # files cannot be locked here
            free = not owner or gone
        if not free and not gone:
            os.close(held)
            who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"
            raise AtomError(
                f"{flag} {shown} is being written to by {who}: wait for it to end, or give another folder (if it has ended, "
                f"remove {path})"
            )
        if not free:  # a child process has outlived the one that took the lock
            path.unlink(missing_ok=True)
        elif _is_at(held, path):
            me = {"pid": os.getpid(), "host": HOST, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            try:
                os.ftruncate(held, 0)
                os.pwrite(held, json.dumps(me).encode(), 0)
            except OSError as error:
                path.unlink(missing_ok=True)
                os.close(held)
                raise AtomError(f"{flag} {shown} cannot be written to: {error.strerror}; make room there") from error
            return held
        os.close(held)
    raise AtomError(
        f"{flag} {shown} is being written to by other processes, which keep starting and ending: give another folder"
    )


def _lock(held: int) -> bool | None:
    """Whether the open file is now locked by this process; None where files cannot be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _owner(held: int) -> dict[str, Any]:
    """The process that the lock file names: pid, host, since; empty if it names none."""
    try:
        owner = json.loads(os.pread(held, _OWNER_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) and {"pid", "host", "since"} <= owner.keys() else {}


def _is_at(held: int, path: Path) -> bool:
    """Whether the open file is still the one at this path: another process may have removed it and made its own."""
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
