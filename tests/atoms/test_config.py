"""The configuration: what it accepts, what it rejects and how it is written."""

import json
import re
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atom_hf import AtomConfig, AtomError
from atom_hf.atoms.config import FORMAT_VERSION
from atom_hf.atoms.forms import FORMS

NAN, INF = float("nan"), float("inf")


def write(folder, content):
    file = folder / "atom_config.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize("form", FORMS)
def test_the_defaults_are_valid_and_survive_a_file(form, tmp_path):
    config = AtomConfig(form=form)
    config.save(tmp_path)
    assert AtomConfig.load(tmp_path / "atom_config.json") == config


not_negative = st.floats(0, allow_infinity=False, allow_nan=False)
above_zero = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
configs = st.builds(
    AtomConfig,
    form=st.sampled_from(sorted(FORMS)),
    weight=not_negative,
    layer=st.integers(),
    tokens=st.sampled_from(["content", "all"]),
    token_reduction=st.sampled_from(["mean", "sum"]),
    softening=not_negative,
    energy_weight=not_negative,
    neutrality=not_negative,
    charge_floor=st.floats(0, 1),
    charge_floor_weight=not_negative,
    weighting=st.sampled_from(["relative", "absolute"]),
    warmup_ratio=st.floats(0, 1),
    head_learning_rate=not_negative,
    importance_std=above_zero,
    position_init=st.sampled_from(["random", "identity"]),
    hidden_size=st.none() | st.integers(1),
    special_token_ids=st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=3),
    base_model_class=st.none() | st.text(),
)
explained = st.builds(replace, configs, explainer_classes=st.integers(1), explainer_width=st.integers(1))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(configs | explained)
def test_every_configuration_survives_a_file_exactly(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("config")
    config.save(folder)
    again = AtomConfig.load(folder / "atom_config.json")
    assert again == config
    # == takes 1 for 1.0.
    assert [type(value) for value in asdict(again).values()] == [type(value) for value in asdict(config).values()]
    assert AtomConfig.from_dict(config.to_dict()) == config


def test_the_file_is_plain_json_with_every_field_and_its_format(tmp_path):
    AtomConfig(weight=0.25, special_token_ids=[0, 101]).save(tmp_path)
    data = json.loads((tmp_path / "atom_config.json").read_text(encoding="utf-8"))
    assert data.pop("format_version") == FORMAT_VERSION
    assert set(data) == {field.name for field in fields(AtomConfig)}
    assert data["weight"] == 0.25 and data["special_token_ids"] == [0, 101] and data["explainer_classes"] is None


def test_a_dictionary_does_not_share_its_lists():
    config = AtomConfig(special_token_ids=[0])
    config.to_dict()["special_token_ids"].append(1)
    assert config.special_token_ids == [0]


def test_a_whole_number_is_a_number():
    config = AtomConfig(weight=1, charge_floor=0, softening=0)
    assert (config.weight, config.charge_floor, config.softening) == (1, 0, 0)


def test_the_weight_in_force_over_a_run():
    steady = AtomConfig(warmup_ratio=0.2, schedule="constant")
    falling = AtomConfig(warmup_ratio=0.2, schedule="linear")
    assert [steady.strength(p) for p in (0, 0.1, 0.2, 0.5, 1)] == [0, 0, 1, 1, 1]
    assert [falling.strength(p) for p in (0, 0.1, 0.2, 0.5, 1)] == [0, 0, 0.8, 0.5, 0]
    assert AtomConfig(warmup_ratio=0, schedule="linear").strength(0) == 1


def test_edges_that_are_allowed():
    AtomConfig(weight=0, softening=0, energy_weight=0, neutrality=0, charge_floor_weight=0, head_learning_rate=0)
    AtomConfig(charge_floor=0, warmup_ratio=0)
    AtomConfig(charge_floor=1, warmup_ratio=1)
    AtomConfig(special_token_ids=[])


NOT_NUMBERS = [NAN, INF, -INF, "0.3", None, True, [0.3]]
BAD = [
    ("weight", 10**400),  # a whole number that no float holds
    *[
        (name, value)
        for name in (
            "weight",
            "softening",
            "energy_weight",
            "neutrality",
            "charge_floor_weight",
            "head_learning_rate",
        )
        for value in [*NOT_NUMBERS, -1e-9, -1]
        if (name, value) != ("weight", None)  # the form sets it
    ],
    *[(name, value) for name in ("charge_floor", "warmup_ratio") for value in [*NOT_NUMBERS, -0.1, 1.1, 2]],
    *[("importance_std", value) for value in [*NOT_NUMBERS, 0, 0.0, -1.0]],
    *[("layer", value) for value in [1.0, "-1", None, True, NAN]],
    *[("tokens", value) for value in ["words", "", 1, ["content"]]],
    *[("weighting", value) for value in ["both", "", 1, ["relative"]]],
    *[("form", value) for value in ["coulomb", "", 1, ["paper"]]],
    *[("distance", value) for value in ["far", "", 1, ["relative"]]],
    *[("charges", value) for value in ["free", "", 1, ["fixed"]]],
    *[("positions", value) for value in ["fixed", "", 1, ["tokens"]]],
    *[("net_charge", value) for value in [*NOT_NUMBERS, -1.1, 1.1]],
    *[("schedule", value) for value in ["cosine", "", None, 1, ["linear"]]],
    *[("position_init", value) for value in ["zero", "", None, 1, ["identity"]]],
    *[("token_reduction", value) for value in ["max", "", None, 1, ["mean"]]],
    *[("hidden_size", value) for value in [0, -1, 2.0, "8", [8], True]],
    *[("special_token_ids", value) for value in [1, "1", (1,), {1: 1}, [1.0], ["1"], [None], [True]]],
    *[("base_model_class", value) for value in [1, True, ["BertModel"]]],
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda x: str(x)[:20])
def test_a_bad_value_is_rejected_by_the_name_of_its_field(name, value):
    with pytest.raises(AtomError, match=rf"^{name} "):
        AtomConfig(**{name: value})


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@pytest.mark.parametrize(("name", "value"), [("weight", NAN), ("softening", -1), ("tokens", "words"), ("layer", 1.5)])
def test_a_bad_value_in_a_file_is_rejected_by_the_name_of_its_field(name, value, tmp_path):
    file = write(tmp_path, {**AtomConfig().to_dict(), name: value})
    with pytest.raises(AtomError, match=rf"^{re.escape(str(file))}: {name} "):
        AtomConfig.load(file)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_unknown_fields_are_named(tmp_path):
    file = write(tmp_path, {**AtomConfig().to_dict(), "wieght": 1, "colour": 2})
    with pytest.raises(AtomError, match="unknown fields colour, wieght"):
        AtomConfig.load(file)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None, True, 1.0])
def test_another_format_is_rejected_with_both_numbers(version, tmp_path):
    file = write(tmp_path, {**AtomConfig().to_dict(), "format_version": version})
    with pytest.raises(AtomError, match=f"format_version {version!r}.* reads 1 and 2"):
        AtomConfig.load(file)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_file_without_a_format_is_rejected(tmp_path):
    with pytest.raises(AtomError, match="format_version"):
        AtomConfig.load(write(tmp_path, {"weight": 0.3}))


@pytest.mark.parametrize(("content", "kind"), [([1, 2], "list"), ("null", "NoneType"), ("0.3", "float")])
def test_json_that_is_no_object_is_rejected(content, kind, tmp_path):
    with pytest.raises(AtomError, match=f"JSON object, got {kind}"):
        AtomConfig.load(write(tmp_path, content))


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_what_is_not_json_is_rejected_by_the_name_of_the_file(tmp_path):
    broken = write(tmp_path, '{"weight": 0.3')
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (broken, binary, tmp_path, tmp_path / "missing.json"):
        with pytest.raises(AtomError, match="is not a readable atom configuration") as caught:
            AtomConfig.load(file)
        assert str(file) in str(caught.value)


NAMES = [f.name for f in fields(AtomConfig)] + ["format_version", "other", "a\nb\x1b[2J"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from([f.name for f in fields(AtomConfig)] + ["format_version", "other", "a\nb\x1b[2J"]), json_values
    )
)
def test_any_json_is_a_configuration_or_an_error_of_one_line(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "atom_config.json"
    file.write_text(json.dumps({"format_version": FORMAT_VERSION, **data}))
    try:
        config = AtomConfig.load(file)
    except AtomError as error:
        assert len(str(error)) < 3000 and str(error).isprintable()
        return
    for name, value in data.items():
        unset = value is None and name in FORMS[config.form]  # which the form sets
        assert name == "format_version" or unset or getattr(config, name) == value


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("bytes") / "atom_config.json"
    file.write_bytes(content)
    with pytest.raises(AtomError):
        AtomConfig.load(file)


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
def test_a_file_as_large_or_as_deep_as_it_likes(tmp_path):
    file = tmp_path / "atom_config.json"
    file.write_text('{"format_version": 2, "other": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(AtomError, match="is not a readable atom configuration"):
        AtomConfig.load(file)
    file.write_text('{"format_version": 2, "tokens": "' + "a" * 2**20 + '"}')
    with pytest.raises(AtomError, match="is larger than the 1048576 bytes"):
        AtomConfig.load(file)
    file.write_text(json.dumps({"format_version": 2, "special_token_ids": list(range(100_000))}))
    with pytest.raises(AtomError, match="special_token_ids holds 100000 ids"):
        AtomConfig.load(file)
    file.write_text('{"format_version": 2, "special_token_ids": [1, 1' + "0" * 40 + "]}")
    with pytest.raises(AtomError, match="whole numbers of at most 31 bits"):
        AtomConfig.load(file)


def test_what_a_form_sets_stays_open_without_one():
    config = AtomConfig(distance="relative", weight=0.5)
    assert config.form is None and (config.distance, config.weight) == ("relative", 0.5)
    assert {config.weighting, config.tokens, config.charges, config.positions} == {None}
    for form, values in FORMS.items():
        found = replace(config, form=form)
        assert {**values, "distance": "relative", "weight": 0.5} == {name: getattr(found, name) for name in values}
    with pytest.raises(AtomError, match="weighting must be"):
        AtomConfig(weighting="none")


def test_a_model_has_a_form(tmp_path):
    with pytest.raises(AtomError, match="form must be 'paper' or 'separation'; got None"):
        AtomConfig.load(write(tmp_path, AtomConfig().to_dict()))
    assert AtomConfig.load(write(tmp_path, {"format_version": 2})).form == "paper"


@pytest.mark.parametrize("broken", [[0.2], [0.2, 1.5], [0.2, float("nan")], [0.2, -(10**400)], [0.2, True], 0.2, "ab"])
def test_what_an_explainer_explains_is_a_share_for_each_strategy(broken):
    sizes = {"explainer_classes": 2, "explainer_width": 8, "explainer_blocks": 0, "explainer_layers": [-1]}
    sizes["explainer_strategies"] = ["mask", "drop"]
    assert AtomConfig(**sizes, explainer_explained=[0.2, -3.0]).has_explainer
    with pytest.raises(AtomError, match="explainer_explained must be a number of at most 1 for each masking strategy"):
        AtomConfig(**sizes, explainer_explained=broken)
    with pytest.raises(AtomError, match="explainer_explained must be null where there is no explainer"):
        AtomConfig(explainer_explained=[0.2, 0.3])
