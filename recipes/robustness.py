"""Writes docs/robustness.md, what is promised and what the suite tries, from the tests: python recipes/robustness.py

A test says what promise it holds by a marker, on itself or on its module:

    @pytest.mark.promise("No token is shown, logged, saved or pushed.")
    pytestmark = pytest.mark.promise("A push is one commit, or none.", "pushes that are cut, refused or repeated")

The first string is the promise, of one sentence; the second, if there is one, says what is tried, in place of the tests' names.
A test with a marker of its own does not count for its module's. Nothing is run or imported: the files are read alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "robustness.md"

HEAD = """# What is promised, and what the suite tries

Each row is a promise that tests hold, and what they try, in the words of their names.
The tests carry the promise as a marker; `python recipes/robustness.py` makes this page from them, and `tests/project/test_robustness.py` checks that it did.

| promise | what the suite tries |
| --- | --- |
"""  # noqa: E501

Promise = tuple[str, str | None]


def promises(folder: Path) -> Iterator[tuple[str, str, str | None, str]]:
    """(promise, file, what is tried if a marker says it, name of the test) of each test below `folder` that has a marker.

    Raises:
        ValueError: a marker that is not of one or two literal strings.
    """
    for path in sorted(folder.rglob("test_*.py")):
        file = path.relative_to(folder.parent).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        shared: list[Promise] = []
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "pytestmark" for name in node.targets):
                marks = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
                shared += _marked(marks, file)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for sentence, tries in _marked(node.decorator_list, file) or shared:
                    yield sentence, file, tries, node.name


def _marked(marks: list[ast.expr], file: str) -> list[Promise]:
    found: list[Promise] = []
    for mark in marks:
        if not ast.unparse(mark).startswith("pytest.mark.promise"):
            continue
        given = mark.args if isinstance(mark, ast.Call) and not mark.keywords else []
        texts = [text.value for text in given if isinstance(text, ast.Constant) and isinstance(text.value, str)]
        if len(texts) not in (1, 2) or len(texts) < len(given):
            raise ValueError(
                f"{file}:{mark.lineno}: promise takes one or two strings, as they are: {ast.unparse(mark)}"
            )
        found.append((texts[0], texts[1] if len(texts) == 2 else None))
    return found


def page(folder: Path = ROOT / "tests") -> str:
    """The page, of the tests below `folder`."""
    rows: dict[str, dict[str, list[str]]] = {}
    for sentence, file, tries, name in promises(folder):
        tried = rows.setdefault(sentence, {}).setdefault(file, [])
        words = tries or name.removeprefix("test_").replace("_", " ")
        if words not in tried:
            tried.append(words)
    lines = []
    for sentence, files in rows.items():
        cells = [f"{'; '.join(tried)} ([{Path(file).name}](../{file}))" for file, tried in files.items()]
        lines.append(f"| {_cell(sentence)} | {_cell('<br>'.join(cells))} |\n")
    return HEAD + "".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
