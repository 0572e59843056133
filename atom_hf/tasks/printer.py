"""Print a task as a text that reads back to an equal one."""

import re
from itertools import groupby
from typing import TYPE_CHECKING

from .kinds import number

if TYPE_CHECKING:
    from .spec import Box, Const, Let, Source, TaskSpec


def print_task(spec: "TaskSpec") -> str:
    """The text of a task: declarations by their kind, then its atoms in blocks of the same variables."""
    parts = [
        [f"type {name} = {kind}" for name, kind in spec.types.items()],
        [_source(source) for source in spec.sources.values()],
        [_const(const) for const in spec.consts.values()],
        [_box(box) for box in spec.boxes.values()],
        [_let(let, named="" if let.name in spec.boxes else None) for let in spec.lets.values()],
        *(
            [f"for {'; '.join(map(str, over))}:", *(f"    {atom}" for atom in atoms)]
            for over, atoms in groupby(spec.atoms.values(), key=lambda atom: atom.over)
        ),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _source(source: "Source") -> str:
    types = ", ".join(map(str, source.types))
    return (
        f"data {source.name} : {types}" if source.maker is None else f"noise {source.name} : {types} = {source.maker}"
    )


def _const(const: "Const") -> str:
    value = const.value if isinstance(const.value, str) else number(const.value)
    return f"const {const.name} : {const.type} = {value}"


def _box(box: "Box") -> str:
    line = f"{box.role} {box.name} : {box.signature}"
    if box.path:
        line += f" = {box.path}" if re.fullmatch(r"[\w.~@:/\\-]+", box.path) else f' = "{box.path}"'
    if box.maker:
        line += f" = {box.maker}"
    return line + (", noisy" if box.noisy and box.maker else " noisy" if box.noisy else "")


def _let(let: "Let", named: str | None) -> str:
    """The types of parameters are those of the learner that it fills, if it does, else they are written down."""
    parameters = [p if named == "" else f"{p} : {wire}" for p, wire in zip(let.parameters, let.inputs, strict=True)]
    return f"let {let.name}({', '.join(parameters)}) = {let.body}"
