"""A repository on the Hugging Face Hub that is written to: made, checked, and changed by one commit at a time."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, ModelCard, constants, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils.hub import create_and_tag_model_card, hf_api

from .card import CARD_NAME
from .card_kept import card_to_push
from .errors import AtomError, first_line
from .hub import LOG_IN, in_words

CHECKPOINT = "checkpoint-"  # how Trainer's begin; its own name for it would import all that Trainer needs
_READ_BYTES = 2**24  # files up to this size are searched for the token
_NOT_PUSHED = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


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
    A generated card never goes over one that somebody wrote there.

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
    card = Path(folder, CARD_NAME)
    with in_words(f"{full!r} could not be pushed to", full, revision):
        if not card.is_file():
            create_and_tag_model_card(full, tags, token=token).save(card)
        elif tags:
            there = ModelCard.load(card)
            there.data.tags = [*(there.data.tags or []), *(tag for tag in tags if tag not in (there.data.tags or []))]
            there.save(card)
    files, _ = files_to_push(folder)
    if only is not None:
        files = {path: file for path, file in files.items() if path in only or path == CARD_NAME}
    options = {"token": token, "revision": revision, "create_pr": create_pr, "description": commit_description}
    return commit(full, files, message=commit_message or "Upload model", **options)
