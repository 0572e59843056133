"""Read untrusted files safely; write files so that they are complete at any moment; check output paths before work starts.

A file, or a set of files that belong together, is written beside what it replaces, flushed to the disk, and then renamed. A
full disk, a kill or a power cut leaves what was there before, or what was to be written.
"""

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from ..errors import AtomError, WriteError, first_line
from .bounded_yaml import parse_yaml
from .lock import HOST, is_alive
from .terminal import get_logger

logger = get_logger(__name__)

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

PART = ".saving-"  # prefix of the folders that files are written to first; hidden: what is pushed leaves it out

_DONE = ".done"  # in such a folder: everything has been written, and belongs in the folder around it

_DONE_BYTES = 2**22

_LONG = 86400.0  # seconds: whatever is still half-written after a day was left by another host

_open: set[Path] = set()  # those of this process

_YAML_BYTES = 2**20


def read_json(file: str | Path, max_bytes: int, what: str) -> dict[str, Any]:
    """Read a JSON object from an untrusted file. Raises `AtomError` for other content, or more than `max_bytes`."""
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise AtomError(f"{file} is larger than the {max_bytes} bytes that an {what} may have")
        data = json.loads(content.decode())
    except AtomError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        raise AtomError(f"{file} is not a readable {what}: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise AtomError(f"{file} is not a readable {what}: it must be a JSON object, got {type(data).__name__}")
    return data


def read_yaml(path: str, given: str) -> Any:
    """The content of a YAML file. Raises `AtomError`, naming the argument that gave it."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_YAML_BYTES + 1)
        if len(content) > _YAML_BYTES:
            raise AtomError(f"{given} {path!r} is larger than the {_YAML_BYTES} bytes that it may have")
        return parse_yaml(content.decode())
    except AtomError:
        raise
    except RecursionError as error:
        raise AtomError(f"{given} {path!r} cannot be read: it is nested too deeply") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a date or number that is none
        raise AtomError(f"{given} {path!r} cannot be read: {' '.join(str(error).split())}") from error


def write_atomically(path: str | Path, content: str | bytes | Callable[[Path], Any]) -> Path:
    """Write a file so that it is never there in part. Returns its path.

    Args:
        path: the file; its folder is made if need be. A device or a pipe is written to directly.
        content: the content (text as UTF-8), or a function that writes it to the path that it is given.

    Raises:
        WriteError: it could not be written; a file that was there is unchanged.
    """
    path = Path(path)
    write = content if callable(content) else lambda part: part.write_bytes(_encoded(content))
    target = Path(os.path.realpath(path))  # a link stays one
    part = target.with_name(f".{target.stem[:100]}-{os.getpid()}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
            write(target)
            return path
        part.touch()
        mode = _mode(target, part)
        write(part)
        os.chmod(part, mode)
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if (why := write_failure(error)) is None:
            raise
        raise WriteError(f"{path} could not be written: {why}", why) from error
    return path


@contextmanager
def replacing(folder: str | Path, last: Sequence[str] = (), stale: re.Pattern | None = None) -> Iterator[Path]:
    """Context manager: an empty folder to write to. At the end its files take the places of those in `folder`, together.

    Until all of them have been written and flushed, nothing in `folder` changes. An interruption after that, while they are
    being renamed, is repaired by `complete`.

    Args:
        folder: made if need be.
        last: the names of the files that say that the others are valid; they are renamed last, in this order.
        stale: names of files that would be read instead of these: those that match, and are not written again, are removed
            if one that matches is.

    Raises:
        WriteError: something could not be written; `folder` is as it was.
    """
    folder, part = Path(folder), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        complete(folder)
        part = Path(tempfile.mkdtemp(prefix=f"{PART}{HOST}.{os.getpid()}-", dir=folder))
        _open.add(part.resolve())
        yield part
        written = {True: [], False: []}
        for path in sorted(part.rglob("*")):
            written[path.is_file()].append(path.relative_to(part).as_posix())
        names = sorted(written[True], key=lambda name: last.index(name) + 1 if name in last else 0)
        (part / ".new").touch()
        for name in names:
            os.chmod(part / name, _mode(folder / name, part / ".new"))
            _sync(part / name)
        removed = []
        if stale and any(map(stale.fullmatch, names)):
            removed = sorted({path.name for path in folder.iterdir() if stale.fullmatch(path.name)} - set(names))
        listed = {"folders": written[False], "files": names, "removed": removed}
        write_atomically(part / _DONE, json.dumps(listed))
        _move(part, folder)
    except BaseException as error:
        kept = "what was there is unchanged"
        if part is not None:
            if (part / _DONE).is_file():
                kept = f"a later save or load completes it from {part}"
            else:
                shutil.rmtree(part, ignore_errors=True)
        if (why := write_failure(error)) is None:
            raise
        raise WriteError(f"{folder} could not be written to: {why}; {kept}", why) from error
    finally:
        if part is not None:
            _open.discard(part.resolve())


def complete(folder: str | Path) -> None:
    """Finish a save into a folder that was interrupted after all its files had been written, and say so.

    What an interrupted one has left half-written is removed. Does nothing to a folder that cannot be written to.
    """
    try:
        parts = sorted(Path(folder).glob(f"{PART}*"))
    except (OSError, ValueError):  # a name that is not a path
        return
    for part in parts:
        if not part.is_dir() or part.is_symlink() or part.resolve() in _open:
            continue
        try:
            if (part / _DONE).is_file():
                _move(part, Path(folder))
                logger.warning("%s: a save was interrupted when all had been written; it has been completed", folder)
            else:
                host, _, rest = part.name.removeprefix(PART).rpartition(".")
                pid = rest.partition("-")[0]
                dead = host == HOST and pid.isdigit() and (int(pid) == os.getpid() or not is_alive(int(pid)))
                if dead or time.time() - part.stat().st_mtime > _LONG:
                    shutil.rmtree(part)
        except (OSError, AtomError) as error:
            logger.warning("%s: a save was interrupted, and cannot be completed: %s", folder, first_line(error))


def write_failure(error: BaseException | None) -> str | None:
    """Why a file could not be written, if that is what an error in a save says, of whatever library; else None."""
    causes, first = 0, error
    while isinstance(error, Exception) and causes < 20:
        if isinstance(error, WriteError):
            return error.reason
        # What other libraries look for while they handle an error may well be missing.
        if isinstance(error, OSError) and (error.errno in DISK_ERRORS or (error is first and error.errno)):
            return error.strerror
        # What is written in Rust (safetensors, tokenizers) and by torch.save says it in words alone.
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return os.strerror(int(found[1]))
        if re.search(r"PytorchStreamWriter|inline_container", str(error)):
            return "a file could not be written to its end, as on a full disk"
        error, causes = error.__cause__ or error.__context__, causes + 1
    return None


def _move(part: Path, folder: Path) -> None:
    """Renames what `replacing` has written. It may be done again, and by several processes."""
    found = read_json(part / _DONE, _DONE_BYTES, "list of saved files")
    root = folder.resolve()
    folders, names, removed = (found.get(key, []) for key in ("folders", "files", "removed"))
    if not all(isinstance(listed, list) for listed in (folders, names, removed)):
        raise AtomError(f"{part / _DONE} is not a list of saved files")
    # A folder is untrusted: nothing outside it is touched.
    for name in (*folders, *names, *removed):
        steps = Path(name).parts if isinstance(name, str) else ("..",)
        if not steps or ".." in steps or not (folder / name).parent.resolve().is_relative_to(root):
            raise AtomError(f"{part / _DONE} names files outside its folder")
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == names[-1]:  # the others are in their places before the last makes them valid
            for old in removed:
                (folder / old).unlink(missing_ok=True)
            _sync(folder)
        with suppress(FileNotFoundError):  # moved already
            os.replace(part / name, folder / name)
    _sync(folder)
    shutil.rmtree(part, ignore_errors=True)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError:  # a folder, where folders cannot be opened
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno in DISK_ERRORS:  # others: a file system that cannot do this
            raise
    finally:
        os.close(opened)


def _mode(file: Path, new: Path) -> int:
    """The permissions of a file that is to be replaced; if there is none, those of a `new` file, by the umask.

    Weights always get those of a new file: safetensors makes files that only their owner may read.
    """
    kept = file if file.suffix != ".safetensors" and file.exists() else new
    return kept.stat().st_mode & 0o777


def _encoded(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def check_page(page: str, flag: str = "--page") -> None:
    """Reject the path of a file that could not be written when the work is done."""
    if Path(page).is_dir() or not (parent := _existing_parent(page)).is_dir():
        raise AtomError(f"{flag} {page!r} cannot be written: give the path of a file in a folder")
    if not os.access(page if Path(page).exists() else parent, os.W_OK):
        raise AtomError(f"{flag} {page!r} cannot be written: {_why_not(parent)}; give the path of another file")


def check_output_folder(folder: str | Path, flag: str = "--output_dir") -> None:
    """Reject the path of a folder where there is a file, or where nothing can be written."""
    shown = f"{flag} {str(folder)!r}"
    if Path(folder).exists() and not Path(folder).is_dir():
        raise AtomError(f"{shown} is a file; give a folder")
    parent = Path(folder) if Path(folder).exists() else _existing_parent(folder)
    if not parent.is_dir():
        raise AtomError(f"{shown} cannot be made: {str(parent)!r} is a file; give another folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise AtomError(f"{shown} cannot be written to: {_why_not(parent)}; give another folder")


def _existing_parent(path: str | Path) -> Path:
    return next(parent for parent in Path(path).absolute().parents if parent.exists())


def _why_not(folder: Path) -> str:
    read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    return f"the file system of {folder} is read-only" if read_only else f"{folder} may not be written to"
