"""Push to a repository on the Hugging Face Hub: create it, check it, and commit to it, one commit per push."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, ModelCard, constants, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME, CONFIG_NAME
from transformers.utils.hub import create_and_tag_model_card, hf_api

from ..atoms.config import MAX_BYTES
from ..errors import AtomError, first_line
from ..utils.files import read_json, write_atomically
from .card import CARD_NAME
from .card_update import card_to_push
from .files import check_sendable
from .messages import LOG_IN, as_atom_error, without_token

CHECKPOINT = "checkpoint-"  # prefix of Trainer's checkpoint folders; importing it would import all that Trainer needs

LAST_CHECKPOINT = "last-checkpoint"  # name of the newest one in a repository

_READ_BYTES = 2**24  # files up to this size are searched for the token

_NOT_PUSHED = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")

_PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin(\.index\.json)?")

_ADAPTER = (ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME, ADAPTER_CONFIG_NAME)


def check_repository(name: str, flag: str) -> None:
    """Reject a name that is invalid on the Hub, or looks like a token. Raises `AtomError`, naming the flag."""
    if without_token(name) != name:
        raise AtomError(f"{flag} looks like a token, and names of repositories are public: give org/name")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise AtomError(f"{flag} {name!r} is not a name on the Hub: {first_line(error)} Give org/name") from None


def check_token(token: Any = None) -> None:
    """Check that there is a token that can be sent, and that the Hub is not offline. Raises `AtomError`."""
    if constants.HF_HUB_OFFLINE:
        raise AtomError("HF_HUB_OFFLINE is set, and nothing can be pushed; unset it")
    if not isinstance(token, str) and get_token() is None:
        raise AtomError(f"there is no token for the Hub, and pushing requires one: {LOG_IN}")
    check_sendable(token)


def check_base(base: Any, repository: str, what: str) -> None:
    """Reject an adapter that nobody could load from the Hub because of the base that it names. Raises `AtomError`.

    Args:
        base: its base_model_name_or_path.
        repository: where it is to be pushed; if that is the base's own, the push would delete the base's files.
        what: names the adapter in the message.
    """
    advice = "name a base on the Hub as base_model_name_or_path in adapter_config.json, or merge it into the base and push that"
    if not base:
        raise AtomError(f"{what} does not say which base it is for, and nobody could load it: {advice}")
    if str(base).startswith(("/", ".", "~")) or Path(str(base)).exists():
        raise AtomError(f"{what} is for a base in the folder {str(base)!r}, which nobody else has: {advice}")
    if base == repository:
        raise AtomError(f"{what} is for the base {base!r}, and one repository cannot hold both: push it to another")


def open_repository(name: str, *, token: Any = None, private: bool | None = None, write: bool = True) -> str:
    """Create a model repository unless it exists, and check write access. Returns its full name.

    Raises:
        AtomError: no token, no write access (with `write`), a public repository where a private one was asked for.
    """
    check_token(token)
    with as_atom_error(f"{name!r} cannot be pushed to", name):
        full = hf_api().create_repo(name, token=token, private=private, exist_ok=True).repo_id
        # An existing repository may not be writable, which should be known before hours of training.
        if write:
            hf_api().auth_check(full, token=token, write=True)
        if private and not hf_api().repo_info(full, token=token).private:
            raise AtomError(f"{full!r} exists and is public: make it private on the Hub, or push without private")
    return full


def files_to_push(folder: str | Path) -> tuple[dict[str, Path], list[str]]:
    """The files of a saved model by their path in a repository, and the names of those left out.

    Left out are checkpoints, hidden files and those that begin with _, code, and pickles: `training_args.bin`, for one, holds
    the token that was given to a run.

    Raises:
        AtomError: a link to a file outside the folder, whose content would be published.
    """
    root = Path(folder).resolve()
    files, left = {}, set()
    for path in sorted(root.rglob("*")):
        steps = path.relative_to(root).parts
        out = next(
            (i for i, step in enumerate(steps) if step.startswith((".", "_", CHECKPOINT, LAST_CHECKPOINT))), None
        )
        if out is not None or path.suffix in _NOT_PUSHED:
            left.add("/".join(steps[: len(steps) if out is None else out + 1]))
        elif path.is_file():
            homes = (root, Path(constants.HF_HUB_CACHE).resolve())
            if not any(path.resolve().is_relative_to(home) for home in homes):
                raise AtomError(
                    f"{path} is a link to {path.resolve()}, outside the folder: copy the file, or remove the link"
                )
            files["/".join(steps)] = path
        elif path.is_symlink():  # to a folder, or to nothing
            left.add("/".join(steps))
    return files, sorted(left)


def check_secret(files: Mapping[str, Path], token: Any = None) -> None:
    """Reject files that hold the token that is used to push. Raises `AtomError`, naming the file."""
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
    """Push all files as one commit: until it is made, the repository is unchanged.

    (`HfApi.upload_folder` makes several commits of a large folder.) The same commit deletes files of an earlier push that
    would be loaded instead of these; see `_stale`. A generated card never replaces one that somebody wrote there.

    Args:
        repository: its full name; see `open_repository`.
        files: local files by their path in the repository.
        message: the commit's first line.
        description: the rest of the commit message.
        token: as `huggingface_hub` takes it.
        revision: a branch, created if it does not exist.
        create_pr: whether to open a pull request to the main branch.

    Raises:
        AtomError: any failure, in one line; a file that holds the token; an adapter whose base is not available to others.
    """
    api = hf_api()
    check_secret(files, token)
    for path, file in files.items():
        if Path(path).name == ADAPTER_CONFIG_NAME:
            base = read_json(file, MAX_BYTES, "adapter configuration").get("base_model_name_or_path")
            check_base(base, repository, f"the adapter of {path}")
    with as_atom_error(f"{repository!r} could not be pushed to", repository, revision):
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repository, branch=revision, token=token, exist_ok=True)
        there = api.list_repo_files(repository, revision=revision, token=token)
        added: dict[str, str | bytes] = {name: str(file) for name, file in files.items()}
        if CARD_NAME in files:
            known = CARD_NAME in there and api.hf_hub_download(repository, CARD_NAME, revision=revision, token=token)
            before = Path(known).read_text(encoding="utf-8", errors="replace") if known else None
            card = card_to_push(files[CARD_NAME].parent, repository, before, revision)
            added = {**added, CARD_NAME: card.encode()} if card else {k: v for k, v in added.items() if k != CARD_NAME}
        return api.create_commit(
            repository,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in added.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in _stale(there, files)),
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
    """Push a saved model as one commit, to a repository that is created if it does not exist.

    The folder's model card is pushed too. If it has none, that of the repository stays, or Transformers' own is made.

    Args:
        folder: what `save_pretrained` wrote.
        name: org/name, or a name within one's own account.
        only: the files at the top of the folder to push, besides the card; all by default.
        tags: tags to add to the card.
        **the rest: as in `commit` and `open_repository`.

    Raises:
        AtomError: any failure, in one line.
    """
    check_repository(name, "repo_id")
    full = open_repository(name, token=token, private=private, write=not create_pr)
    card = Path(folder, CARD_NAME)
    with as_atom_error(f"{full!r} could not be pushed to", full, revision):
        if not card.is_file():
            write_atomically(card, create_and_tag_model_card(full, tags, token=token).save)
        elif tags:
            there = ModelCard.load(card)
            there.data.tags = [*(there.data.tags or []), *(tag for tag in tags if tag not in (there.data.tags or []))]
            write_atomically(card, there.save)
    files, _ = files_to_push(folder)
    if only is not None:
        files = {path: file for path, file in files.items() if path in only or path == CARD_NAME}
    options = {"token": token, "revision": revision, "create_pr": create_pr, "description": commit_description}
    return commit(full, files, message=commit_message or "Upload model", **options)


def _stale(there: Collection[str], files: Collection[str]) -> list[str]:
    """The files of a repository that a load would take for those of the pushed model.

    These are weights of a model that is now split into other files; in the same folder the files of an adapter if a whole
    model is pushed, and of a whole model if an adapter is; and all of an earlier checkpoint of the same name.
    """
    folders: dict[str, set[str]] = {}
    for path in files:
        folders.setdefault(str(Path(path).parent), set()).add(Path(path).name)
    models = {folder for folder, names in folders.items() if any(map(_WEIGHTS.fullmatch, names))}
    adapters = {folder for folder, names in folders.items() if _ADAPTER[0] in names} - models
    checkpoints = {path.split("/")[0] for path in files if path.startswith((f"{LAST_CHECKPOINT}/", CHECKPOINT))}

    def stale(path: str) -> bool:
        folder, name = str(Path(path).parent), Path(path).name
        whole = _WEIGHTS.fullmatch(name) is not None
        return (
            path.split("/")[0] in checkpoints
            or (folder in models and (whole or name in _ADAPTER))
            or (folder in adapters and (whole or name == CONFIG_NAME or _PICKLES.fullmatch(name) is not None))
        )

    return [path for path in there if path not in files and stale(path)]
