"""What is asked of the Hugging Face Hub: a file of one revision, a commit of many; and its refusals in a user's words."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import (
    _CACHED_NO_EXIST,
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    ModelCard,
    constants,
    get_token,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from transformers.utils.hub import create_and_tag_model_card, hf_api, resolve_revision

from .errors import AtomError, first_line

# All that the client raises; a connection that breaks off is an `HTTPError`, which is no `OSError`.
HUB_ERRORS = (OSError, ValueError, RuntimeError, HTTPError)
CLIENT_ERRORS = (HTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled)

CHECKPOINT = "checkpoint-"  # how Trainer's begin; its own name for it would import all that Trainer needs
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_READ_BYTES = 2**24  # files up to this size are searched for the token
_NOT_PUSHED = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def find_file(
    source: str, name: str, *, revision: str | None = None, token: Any = None, cache_dir: str | Path | None = None
) -> str | None:
    """The path of a file of a model folder or Hub repository; None if it is known that there is no such file.

    Not being able to find out is an error: heads that could not be fetched are not heads that do not exist.

    Args:
        source: a folder, or an id on the Hub.
        name: the file's name.
        revision: a branch, tag or commit on the Hub; see `pin`.
        token: as `huggingface_hub` takes it.
        cache_dir: where downloads are kept, if not in the usual place.

    Raises:
        AtomError: a repository that may not or cannot be read.
    """
    if Path(source).is_dir():
        file = Path(source, name)
        return str(file) if file.is_file() else None
    options = {"revision": getattr(revision, "resolved", revision), "cache_dir": cache_dir}
    try:
        return hf_hub_download(source, name, token=token, library_name="atom-hf", **options)
    except RemoteEntryNotFoundError:
        return None
    except HUB_ERRORS as error:
        known = isinstance(error, LocalEntryNotFoundError) and try_to_load_from_cache(source, name, **options)
        if known is _CACHED_NO_EXIST:
            return None
        raise AtomError(f"{source!r} cannot be read: {reason(error, source, revision)}") from error


def pin(source: str, revision: str | None, **hub: Any) -> str | None:
    """The revision as one commit, so that all files of a load are of the same push. `hub` is token and cache_dir."""
    return resolve_revision(source, revision, **hub)


def reason(error: BaseException, repository: str, revision: str | None = None) -> str:
    """What the Hub's client means by an error, and what would do, in one line and without a token.

    Args:
        error: what was raised; what it was raised from counts too, since Transformers wraps the client's errors.
        repository: the id that was asked for.
        revision: the branch, tag or commit that was asked for.
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
            f"there is no such folder, and it is no name on the Hub such as org/name ({first_line(invalid)})"
        )
    offline = constants.HF_HUB_OFFLINE or any(isinstance(e, OfflineModeIsEnabled) for e in chain)
    if offline and any(isinstance(e, EntryNotFoundError | OfflineModeIsEnabled) for e in chain):
        return (
            "HF_HUB_OFFLINE is set, and not all of it is in the cache; unset HF_HUB_OFFLINE, or fetch it once with "
            f"`hf download {repository}`"
        )
    if any(type(e).__name__ == "LocalProtocolError" for e in chain):
        return f"the token cannot be sent as it is: {LOG_IN}"
    if any(type(e).__name__ in ("ReadError", "WriteError", "RemoteProtocolError") for e in chain):
        return "the connection to the Hub broke off; run the same again"
    if any(isinstance(e, HTTPError | EntryNotFoundError) for e in chain):
        return f"the Hub ({constants.ENDPOINT}) cannot be reached, and the cache does not hold it; check the connection"
    return without_token(first_line(error))


@contextmanager
def in_words(
    what: str, repository: str, revision: str | None = None, errors: tuple[type[Exception], ...] = HUB_ERRORS
) -> Iterator[None]:
    """Raises what the Hub's client raises within it as an `AtomError` of one line that begins with `what`."""
    try:
        yield
    except AtomError:
        raise
    except errors as error:
        # Not "from error": a client's own message may hold the header that it could not send, and the token in it.
        raise AtomError(f"{what}: {reason(error, repository, revision)}") from None


def without_token(text: str) -> str:
    """`text` without anything that looks like a token, or is the one in use."""
    token = get_token()
    return re.sub(
        r"\b(hf|api_org|hf_oauth|hf_jwt)_\w{8,}", "<token>", text.replace(token, "<token>") if token else text
    )


def page_of(repository: str) -> str:
    """Where a model is shown on the Hub."""
    return f"{constants.ENDPOINT}/{repository}"


def check_repository(name: str, flag: str) -> None:
    """Refuses a name that cannot be one on the Hub. Raises `AtomError`, naming the flag."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise AtomError(f"{flag} {name!r} is no name on the Hub: {first_line(error)} Give org/name") from error


def check_token(token: Any = None) -> None:
    """Refuses to push where there is no token. Raises `AtomError`."""
    if constants.HF_HUB_OFFLINE:
        raise AtomError("HF_HUB_OFFLINE is set, and nothing can be pushed; unset it")
    if not isinstance(token, str) and get_token() is None:
        raise AtomError(f"there is no token for the Hub, and it takes one to push: {LOG_IN}")


def open_repository(name: str, *, token: Any = None, private: bool | None = None, write: bool = True) -> str:
    """Makes a model repository unless it is there, and makes sure that it may be written to. Returns its full name.

    Raises:
        AtomError: no token, no right to write (if it is to be written to), a public repository where a private one was
            asked for.
    """
    check_token(token)
    with in_words(f"{name!r} cannot be pushed to", name):
        full = hf_api().create_repo(name, token=token, private=private, exist_ok=True).repo_id
        # That it exists does not say that it may be written to, and it should be known before hours of training.
        if write:
            hf_api().auth_check(full, token=token, write=True)
        if private and not hf_api().repo_info(full, token=token).private:
            raise AtomError(f"{full!r} exists and is public: make it private on the Hub, or push without private")
    return full


def files_to_push(folder: str | Path) -> tuple[dict[str, Path], list[str]]:
    """The files of a saved model by their path in a repository, and the names of what is left out.

    Left out are checkpoints, hidden files and those that begin with _, code, and pickles: `training_args.bin`, for one, holds
    the token of a run that was given one.

    Raises:
        AtomError: a link to a file outside the folder, whose content would be published.
    """
    root = Path(folder).resolve()
    files, left = {}, set()
    for path in sorted(root.rglob("*")):
        steps = path.relative_to(root).parts
        out = next((i for i, step in enumerate(steps) if step.startswith((".", "_", CHECKPOINT))), None)
        if out is not None or path.suffix in _NOT_PUSHED:
            left.add("/".join(steps[: len(steps) if out is None else out + 1]))
        elif path.is_file():
            homes = (root, Path(constants.HF_HUB_CACHE).resolve())
            if not any(path.resolve().is_relative_to(home) for home in homes):
                raise AtomError(
                    f"{path} is a link to {path.resolve()}, outside the folder: copy the file, or remove the link"
                )
            files["/".join(steps)] = path
    return files, sorted(left)


def check_secret(files: Mapping[str, Path], token: Any = None) -> None:
    """Refuses to publish the token that is pushed with. Raises `AtomError`, naming the file."""
    secret = token if isinstance(token, str) else get_token()
    for name, file in files.items():
        if secret and file.stat().st_size < _READ_BYTES and secret.encode() in file.read_bytes():
            raise AtomError(f"{name} holds the token that you log in with: remove it there before you push")


def commit(
    repository: str,
    files: Mapping[str, Path],
    *,
    message: str,
    description: str | None = None,
    token: Any = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """All files as one commit: until it is there, the repository is what it was.

    `HfApi.upload_folder` would make several of a large folder. Weights of an earlier push that are not among the files, such
    as the one file of a model that comes in several now, are deleted by the same commit: they would be loaded in its place.

    Args:
        repository: its full name; see `open_repository`.
        files: local files by their path in the repository.
        message: the commit's first line.
        description: the rest of it.
        token: as `huggingface_hub` takes it.
        revision: a branch, made where there is none.
        create_pr: as a pull request to the main branch.

    Raises:
        AtomError: whatever stopped it, in one line; a file with the token in it.
    """
    api = hf_api()
    check_secret(files, token)
    with in_words(f"{repository!r} could not be pushed to", repository, revision):
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repository, branch=revision, token=token, exist_ok=True)
        there = api.list_repo_files(repository, revision=revision, token=token)
        folders = {str(Path(path).parent) for path in files if _WEIGHTS.fullmatch(Path(path).name)}
        stale = [
            p for p in there if p not in files and _WEIGHTS.fullmatch(Path(p).name) and str(Path(p).parent) in folders
        ]
        return api.create_commit(
            repository,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file)) for name, file in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            commit_message=message,
            commit_description=description,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )


def push_model(
    folder: str | Path,
    name: str,
    *,
    only: Collection[str] | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: Any = None,
    revision: str | None = None,
    create_pr: bool = False,
    tags: list[str] | None = None,
) -> CommitInfo:
    """A saved model as one commit, in a repository that is made if there is none.

    The folder's model card goes with it. Where it has none, that of the repository stays, or Transformers' own is made.

    Args:
        folder: what `save_pretrained` wrote.
        name: org/name, or a name within one's own account.
        only: the files at the top of the folder that are meant, beside the card; all by default.
        tags: added to the card's.
        **the rest: as in `commit` and `open_repository`.

    Raises:
        AtomError: whatever stopped it, in one line.
    """
    check_repository(name, "repo_id")
    full = open_repository(name, token=token, private=private, write=not create_pr)
    card = Path(folder, "README.md")
    with in_words(f"{full!r} could not be pushed to", full, revision):
        if not card.is_file():
            create_and_tag_model_card(full, tags, token=token).save(card)
        elif tags:
            there = ModelCard.load(card)
            there.data.tags = [*(there.data.tags or []), *(tag for tag in tags if tag not in (there.data.tags or []))]
            there.save(card)
    files, _ = files_to_push(folder)
    if only is not None:
        files = {path: file for path, file in files.items() if path in only or path == "README.md"}
    options = {"token": token, "revision": revision, "create_pr": create_pr, "description": commit_description}
    return commit(full, files, message=commit_message or "Upload model", **options)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _answer(error: HfHubHTTPError, repository: str, revision: str | None) -> str:
    """An answer of the server in a user's words."""
    status, page = error.response.status_code, page_of(repository)
    with_token = "authorization" in error.response.request.headers
    writing = error.response.request.method not in ("GET", "HEAD")
    if isinstance(error, GatedRepoError):
        log_in = "; your token's account has not got it yet" if with_token else f", then {LOG_IN}"
        return f"it is gated: ask for access at {page}{log_in}"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch, tag or commit {str(revision or 'main')!r}{_revisions(repository, error)}"
    if status == 401 and with_token:
        return f"the Hub does not take the token, which may have expired: {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        may = "your token may not read it: check both" if with_token else f"it is private: check the name, or {LOG_IN}"
        return f"there is no such model on the Hub, or {may}"
    if status in (401, 403) and (writing or error.response.request.url.path.endswith("/auth-check/write")):
        return (
            "your token may not write there: give a token with write access (https://huggingface.co/settings/tokens) of an "
            "account that may write to it, or another name"
            if with_token
            else f"it takes a token to write: {LOG_IN}"
        )
    if status == 429:
        return "the Hub asks to slow down (too many requests): wait some minutes and run the same again"
    if status >= 500:
        return f"the Hub has trouble of its own (status {status}): try again later"
    return f"the Hub refused ({status}): {' '.join((error.server_message or first_line(error)).split())}"


def _revisions(repository: str, error: HfHubHTTPError) -> str:
    """The names that there are, as an advice; nothing if they cannot be had."""
    sent = error.response.request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        refs = hf_api().list_repo_refs(repository, token=sent or False)
    except HUB_ERRORS:
        return ""
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    return f"; it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else ""
