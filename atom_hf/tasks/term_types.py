"""The types of terms."""

from .functions import BUILT_IN
from .kinds import Type
from .spec import TaskSpec
from .terms import Term


class Types:
    """The types of terms of a task."""

    def __init__(self, spec: TaskSpec):
        self.spec = spec

    def of(self, term: Term) -> Type:
        """The type of a term."""
        spec = self.spec
        match term.op:
            case "var":
                source, _, column = term.label
                return spec.sources[source].types[column]
            case "const":
                return spec.consts[term.label[0]].type
            case "part":
                return spec.boxes[term.arguments[0].label[0]].outputs[term.label[0]]
        name = term.label[0]
        if name in spec.boxes:
            return spec.boxes[name].outputs[0]
        return BUILT_IN[name].rule([self.of(part) for part in term.arguments])

    def is_free(self, term: Term) -> bool:
        """Whether a variable is an independent class noise with full support."""
        if term.op != "var":
            return False
        source = self.spec.sources[term.label[0]]
        return (
            not source.is_data and source.types[0].kind.name == "class" and source.maker.name in ("uniform", "marginal")
        )
