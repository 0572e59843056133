"""The help of commands: the flags in groups, the common ones of Trainer unless all are asked for."""

import dataclasses
import re
from dataclasses import dataclass, field

import pytest

from atom_hf import AtomError, AtomTrainingArguments
from atom_hf.finetune.arguments import ExplainerArguments, RunArguments, StoppingArguments
from atom_hf.finetune.flags import parse_flags

TRAIN = [RunArguments, AtomTrainingArguments, ExplainerArguments, StoppingArguments]


@dataclass
class Own:
    """The flags of some command."""

    pairs: int = field(default=0, metadata={"help": "Number of pairs."})
    shape: str = field(default="round", metadata={"help": "100% of the shape.", "choices": ["round", "flat"]})
    names: list[str] = field(default_factory=list, metadata={"help": "Names."})
    page: bool = field(default=True, metadata={"help": "A page."})


def shown(kinds, capsys, flag="--help", command="some"):
    with pytest.raises(SystemExit) as stop:
        parse_flags(command, [flag], kinds)
    assert stop.value.code == 0
    return capsys.readouterr().out


def groups(text):
    """The names of the flags of each group."""
    found = {}
    for part in text.split("\n\n")[1:]:
        title, *lines = part.splitlines()
        if title.endswith(":"):
            names = found.setdefault(title.partition(" (")[0].rstrip(":"), [])
            names += re.findall(r"^  --(\w+)", "\n".join(lines), re.MULTILINE)
    return found


def test_the_flag_and_its_options_come_first_and_then_explainer_data_model_and_trainer(capsys):
    found = groups(shown(TRAIN, capsys))
    assert list(found) == ["Atoms", "Explainer", "Data", "Model", "Training", "Also"]
    atoms = found["Atoms"]
    assert atoms[0] == "atom" and len(atoms) > 15 and all(name.startswith("atom") for name in atoms)
    assert found["Explainer"] == ["explainer", "explainer_samples", "explainer_seconds"]
    assert {"dataset", "label_column", "max_length"} <= set(found["Data"])
    assert {"model", "model_type", "tokenizer"} <= set(found["Model"])
    assert {*found["Data"], *found["Model"]} == {f.name for f in dataclasses.fields(RunArguments)}
    assert {"learning_rate", "early_stopping_patience", "push_to_hub"} <= set(found["Training"])
    assert found["Also"] == ["help", "config", "help_all"]


def test_it_is_short_and_all_of_it_is_asked_for(capsys):
    brief, whole = shown(TRAIN, capsys), shown(TRAIN, capsys, "--help_all")
    assert len(brief.splitlines()) < 180 < len(whole.splitlines())
    named = [name for names in groups(whole).values() for name in names]
    assert sorted(named) == sorted(
        {f.name for kind in TRAIN for f in dataclasses.fields(kind)} | {"help", "config", "help_all"}
    )
    left = len(named) - sum(map(len, groups(brief).values()))
    assert f"--help_all lists the other {left} flags" in brief and "lists the other" not in whole
    assert max(map(len, whole.splitlines())) <= 120


def test_a_command_shows_its_own_flags_first_and_none_that_it_has_no_use_for(capsys):
    found = groups(shown([RunArguments, AtomTrainingArguments, Own], capsys))
    assert list(found)[:2] == ["This command", "Atoms"] and found["This command"] == ["pairs", "shape", "names", "page"]
    assert not {"push_to_hub", "resume_from_checkpoint", "save_steps"} & set(found["Training"])
    whole = groups(shown([RunArguments, AtomTrainingArguments, Own], capsys, "--help_all"))
    assert {"push_to_hub", "resume_from_checkpoint"} <= {name for names in whole.values() for name in names}


@pytest.mark.parametrize(
    "line",
    [
        "  --pairs N                         Number of pairs. [0]",
        "  --shape round|flat                100% of the shape. [round]",
        "  --names VALUE ...                 Names.",
        "  --page | --no_page                A page.",
        "  --help                            Show these flags.",
    ],
)
def test_values_and_defaults_are_shown(line, capsys):
    assert line in shown([Own], capsys).splitlines()


def test_flags_that_do_not_exist_point_to_the_help_that_lists_them(capsys):
    assert "help_all" not in shown([Own], capsys)
    for kinds, asks in (([Own], "--help"), (TRAIN, "--help_all")):
        with pytest.raises(AtomError, match=f"no such flag: --paris; atom-hf some {asks} lists them$"):
            parse_flags("some", ["--paris", "3"], kinds)
