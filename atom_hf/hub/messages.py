"""Hub errors as one-line messages without a token.

By hand: the client's own messages run over several lines, and may hold the token or the header that it was sent in.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.utils.hub import hf_api

from ..errors import AtomError, first_line

_TOKEN = re.compile(r"\b(hf_(oauth|jwt)_[\w.-]+|(hf|api_org)_[A-Za-z0-9]{16,})")


def without_token(text: str) -> str:
    """`text` without anything that looks like a Hub token, or is the current one."""
    from huggingface_hub import get_token

    token = get_token()
    return _TOKEN.sub("<token>", text.replace(token, "<token>") if token else text)


# All that the client raises; a lost connection is an `HTTPError`, which is not an `OSError`.
HUB_ERRORS = (OSError, ValueError, RuntimeError, HTTPError)

CLIENT_ERRORS = (HTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled)

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def reason(
    error: BaseException, repository: str, revision: str | None = None, cache_dir: str | Path | None = None
) -> str:
    """The cause of an error of the Hub's client, and a remedy, in one line and without a token.

    Args:
        error: the exception; its causes are searched too, since Transformers wraps the client's errors.
        repository: the id that was requested.
        revision: the branch, tag or commit that was requested.
        cache_dir: the cache that was looked in, if not the usual one.
    """
    chain = list(_chain(error))
    if card := next((e for e in chain if str(e).startswith("Invalid metadata in README.md")), None):
        return " ".join(str(card).split())
    found = next((e for e in chain if isinstance(e, HfHubHTTPError)), None)
    if found is not None:
        return without_token(_answer(found, repository, revision))
    if any(isinstance(e, LocalTokenNotFoundError) for e in chain):
        return f"there is no token for the Hub: {LOG_IN}"
    if invalid := next((e for e in chain if isinstance(e, HFValidationError)), None):
        return without_token(
            f"there is no such folder, and it is not a name on the Hub such as org/name ({first_line(invalid)})"
        )
    unasked = any(isinstance(e, LocalEntryNotFoundError | OfflineModeIsEnabled) for e in chain)
    if unasked and not _in_cache(repository, cache_dir):
        return _nowhere(repository)
    offline = constants.HF_HUB_OFFLINE or any(isinstance(e, OfflineModeIsEnabled) for e in chain)
    if offline and any(isinstance(e, EntryNotFoundError | OfflineModeIsEnabled) for e in chain):
        return (
            "HF_HUB_OFFLINE is set, and not all of it is in the cache; unset HF_HUB_OFFLINE, or fetch it once with "
            f"`hf download {repository}`"
        )
    if any(isinstance(e, UnicodeEncodeError) or type(e).__name__ == "LocalProtocolError" for e in chain):
        return f"the token cannot be sent as it is: {LOG_IN}"
    if any(type(e).__name__ in ("ReadError", "WriteError", "RemoteProtocolError") for e in chain):
        return "the connection to the Hub was lost; run the same command again"
    if any(isinstance(e, HTTPError | EntryNotFoundError) for e in chain):
        return f"the Hub ({constants.ENDPOINT}) cannot be reached, and the cache does not hold it; check the connection"
    if any(isinstance(e, UnpicklingError) for e in chain):
        return (
            "its weights are a pickle of more than tensors, which is not read; get them as safetensors, or save them anew "
            "with save_pretrained"
        )
    return without_token(first_line(error))


@contextmanager
def as_atom_error(
    what: str, repository: str, revision: str | None = None, errors: tuple[type[Exception], ...] = HUB_ERRORS
) -> Iterator[None]:
    """Context manager: turns errors of the Hub's client into an `AtomError` of one line that begins with `what`."""
    try:
        yield
    except AtomError:
        raise
    except errors as error:
        # Not "from error": the client's message may hold the header that it could not send, token included.
        raise AtomError(f"{what}: {reason(error, repository, revision)}") from None


def page_of(repository: str) -> str:
    """The URL of a model on the Hub."""
    return f"{constants.ENDPOINT}/{repository}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _in_cache(repository: str, cache_dir: str | Path | None) -> bool:
    """Whether any file of a model is in the cache."""
    folder = Path(cache_dir or constants.HF_HUB_CACHE, "models--" + repository.replace("/", "--"))
    return any(folder.glob("snapshots/*/*"))


def _nowhere(repository: str) -> str:
    """The message for a name that is neither a folder nor in the cache, while the Hub cannot be asked."""
    offline = constants.HF_HUB_OFFLINE
    if (there := _missing_folder(repository)) is not None:
        return (
            f"{there} (and the Hub is not asked for a model of that name{', HF_HUB_OFFLINE is set' if offline else ''})"
        )
    what = "there is no such folder, and no such model in the cache"
    if offline:
        return f"{what}; HF_HUB_OFFLINE is set: unset it, or fetch the model once with `hf download {repository}`"
    return f"{what}, and the Hub ({constants.ENDPOINT}) cannot be reached: check the name and the connection"


def _missing_folder(name: str) -> str | None:
    """The message for a name that reads as a path within a folder that exists here; None for others."""
    parent = Path(name).parent
    return f"there is no such folder in {parent}" if parent != Path() and parent.is_dir() else None


def _answer(error: HfHubHTTPError, repository: str, revision: str | None) -> str:
    """The message for an HTTP error status of the Hub."""
    status, page = error.response.status_code, page_of(repository)
    with_token = "authorization" in error.response.request.headers
    writing = error.response.request.method not in ("GET", "HEAD")
    if isinstance(error, GatedRepoError):
        log_in = "; your token's account has not got it yet" if with_token else f", then {LOG_IN}"
        return f"it is gated: ask for access at {page}{log_in}"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch, tag or commit {str(revision or 'main')!r}{_revisions(repository, error)}"
    if status == 401 and with_token and not isinstance(error, RepositoryNotFoundError):
        return f"the Hub does not accept the token, which may have expired: {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        may = "your token may not read it: check both" if with_token else f"it is private: check the name, or {LOG_IN}"
        there = None if writing else _missing_folder(repository)
        return f"{f'{there}, and' if there else 'there is'} no such model on the Hub, or {may}"
    if status in (401, 403) and (writing or error.response.request.url.path.endswith("/auth-check/write")):
        return (
            "your token may not write there: give a token with write access (https://huggingface.co/settings/tokens) of an "
            "account that may write to it, or another name"
            if with_token
            else f"writing requires a token: {LOG_IN}"
        )
    if status == 429:
        return "the Hub received too many requests: wait some minutes and run the same command again"
    if status >= 500:
        return f"the Hub has an internal error (status {status}): try again later"
    return f"the Hub refused ({status}): {' '.join((error.server_message or first_line(error)).split())}"


def _revisions(repository: str, error: HfHubHTTPError) -> str:
    """A hint with the names of existing revisions; empty if they cannot be listed."""
    sent = error.response.request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        refs = hf_api().list_repo_refs(repository, token=sent or False)
    except HUB_ERRORS:
        return ""
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    return f"; it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else ""
