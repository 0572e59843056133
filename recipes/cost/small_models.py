"""What the flag costs a small model, whose steps are so short that the number of calls counts: the section of the report."""

from typing import Any

from atom_hf.utils.tables import markdown

FORMS = {"vit-small separation": "separation", "vit-small paper": "paper"}
TITLE = "ViT of 3 layers, width 48"
FLAGS = [
    *("--model_type", "vit", "--config_overrides"),
    "hidden_size=48,num_hidden_layers=3,num_attention_heads=4,intermediate_size=96,image_size=28,patch_size=7,num_channels=1",
]
PAIRS = (200, 20)  # a pair takes hundredths of a second
TIME_GOAL = 1.15
CALLS_GOAL = 120

HEAD = """## A small model

A {title}, from scratch, on {samples} images of 28 x 28 pixels.
Its steps are so short that what an operation costs is its launch, and the number of operations counts more than their size.
They are counted by the profiler, below autograd: a composite operator counts as what it calls, views and allocations do not count, and a call over a list of tensors, as the optimizer makes it, is one (`atom_hf/benchmark/operations.py`).

"""  # noqa: E501


def flags(part: str) -> list[str]:
    """What `atom-hf bench` is called with for one of `FORMS`."""
    return [*FLAGS, "--atom_form", FORMS[part]]


def goals(found: dict[str, Any], where: str) -> list[tuple[str, str, float | None, float, tuple[float, float] | None]]:
    """(what, the goal in words, what was found, the goal, the interval) of each goal of a device."""
    rows = []
    for part, form in FORMS.items():
        one = found.get(part)
        interval = one and (one["time"]["low"], one["time"]["high"])
        name = f"{where}, {TITLE}, {form}"
        rows.append((f"step time, {name}", f"at most {TIME_GOAL}", one and one["time"]["ratio"], TIME_GOAL, interval))
        calls = one and one["profile"]["operators"]["total"]
        rows.append((f"the flag's operations in a step, {name}", f"under {CALLS_GOAL}", calls, CALLS_GOAL - 1, None))
    return rows


def section(results: dict[str, dict[str, Any]], kinds: dict[str, str]) -> str:
    """The time of paired steps, and the operations that the flag adds, by part."""
    measured = {kind: {p: found[p] for p in FORMS if p in found} for kind, found in results.items()}
    measured = {kind: ones for kind, ones in measured.items() if ones}
    if not measured:
        return ""
    rows, tables = [], []
    for kind, ones in measured.items():
        for part, one in ones.items():
            time, calls = one["time"], one["profile"]["operators"]
            spread = f"{time['ratio']:.3f} [{time['low']:.3f}, {time['high']:.3f}], {one['pairs']}"
            numbers = [f"{calls['plain']:.0f}", f"{calls['total']:.0f}"]
            rows.append([f"{one['device']}, {one['precision']}", FORMS[part], spread, *numbers])
        tables.append(_parts({FORMS[part]: one["profile"]["operators"] for part, one in ones.items()}, kinds[kind]))
    first = next(iter(next(iter(measured.values())).values()))
    header = ["device", "form", "step time [95 %], pairs", "operations of the plain step", "of the flag"]
    return HEAD.format(title=TITLE, samples=first["samples"]) + markdown(header, rows) + "".join(tables) + "\n"


def _parts(calls: dict[str, dict[str, Any]], kind: str) -> str:
    """The flag's operations by part, forward and backward, a column each of every form."""
    names = dict.fromkeys(name for one in calls.values() for name, *_ in one["rows"])
    header = ["part", *(f"{form}, {side}" for form in calls for side in ("forward", "backward"))]
    rows = []
    for name in names:
        sides = [next((sides for part, *sides in one["rows"] if part == name), (0, 0)) for one in calls.values()]
        if any(map(any, sides)):
            rows.append([name, *(f"{value:.0f}" for pair in sides for value in pair)])
    rows.append(["rest", *(text for one in calls.values() for text in (f"{one['rest']:.0f}", ""))])
    rows.append(["all", *(text for one in calls.values() for text in (f"{one['total']:.0f}", ""))])
    return f"\nThe flag's operations by part, {kind}:\n\n" + markdown(header, rows)
