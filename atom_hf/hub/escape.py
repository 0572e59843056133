"""Escape untrusted text for Markdown."""

import json
import re
from typing import Any


def plain(value: Any, limit: int = 100) -> str:
    """Anybody's text in one line of letters that can be seen; what would reorder or hide others is replaced."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() or c in "\u200c\u200d" else "\ufffd" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def literal(value: str) -> str:
    return json.dumps(plain(value), ensure_ascii=False)


def code(value: Any) -> str:
    """Anybody's text as code, between more backticks than it holds."""
    text = plain(value)
    if not text:
        return "(empty)"
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def shown(value: Any) -> str:
    """Anybody's text as it is where Markdown makes nothing else of it, else as code."""
    text = plain(value)
    is_plain = re.fullmatch(r"[\w ,;%()\[\]+±.-]+", text) and not re.search(r"\]\(|www\.|\b_|_\b", text)
    return text if is_plain else code(text)


def cell(value: Any) -> str:
    """The same in a table, where a bar would end the cell, and one after a backslash may or may not."""
    text = plain(value)
    return "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text) if "|" in text else shown(text)
