"""Checks of a task as a whole: that something is trained, and that what is trained is not solved by doing nothing."""

from ..errors import AtomError
from .spec import TaskSpec
from .terms import Sides, Term, canonical, replaced, show, sides_of, subterms
from .typecheck import learners_in


def check_whole(spec: TaskSpec) -> None:
    """Raises `AtomError` for a task without atoms, without weight, or with a learner that no atom trains."""
    if not spec.atoms:
        raise AtomError("the task has no atom; write one below a line such as 'for x, y in D:'")
    weighed = [atom for atom in spec.atoms.values() if atom.weight > 0]
    if not weighed:
        raise AtomError(f"all weights are 0: {', '.join(spec.atoms)}; give at least one atom a weight above 0")
    trained = {name for atom in weighed for name in (atom.trains or learners_in(spec, atom))}
    left_out = [name for name in spec.learners if name not in trained]
    if left_out:
        raise AtomError(
            f"learner {left_out[0]}: no atom trains it; use it in an atom with a weight above 0, or declare it fixed"
        )


def check_not_trivial(spec: TaskSpec) -> None:
    """Raises `AtomError` for a learner that the identity replaces: every atom with it holds then, and nothing is learned.

    Such are laws of an editor whose attribute is the datum's own label: an editor that changes nothing keeps them all. (A
    learner of one input is left alone: its network may be too narrow for the identity, as that of an autoencoder.)
    """
    sides = [sides_of(spec, atom) for atom in spec.atoms.values() if atom.weight > 0]
    for name, box in spec.learners.items():
        if len(box.inputs) < 2:
            continue
        places = [place for place, wire in enumerate(box.inputs) if len(box.outputs) == 1 and wire == box.outputs[0]]
        mine = [one for one in sides if any(_is(term, name) for term in subterms(*one.left, *one.right))]
        others = [canonical((*one.left, *one.right)) for one in sides if one not in mine and one.atom.relation == "=="]
        for place in places:
            if mine and all(_holds(spec, _projected(one, name, place), others) for one in mine):
                call = next(term for one in mine for term in subterms(*one.left, *one.right) if _is(term, name))
                shown, kept = show(call, mine[0].names), show(call.arguments[place], mine[0].names)
                raise AtomError(
                    f"{', '.join(one.atom.name for one in mine)}: {shown} = {kept} solves all that {name} is in, so that it "
                    "learns to change nothing; draw what it depends on independently, as in 'noise A : label = marginal(D.2)'"
                )


def _is(term: Term, name: str) -> bool:
    return term.op == "box" and term.label[0] == name


def _projected(one: Sides, name: str, place: int) -> Sides:
    """The sides with one input of a box in place of what it gives."""
    terms = (*one.left, *one.right)
    while calls := [term for term in subterms(*terms) if _is(term, name)]:
        by = {calls[0]: calls[0].arguments[place]}  # the innermost first: the others change with it
        terms = tuple(replaced(term, by) for term in terms)
    return Sides(one.atom, terms[: len(one.left)], terms[len(one.left) :], one.names)


def _holds(spec: TaskSpec, one: Sides, others: list[tuple[Term, ...]]) -> bool:
    if one.atom.relation == "minimize":
        return False
    if one.atom.relation == "~":
        return canonical(one.left) == canonical(one.right)
    pairs = zip(one.left, one.right, strict=True)
    return all(a is b or canonical((a, b)) in others or _reads_label(spec, a, b) for a, b in pairs)


def _reads_label(spec: TaskSpec, read: Term, label: Term) -> bool:
    """Whether one side is what a fixed box reads from a row, and the other a column of that row."""
    if label.op != "var" or read.op != "box" or not spec.sources[label.label[0]].is_data:
        return False
    leaves = [term for term in subterms(read) if term.op == "var"]
    boxes = [term.label[0] for term in subterms(read) if term.op == "box"]
    return all(leaf.label[:2] == label.label[:2] for leaf in leaves) and all(box in spec.fixed for box in boxes)
