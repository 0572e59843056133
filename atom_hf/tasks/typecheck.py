"""Types of expressions, and the checks of an atom."""

from collections.abc import Mapping, Sequence

from ..errors import AtomError
from .functions import BUILT_IN
from .kinds import Type
from .spec import KEYWORDS, Atom, Box, Let, TaskSpec, pick
from .syntax import Call, Expression, Group, Name, Part, boxes_in, walk

BY_LOGITS = ("class", "logit", "tokens")
"""Kinds whose divergences compare the logits of the left side: only a box gives them."""

LAWS = ("energy",)
"""Divergences of `~`."""


def wires_of(spec: TaskSpec, expression: Expression, variables: Mapping[str, Type], where: str) -> list[Type]:
    """The types of an expression's wires. Raises `AtomError`, beginning with `where`."""
    match expression:
        case Name(name):
            if name in variables:
                return [variables[name]]
            if name in spec.consts:
                return [spec.consts[name].type]
            if (what := spec.what_is(name)) is not None:
                hint = f"; write {name}(...)" if what not in ("a data source", "a noise source") else ""
                raise AtomError(f"{where}: {name} is {what}, where a variable or a constant is expected{hint}")
            raise AtomError(f"{where}: no such variable: {name}; there are {', '.join([*variables, *spec.consts])}")
        case Group(parts):
            return [wire for part in parts for wire in wires_of(spec, part, variables, where)]
        case Part(whole, index):
            wires = wires_of(spec, whole, variables, where)
            if not 1 <= index <= len(wires):
                raise AtomError(f"{where}: {whole} has {_wires(wires)}, and no wire {index}")
            return [wires[index - 1]]
        case Call(box, arguments):
            given = [(wire, part) for part in arguments for wire in wires_of(spec, part, variables, where)]
            return _applied(spec, box, given, where)


def _applied(spec: TaskSpec, name: str, given: Sequence[tuple[Type, Expression]], where: str) -> list[Type]:
    """The wires that a box gives of wires, each with the expression that it comes from."""
    found = box_of(spec, name)
    if found is None and name not in BUILT_IN:
        what = spec.what_is(name)
        says = f"{name} is {what}, not a box" if what else f"no such box: {name}"
        raise AtomError(f"{where}: {says}; {spec.names_of_boxes()}")
    types = [wire for wire, _ in given]
    if found is None:
        made = BUILT_IN[name].rule(types)
        if made is None:
            raise AtomError(f"{where}: {name} is {BUILT_IN[name].takes}; it cannot take {_wires(types)}")
        return [made]
    if len(types) != len(found.inputs):
        raise AtomError(f"{where}: {name} takes {_wires(found.inputs)}, got {_wires(types)}")
    for (wire, part), wanted in zip(given, found.inputs, strict=True):
        if not wire.fits(wanted):
            raise AtomError(f"{where}: wire {part} into {name} is {wire}, {name} takes {wanted}")
    return list(found.outputs)


def box_of(spec: TaskSpec, name: str) -> Box | Let | None:
    """The let or box of a name; None if it is not declared."""
    return spec.lets.get(name) or spec.boxes.get(name)


def parameter_types(spec: TaskSpec, given: Mapping[str, Type | None], body: Expression, where: str) -> dict[str, Type]:
    """The types of a let's parameters: as given, or those of the boxes that they go into. Raises `AtomError`."""
    types = dict(given)
    for call in (part for part in walk(body) if isinstance(part, Call)):
        box, place = box_of(spec, call.box), 0
        if box is None:
            continue
        for argument in call.arguments:
            if isinstance(argument, Name) and argument.name in types and place < len(box.inputs):
                types[argument.name] = types[argument.name] or box.inputs[place]
            place += _width(spec, argument)
    unknown = [name for name, found in types.items() if found is None]
    if unknown:
        raise AtomError(
            f"{where}: the type of {unknown[0]} is not known; write it behind the name, as in {unknown[0]} : image"
        )
    return {name: found for name, found in types.items() if found is not None}


def _width(spec: TaskSpec, expression: Expression) -> int:
    """The number of an expression's wires."""
    if isinstance(expression, Call):
        box = box_of(spec, expression.box)
        return 1 if box is None else len(box.outputs)
    return sum(_width(spec, part) for part in expression.parts) if isinstance(expression, Group) else 1


def variables_of(spec: TaskSpec, atom: Atom) -> dict[str, Type]:
    """The types of an atom's variables. Raises `AtomError` for bindings that cannot be."""
    found: dict[str, Type] = {}
    for binding in atom.over:
        pick([binding.source], spec.sources, "source", atom.name)
        source = spec.sources[binding.source]
        if len(binding.names) != len(source.types):
            columns = ", ".join(map(str, source.types))
            raise AtomError(
                f"{atom.name}: {binding.source} has {len(source.types)} columns ({columns}), and {binding} names "
                f"{len(binding.names)}; _ stands for one that is not used"
            )
        for name, wire in zip(binding.names, source.types, strict=True):
            if name == "_":
                continue
            what = "a variable" if name in found else spec.what_is(name)
            if what or name in KEYWORDS:
                says = f"is {what} already" if what else "is a word of the language"
                raise AtomError(f"{atom.name}: {name} in '{binding}' {says}; choose another name")
            found[name] = wire
    return found


def check_atom(spec: TaskSpec, atom: Atom) -> None:
    """Raises `AtomError` for an atom that does not fit the task."""
    where = atom.name
    if where in spec.atoms:
        raise AtomError(f"{where}: there is an atom of this name already; choose another name")
    if where == "_":
        raise AtomError("_: an atom needs a name")
    variables = variables_of(spec, atom)
    left = wires_of(spec, atom.left, variables, where)
    if atom.right is None:
        if len(left) != 1 or left[0].kind.name != "scalar":
            raise AtomError(f"{where}: only a scalar can be minimized, and {atom.left} is {_wires(left)}")
        if atom.divergence is not None:
            raise AtomError(f"{where}: minimize compares nothing; leave out 'by {atom.divergence}'")
    else:
        right = wires_of(spec, atom.right, variables, where)
        if len(left) != len(right) or not all(map(Type.fits, left, right)):
            raise AtomError(
                f"{where}: the sides differ: {atom.left} is {_wires(left)}, {atom.right} is {_wires(right)}"
            )
        _check_divergence(spec, atom, left)
    _check_trains(spec, atom)


def _check_divergence(spec: TaskSpec, atom: Atom, left: Sequence[Type]) -> None:
    if atom.relation == "~":
        if atom.divergence is not None and (atom.divergence.name not in LAWS or atom.divergence.options):
            raise AtomError(f"{atom.name}: {atom.divergence} does not compare laws; there is {' or '.join(LAWS)}")
        if any(wire.kind.name in ("tokens", "gaussian") for wire in left):
            raise AtomError(f"{atom.name}: ~ compares rows of numbers and classes, and {atom.left} is {_wires(left)}")
        return
    for wire in left:
        if atom.divergence is not None:
            atom.divergence.check(wire.kind, atom.name)
    for wire, made in zip(left, flat(spec, atom.left), strict=True):
        if wire.kind.name in BY_LOGITS and isinstance(made, Name):
            raise AtomError(
                f"{atom.name}: the left side of {wire.kind.name} is compared by its logits, and {made} has none; put what a "
                "box gives on the left"
            )


def flat(spec: TaskSpec, expression: Expression) -> list[Expression]:
    """What each wire of an expression is: a name, or what some box gives."""
    match expression:
        case Group(parts):
            return [wire for part in parts for wire in flat(spec, part)]
        case Part(whole, index):
            return [flat(spec, whole)[index - 1]]
        case Call(box, arguments) if box in spec.lets:
            found = spec.lets[box]
            inputs = [wire for part in arguments for wire in flat(spec, part)]
            given = dict(zip(found.parameters, inputs, strict=True))
            return [given.get(w.name, w) if isinstance(w, Name) else w for w in flat(spec, found.body)]
        case Call():
            return [expression] * _width(spec, expression)
    return [expression]


def learners_in(spec: TaskSpec, atom: Atom) -> list[str]:
    """The learners in an atom, those in its lets too, in the order in which they first come."""
    found: dict[str, None] = {}
    waiting = [boxes_in(side) for side in (atom.left, atom.right) if side is not None]
    seen: set[str] = set()
    while waiting:
        for name in waiting.pop(0):
            if name in spec.lets:
                if name not in seen:
                    seen.add(name)
                    waiting.append(boxes_in(spec.lets[name].body))
            elif name in spec.boxes and spec.boxes[name].role == "learner":
                found[name] = None
    return list(found)


def _check_trains(spec: TaskSpec, atom: Atom) -> None:
    where, inside = atom.name, learners_in(spec, atom)
    for name in atom.trains or ():
        if name in spec.lets:
            raise AtomError(f"{where}: trains {name}, which is defined by let; name the learners in it")
        if name in spec.learners and name not in inside:
            raise AtomError(f"{where}: trains {name}, which is not in it; in it are {_listed(inside)}")
        if name not in spec.learners:
            what = spec.what_is(name)
            says = f"which is {what}, not a learner" if what else "which is unknown"
            raise AtomError(f"{where}: trains {name}, {says}; in it are {_listed(inside)}")
    if atom.trains and len(set(atom.trains)) != len(atom.trains):
        raise AtomError(f"{where}: trains names a learner twice: {', '.join(atom.trains)}")


def _wires(wires: Sequence[Type]) -> str:
    return ", ".join(map(str, wires))


def _listed(names: object) -> str:
    return ", ".join(names) or "none"
