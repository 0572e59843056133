"""Find single files of a model, in a folder or on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import (
    _CACHED_NO_EXIST,
    constants,
    get_cached_repo_tree,
    get_token,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError, RemoteEntryNotFoundError
from transformers.utils.hub import resolve_revision

from ..errors import AtomError
from .messages import HUB_ERRORS, LOG_IN, reason


class NotInCache(AtomError):
    """Offline, and the cache does not show whether there is such a file."""


def find_file(
    source: str,
    name: str,
    *,
    revision: str | None = None,
    token: Any = None,
    cache_dir: str | Path | None = None,
    optional: bool = False,
) -> str | None:
    """The local path of a file of a model folder or Hub repository; None if it is known not to exist.

    If that cannot be found out, it is an error: heads that could not be fetched may exist.

    Args:
        source: a folder, or an id on the Hub.
        name: the file's name.
        revision: a branch, tag or commit on the Hub; see `pin`.
        token: as `huggingface_hub` takes it.
        cache_dir: where downloads are cached, if not in the usual place.
        optional: whether a model is whole without the file. Where the Hub cannot be asked, and some files of this commit are
            in the cache, such a file is taken not to exist if it is not among them: a cache that was copied, or filled by an
            older client, does not tell which files there are.

    Raises:
        AtomError: the repository cannot be read or accessed; `NotInCache` if that is because of being offline.
    """
    if Path(source).is_dir():
        file = Path(source, name)
        return str(file) if file.is_file() else None
    check_sendable(token)
    options = {"revision": getattr(revision, "resolved", revision), "cache_dir": cache_dir}
    try:
        return hf_hub_download(source, name, token=token, library_name="atom-hf", **options)
    except RemoteEntryNotFoundError:
        return None
    except HUB_ERRORS as error:
        unasked = isinstance(error, LocalEntryNotFoundError)
        if unasked and (_known_to_be_none(source, name, options) or (optional and _is_cached(source, options))):
            return None
        kind = NotInCache if unasked and constants.HF_HUB_OFFLINE else AtomError
        why = reason(error, source, revision, cache_dir)
        raise kind(f"{source!r} cannot be read: {why}") from None  # see `as_atom_error`


def pin(source: str, revision: str | None, **hub: Any) -> str | None:
    """Resolve a revision to one commit, so that all files of a model come from the same push. `hub` is token and cache_dir.

    Raises:
        AtomError: the token cannot be sent.
    """
    check_sendable(hub.get("token"))
    return resolve_revision(source, revision, **hub)


def check_sendable(token: Any = None) -> None:
    """Reject a token that cannot be in a header. Raises `AtomError`."""
    # Checked here, since the client would log the header that it could not send, token included.
    secret = token.strip() if isinstance(token, str) else get_token() or ""
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise AtomError(f"the token cannot be sent as it is: it has characters that no token has; {LOG_IN}")


def _is_cached(source: str, options: dict[str, Any]) -> bool:
    """Whether any files of a revision are in the cache."""
    try:
        return Path(snapshot_download(source, local_files_only=True, **options)).is_dir()
    except HUB_ERRORS:
        return False


def _known_to_be_none(source: str, name: str, options: dict[str, Any]) -> bool:
    """Whether the cache itself tells that there is no such file: requested before, or the whole repository fetched."""
    if try_to_load_from_cache(source, name, **options) is _CACHED_NO_EXIST:
        return True
    try:
        return name not in {entry.path for entry in get_cached_repo_tree(source, **options)}
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        return False
