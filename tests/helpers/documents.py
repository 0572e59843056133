"""The documents: their links and blocks, and a folder in which their commands and Python run as they are printed."""

import csv
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from markdown_it import MarkdownIt

from helpers.paths import ROOT

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]

# Flags that make a command brief, after those that are printed: the last of two equal flags counts.
BRIEF = {
    "train": "--logging_steps 5",
    "compare": "--seeds 2 --max_steps 2",
    "faithfulness": "--samples 2 --check_samples 1 --perturbations 2 --curve_steps 2 "
    "--methods importance,random,integrated_gradients",
    "bench": "--pairs 2 --warmup_pairs 1 --tokens 8",
}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[Block]:
    """The fenced blocks of a page that are of one language, in their order."""
    fences = [token for token in MarkdownIt().parse(read(page)) if token.type == "fence"]
    return [Block(page, f.map[0] + 1, language, f.content) for f in fences if f.info.split()[:1] == [language]]


def python_with(page: str, word: str) -> str:
    """The one block of Python on a page that holds a word."""
    (found,) = (block.text for block in blocks(page, "python") if word in block.text)
    return found


def run_python(text: str, place: str = "example", **names) -> dict:
    """Runs Python as a script would: in a module of its own, which holds `names` before. Returns what it holds after.

    `place` is shown in tracebacks.
    """
    module = sys.modules["example"] = ModuleType("example")  # what is defined there can be pickled
    vars(module).update(names)
    exec(compile(text, place, "exec"), vars(module))
    return vars(module)


def commands(page: str) -> list[str]:
    """The commands of a page, one a line of its `bash` blocks."""
    lines = "".join(block.text for block in blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def files(page: str) -> dict[str, str]:
    """The files that a page shows: the YAML blocks whose first line is a comment with a name."""
    found = {}
    for block in blocks(page, "yaml"):
        name = re.match(r"# (\S+\.yaml)\n", block.text)
        assert name, f"{block.page}:{block.line}: begin a block of YAML with the name of its file, as a comment"
        found[name[1]] = block.text
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: str) -> list[str]:
    """The targets of a page's links and pictures that lie in the repository, outside its code."""
    tokens = [child for token in MarkdownIt().enable("table").parse(read(page)) for child in token.children or ()]
    targets = [
        token.attrGet("href") or token.attrGet("src") for token in tokens if token.type in ("link_open", "image")
    ]
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def make_folder(folder: Path) -> None:
    """Writes what the documents take for granted: a checkpoint, tables, texts and pictures, tiny and by their names."""
    from PIL import Image

    from helpers.models import digits, make_tokenizer, tiny, verse

    tiny("bert", num_labels=2).save_pretrained(folder / "bert-base-uncased")
    make_tokenizer().save_pretrained(folder / "bert-base-uncased")
    rows = [(row["text"], row["label"]) for row in verse(60)]
    for name, part in (("train", rows[:24]), ("validation", rows[24:32]), ("test", rows[32:40])):
        write_table(folder / "cornell-movie-review-data" / "rotten_tomatoes" / f"{name}.csv", ("text", "label"), part)
    named = [(text, ["calm", "rough"][label]) for text, label in rows[:48]]
    write_table(folder / "my.csv", ("text", "label"), named)
    (folder / "lines.txt").write_text("".join(text + "\n" for text, _ in rows[:3]), encoding="utf-8")
    (folder / "photos").mkdir()
    for number, (pixels, label) in enumerate(digits(60)):
        picture = Image.fromarray(((pixels + 0.5) * 255).astype("uint8"))
        if number < 3:
            picture.save(folder / "photos" / f"{number}.png")
        kind = folder / "flowers" / ("daisy" if label < 5 else "rose")
        kind.mkdir(parents=True, exist_ok=True)
        picture.save(kind / f"{number}.png")
    for page in PAGES:
        for name, text in files(page).items():
            (folder / name).write_text(text, encoding="utf-8")


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    """Writes a csv file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def words(line: str) -> tuple[list[str], str | None]:
    """The words of a command, without the file that it is piped from, and that file."""
    piped = re.match(r"cat (\S+) \| ", line)
    return shlex.split(line[piped.end() :] if piped else line), piped[1] if piped else None
