"""Escape untrusted text for Markdown."""

import json
import re
from typing import Any


def plain(value: Any, limit: int = 100) -> str:
    """Untrusted text as one line of printable characters; those that reorder or hide others are replaced."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() or c in "\u200c\u200d" else "\ufffd" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape_line(text: str) -> str:
    """A line of untrusted text within a block of code, which it cannot end; its indentation stays."""
    start = len(text) - len(text.lstrip(" "))
    return " " * start + plain(text, 150).replace("`", "'")


def literal(value: str) -> str:
    """Untrusted text as a Python string literal."""
    return json.dumps(plain(value), ensure_ascii=False)


def code(value: Any) -> str:
    """Untrusted text as inline code, between more backticks than it holds."""
    text = plain(value)
    if not text:
        return "(empty)"
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def shown(value: Any) -> str:
    """Untrusted text unchanged if it has no meaning in Markdown, else as inline code."""
    text = plain(value)
    is_plain = re.fullmatch(r"[\w ,;%()\[\]+±.-]+", text) and not re.search(r"\]\(|www\.|\b_|_\b", text)
    return text if is_plain else code(text)


def cell(value: Any) -> str:
    """`shown` for a table cell, which a bar would end (and one after a backslash may or may not)."""
    text = plain(value)
    return "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text) if "|" in text else shown(text)
