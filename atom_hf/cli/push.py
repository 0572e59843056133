"""`atom-hf push`: check a saved model and push it to the Hub."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, CONFIG_NAME

from ..atoms.config import CONFIG_NAME as ATOM_CONFIG_NAME
from ..atoms.config import MAX_BYTES
from ..errors import AtomError
from ..hub.upload import (
    CHECKPOINT,
    check_base,
    check_repository,
    check_secret,
    check_token,
    commit,
    files_to_push,
    open_repository,
)
from ..modeling.finite import check_finite_files
from ..modeling.heads_file import HEADS_NAME, is_torn
from ..modeling.load import load_atom_model
from ..utils.files import complete, read_json


def _flag(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class PushArguments:
    """The target of a push. The token is that of `hf auth login`, or HF_TOKEN."""

    repo: str | None = _flag(
        "The repository on the Hub: org/name, or a name within your own account. Created if it does not exist."
    )
    private: bool = _flag("Create the repository as private.", False)
    revision: str | None = _flag("The branch to push to, created if it does not exist; main by default.")
    commit_message: str | None = _flag("The commit's message.")
    create_pr: bool = _flag("Open a pull request instead of writing to main.", False)


class Pushed(NamedTuple):
    """The result of a push."""

    url: str
    """Of the commit, or of the pull request."""
    files: list[str]
    left_out: list[str]


def push_folder(folder: str, options: PushArguments) -> Pushed:
    """Pushes a model that was trained with atoms: everything in its folder except checkpoints, code and pickles.

    A checkpoint of a run in progress is pushed in the form that a finished model has: the base alone in its file, and the
    heads beside it.

    Raises:
        AtomError: a folder without a complete atom model, an unusable name or token, a push that was rejected or interrupted.
            Nothing has changed on the Hub then, except that the repository may have been created.
    """
    if options.repo is None:
        raise AtomError("give --repo: org/name on the Hub, or a name within your own account")
    check_repository(options.repo, "--repo")
    if options.create_pr and options.revision is not None:
        raise AtomError(f"--create_pr asks to change main, and --revision names {options.revision!r}; give one of them")
    check_token()
    with _final_form(folder, options.repo) as ready:
        files, left_out = files_to_push(ready)
        check_secret(files)
        name = open_repository(options.repo, private=options.private or None, write=not options.create_pr)
        made = commit(
            name,
            files,
            message=options.commit_message or f"Push {Path(folder).resolve().name}",
            revision=options.revision,
            create_pr=options.create_pr,
        )
    return Pushed(made.pr_url or made.commit_url, sorted(files), left_out)


def check_folder(folder: str | Path, repository: str = "") -> bool:
    """Rejects a folder without a complete atom model. Returns whether its heads are in the final form: a file beside the base,
    with the configuration that they were saved with.

    The base is built without its weights, and each tensor in the files is compared with it: one that is missing or of
    another shape would be initialized at random when the model is loaded.

    Raises:
        AtomError: what is missing, or does not fit.
    """
    if not Path(folder).is_dir():
        raise AtomError(f"{str(folder)!r}: no such folder; give the one that the model was saved to")
    complete(folder)
    adapter = Path(folder, ADAPTER_CONFIG_NAME).is_file()
    if not adapter and not Path(folder, CONFIG_NAME).is_file():
        inside = sorted(p.name for p in Path(folder).glob(f"{CHECKPOINT}*") if Path(p, CONFIG_NAME).is_file())
        advice = f"; it holds {', '.join(inside)}, and each of them can be pushed" if inside else ""
        raise AtomError(f"{str(folder)!r} holds no model: {CONFIG_NAME} is missing{advice}")
    torn = is_torn(folder)
    if not torn and not Path(folder, ATOM_CONFIG_NAME).is_file():
        raise AtomError(
            f"{str(folder)!r} has no {ATOM_CONFIG_NAME}: it was not trained with --atom, and `hf upload` pushes it as it is"
        )
    final = Path(folder, HEADS_NAME).is_file()
    if adapter:
        base = read_json(Path(folder, ADAPTER_CONFIG_NAME), MAX_BYTES, "adapter configuration").get(
            "base_model_name_or_path"
        )
        check_base(base, repository, f"the adapter {str(folder)!r}")
        if not final or not Path(folder, ADAPTER_SAFE_WEIGHTS_NAME).is_file():
            raise AtomError(
                f"{str(folder)!r} is not a finished adapter with heads: it lacks {HEADS_NAME} or {ADAPTER_SAFE_WEIGHTS_NAME}; "
                "give the folder that the run was saved to in the end"
            )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*copying from a non-meta parameter"
        )  # of an adapter; none of it is needed here
        load_atom_model(
            Path(folder).resolve(), device_map="meta"
        )  # an absolute path, which cannot be a name on the Hub
    check_finite_files(folder)
    return final and not torn


@contextmanager
def _final_form(folder: str, repository: str) -> Iterator[Path]:
    """The folder itself; of a checkpoint, or a model whose last save was cut short, a copy in the form of a finished model."""
    if check_folder(folder, repository):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        ready = Path(temporary)
        load_atom_model(Path(folder).resolve()).save_pretrained(ready)
        files, _ = files_to_push(folder)
        written = {path.name for path in ready.iterdir()}
        for name, file in files.items():
            if name not in written and not name.endswith((".safetensors", ".safetensors.index.json")):
                (ready / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, ready / name)
        yield ready


def main(arguments: list[str]) -> None:
    """`atom-hf push`."""
    from ..finetune.flags import parse_flags

    wants_help = {"-h", "--help"} & set(arguments)
    if not wants_help and (not arguments or arguments[0].startswith("-")):
        raise AtomError("give the model's folder first: atom-hf push FOLDER --repo org/name")
    folder, rest = ("", arguments) if wants_help else (arguments[0], arguments[1:])
    (options,) = parse_flags("push FOLDER", rest, [PushArguments])
    pushed = push_folder(folder, options)
    print(f"files     {', '.join(pushed.files)}")
    if pushed.left_out:
        print(f"left out  {', '.join(pushed.left_out)}")
    print(f"pushed    {pushed.url}")
