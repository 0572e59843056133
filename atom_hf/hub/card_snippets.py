"""Python code of a model card. Its blocks run one after the other as they stand, wherever the model lies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import transformers

from .escape import literal

if TYPE_CHECKING:
    from .card import CardFacts

NO_REPOSITORY = "path/to/model"

ANY_TEXT = "Which words matter here?"

BASES_OWN = "  # the base's"  # ends a line that names another repository, and stays when the model is pushed elsewhere

_STRING = r'"(?:[^"\\]|\\.)*"'

# Tasks whose models take one text, a pair, or one picture, and nothing else.
_USES = {
    "text-classification": "print(model.config.id2label[model(**inputs).logits.argmax().item()])",
    "image-classification": "print(model.config.id2label[model(**inputs).logits.argmax().item()])",
    "text-generation": "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))",
    "token-classification": "outputs = model(**inputs)",
    "feature-extraction": "outputs = model(**inputs)",
}


class _Code(NamedTuple):
    imports: list[str]
    lines: list[str]


def plain_code(facts: CardFacts) -> str:
    """Code that loads and uses the model without this package; empty for a class that Transformers does not have."""
    name, repo = facts.model_class, _repository(facts)
    if not name or not hasattr(transformers, name):
        return ""
    imports, lines = [f"from transformers import {name}"], [f"model = {name}.from_pretrained({repo})"]
    if facts.library == "peft":
        classes = f", num_labels={len(facts.labels)}" if facts.labels and name.endswith("Classification") else ""
        base = literal(facts.base_model or "path/to/base")
        imports = ["from peft import PeftModel", *imports]
        lines = [
            f"base = {name}.from_pretrained({base}{classes}){BASES_OWN}",
            f"model = PeftModel.from_pretrained(base, {repo})",
        ]
    if (inputs := _inputs(facts)) is not None:
        imports, lines = [*imports, *inputs.imports], [*lines, *inputs.lines, _USES[facts.pipeline_tag]]
    return _joined(imports, lines)


def atom_code(facts: CardFacts) -> str:
    """Code that gives the importance of each token, for the `inputs` of the code before it, if there is any."""
    imports, lines = ["from atom_hf import load_atom_model"], [f"model = load_atom_model({_repository(facts)})"]
    inputs = _inputs(facts)
    if inputs is None:
        lines.append("# `inputs` are what the model's tokenizer or processor gives, as tensors:")
    elif not plain_code(facts):
        imports, lines = [*imports, *inputs.imports], [*lines, *inputs.lines]
    use = "importance = model.atom_importance(**inputs)  # [B, N] in [-1, 1], NaN where there is no token"
    return _joined(imports, [*lines, f"# {use}" if inputs is None else use])


def pipeline_code(facts: CardFacts) -> str:
    """Code that gives the importance of each word or pixel; empty where the pipeline would not find what it needs."""
    if facts.library == "peft" or not facts.has_processor or (inputs := _inputs(facts)) is None:
        return ""
    sample = _sample(facts)
    if len(sample) > 1:
        sample = [f'{{"text": {sample[0]}, "text_pair": {sample[1]}}}']
    imports = ["import atom_hf  # makes the pipeline known", "from transformers import pipeline"]
    picture = [line for line in inputs.lines if line.startswith(("file = ", "picture = "))]
    imports += [line for line in inputs.imports if picture and "transformers" not in line]
    lines = [f'read = pipeline("token-importance", model={_repository(facts)})', f"print(read({sample[0]}))"]
    return _joined(imports, [*picture, *lines])


def load_from(text: str, repo_id: str, revision: str | None) -> str:
    """Make the code in a generated card load from this repository."""
    known = re.search(rf"(?m)^model = load_atom_model\(({_STRING})", text)
    if known is None:
        return text
    # A pull request is read from main once it is merged.
    branch = f", revision={literal(revision)}" if revision not in (None, "main") and revision[:5] != "refs/" else ""
    given = r"(model=|_pretrained\((?:.*, )?|load_atom_model\(|_download\()"
    old = rf"{given}{re.escape(known[1])}(?:, revision={_STRING})?"

    def mend(block: re.Match) -> str:
        lines = block[0].split("\n")
        new = (re.sub(old, lambda match: f"{match[1]}{literal(repo_id)}{branch}", line) for line in lines)
        return "\n".join(line if BASES_OWN in line else other for line, other in zip(lines, new, strict=True))

    return re.sub(r"(?ms)^```python\n.*?^```$", mend, text)


def _repository(facts: CardFacts) -> str:
    return literal(facts.repo_id or NO_REPOSITORY)


def _inputs(facts: CardFacts) -> _Code | None:
    """Code that makes `inputs` of a text or a picture; None where the model takes something else."""
    if facts.pipeline_tag not in _USES or facts.inputs not in ("text", "image"):
        return None
    kind, name = ("AutoTokenizer", "tokenizer") if facts.inputs == "text" else ("AutoImageProcessor", "processor")
    if facts.has_processor or not facts.base_model:
        loading = f"{name} = {kind}.from_pretrained({_repository(facts)})"
    else:
        loading = f"{name} = {kind}.from_pretrained({literal(facts.base_model)}){BASES_OWN}"
    imports, lines = [f"from transformers import {kind}"], [loading]
    if facts.inputs == "image":
        imports.append("from PIL import Image")
        mode = "L" if facts.channels == 1 else "RGB"
        if facts.sample_picture:
            imports.append("from huggingface_hub import hf_hub_download")
            lines.append(f"file = hf_hub_download({_repository(facts)}, filename={literal(facts.sample_picture)})")
            lines.append(f'picture = Image.open(file).convert("{mode}")')
        else:
            lines.append(f'picture = Image.new("{mode}", (224, 224))  # put your own here')
    lines.append(f'inputs = {name}({", ".join(_sample(facts))}, return_tensors="pt")')
    return _Code(imports, lines)


def _sample(facts: CardFacts) -> list[str]:
    """What the model is tried on, as Python: a text, a pair, or the name of a picture."""
    if facts.inputs == "image":
        return ["picture"]
    example = next(iter(facts.examples), None)
    return (
        [literal(text) for text in (example.text, example.pair) if text is not None] if example else [literal(ANY_TEXT)]
    )


def _joined(imports: list[str], lines: list[str]) -> str:
    """Imports in order, those of one module together, then the lines."""
    names: dict[str, list[str]] = {}
    for line in dict.fromkeys(imports):
        module, _, name = line.partition(" import ")
        names.setdefault(module, []).extend([name] if name else [])
    modules = sorted(names, key=lambda module: module.split()[1].lower())
    told = [f"{module} import {', '.join(sorted(names[module]))}" if names[module] else module for module in modules]
    return "\n".join([*told, "", *lines])
