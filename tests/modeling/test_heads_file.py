"""Files of strangers: whatever is in a heads file or an index, it is read as it is or rejected in one line."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from atom_hf import AtomConfig, AtomError, AtomHeads, attach_atoms, load_atom_model
from atom_hf.modeling.attach import add_explainer
from atom_hf.modeling.heads_file import HEADS_NAME, read_heads, write_heads
from helpers.models import tiny

SHAPES = {name: tuple(tensor.shape) for name, tensor in AtomHeads(8).state_dict().items()}


def heads(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AtomHeads(8).state_dict()


def read(folder):
    return read_heads(str(folder), SHAPES, "a model")[0]


def rejection(folder, *words):
    with pytest.raises(AtomError) as caught:
        read(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1500
    for word in words:
        assert word in message
    return message


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_heads_come_back_as_they_were(tmp_path):
    write_heads(heads(), tmp_path)
    found = read(tmp_path)
    assert found.keys() == SHAPES.keys() and all(torch.equal(found[name], heads()[name]) for name in found)


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_floating_type_is_read_as_float32(tmp_path, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in heads().items()}, tmp_path / HEADS_NAME)
    found = read(tmp_path)
    for name, tensor in heads().items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], tensor.to(dtype).float())


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_other_types_are_rejected(tmp_path, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in heads().items()}, tmp_path / HEADS_NAME)
    rejection(tmp_path, "not floating numbers")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_rejected(tmp_path, value):
    state = heads()
    state["position.weight"][3, 4] = value
    write_heads(state, tmp_path)
    rejection(tmp_path, "not finite", "position.weight")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_tensors_too_many_or_too_few_are_rejected(tmp_path):
    write_heads({**heads(), "extra": torch.zeros(3)}, tmp_path)
    rejection(tmp_path, "do not fit a model", "'extra': (3,)")
    state = heads()
    del state["importance.bias"]
    write_heads(state, tmp_path)
    rejection(tmp_path, "do not fit a model", "importance.bias")
    write_heads({f"layer.{i}": torch.zeros(1) for i in range(5000)}, tmp_path)
    rejection(tmp_path, "and 4994 more")


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
def test_a_file_far_too_large_is_rejected_before_its_numbers_are_read(tmp_path):
    # Four terabytes by its header, in a sparse file of a few blocks on the disk.
    size = 2**42
    header = json.dumps({"position.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (tmp_path / HEADS_NAME).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    rejection(tmp_path, "do not fit a model")


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
def test_a_pickle_is_never_read(tmp_path):
    torch.save(heads(), tmp_path / "atom_heads.bin")
    torch.save({f"atom_heads.{name}": tensor for name, tensor in heads().items()}, tmp_path / "pytorch_model.bin")
    rejection(tmp_path, "has neither atom_heads.safetensors nor model.safetensors")
    torch.save(heads(), tmp_path / HEADS_NAME)
    rejection(tmp_path, "truncated or not a safetensors file")


def write_index(folder, names):
    weight_map = {f"atom_heads.{key}": name for key, name in zip(SHAPES, names, strict=False)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
@pytest.mark.parametrize(
    "name", ["../out.safetensors", "/etc/out.safetensors", "a/out.safetensors", "a\\out.safetensors", "out.bin"]
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file({f"atom_heads.{key}": tensor for key, tensor in heads().items()}, tmp_path / "out.safetensors")
    write_index(inside, [name] * 4)
    rejection(inside, "names files outside its folder, or that are not safetensors")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100_000, "{" * 9]
)
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    rejection(tmp_path, "model.safetensors.index.json", "index of weights")


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_heads_in_several_files_of_a_checkpoint(tmp_path):
    state = {f"atom_heads.{name}": tensor for name, tensor in heads().items()}
    names = list(state)
    for part, keys in (("one", names[:3]), ("two", names[3:])):
        save_file({key: state[key] for key in keys}, tmp_path / f"{part}.safetensors")
    write_index(tmp_path, ["one.safetensors"] * 3 + ["two.safetensors"])
    assert all(torch.equal(tensor, heads()[name]) for name, tensor in read(tmp_path).items())
    (tmp_path / "two.safetensors").unlink()
    rejection(tmp_path, "two.safetensors")
    write_index(tmp_path, ["one.safetensors"] * 3)
    rejection(tmp_path, "do not fit a model", "expected", "found")


WHOLE = save(heads(), metadata={"format": "pt"})
HEADER = 8 + struct.unpack("<Q", WHOLE[:8])[0]


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_file_that_ends_too_soon_is_rejected(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    (folder / HEADS_NAME).write_bytes(WHOLE[:cut])
    rejection(folder, HEADS_NAME)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@settings(max_examples=600, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_garbled_header_is_rejected_or_says_the_same(tmp_path_factory, data):
    content = np.frombuffer(WHOLE, dtype=np.uint8).copy()
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, HEADER - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("garbled")
    (folder / HEADS_NAME).write_bytes(content.tobytes())
    try:
        found = read(folder)
    except AtomError as error:
        assert "\n" not in str(error)
        return
    # What still reads as heads of these shapes has the numbers where that header says, and nowhere else.
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8].tobytes())[0]].tobytes())
    for name, tensor in found.items():
        start, end = header[name]["data_offsets"]
        kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[
            header[name]["dtype"]
        ]
        raw = torch.frombuffer(bytearray(WHOLE[HEADER + start : HEADER + end]), dtype=kind).float().view(SHAPES[name])
        assert torch.equal(tensor, raw)


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.binary(max_size=300))
def test_any_bytes_at_all_are_rejected(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / HEADS_NAME).write_bytes(content)
    rejection(folder, HEADS_NAME)


MARKER = """
import pathlib
pathlib.Path(__file__).with_name("marker").write_text("this code ran")
from transformers import BertConfig, BertForSequenceClassification
class Stranger(BertConfig):
    model_type = "stranger"
class StrangerModel(BertForSequenceClassification):
    config_class = Stranger
"""


@pytest.fixture
def saved(tmp_path):
    attach_atoms(tiny("bert"), AtomConfig()).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
@pytest.mark.parametrize("model_type", ["bert", "stranger"])
def test_code_in_the_folder_never_runs(saved, model_type, capsys):
    config = json.loads((saved / "config.json").read_text())
    names = {"AutoConfig": "code.Stranger", "AutoModelForSequenceClassification": "code.StrangerModel"}
    (saved / "config.json").write_text(json.dumps({**config, "model_type": model_type, "auto_map": names}))
    (saved / "code.py").write_text(MARKER)
    if model_type == "bert":
        assert type(load_atom_model(saved)).__module__.startswith("transformers.")
    else:
        with pytest.raises(AtomError, match="cannot be loaded"):
            load_atom_model(saved)
    assert not list(saved.rglob("marker")) and "[y/N]" not in capsys.readouterr().out


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_base_that_is_not_whole_is_no_model(saved):
    whole = load_file(saved / "model.safetensors")
    for change in ({"classifier.weight": None}, {"classifier.weight": torch.zeros(2, 5)}):
        state = {name: change.get(name, tensor) for name, tensor in whole.items()}
        present = {name: tensor for name, tensor in state.items() if tensor is not None}
        save_file(present, saved / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(AtomError) as caught:
            load_atom_model(saved)
        assert "classifier" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_layer_that_the_base_has_not(saved):
    config = json.loads((saved / "atom_config.json").read_text())
    (saved / "atom_config.json").write_text(json.dumps({**config, "layer": 10**30}))
    with pytest.raises(AtomError, match="does not exist: BertForSequenceClassification has 2 layers"):
        load_atom_model(saved)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_configuration_that_is_no_models(saved):
    for content in (
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"model_type": ["bert"]}',
        '{"model_type": "bert", "hidden_size": "wide"}',
    ):
        (saved / "config.json").write_text(content)
        with pytest.raises(AtomError):
            load_atom_model(saved)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
@pytest.mark.parametrize("names", [[5], [["BertForSequenceClassification"]], {"a": 1}, True])
def test_architectures_that_are_no_names(saved, names):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "architectures": names}))
    with pytest.raises(AtomError) as caught:
        load_atom_model(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
def test_a_base_in_pickles_is_not_taken(saved):
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    with pytest.raises(AtomError, match=r"it has no model.safetensors; weights are loaded from safetensors only"):
        load_atom_model(saved)


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
def test_a_configuration_far_larger_than_its_files_is_rejected_before_it_is_made(saved, monkeypatch):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "vocab_size": 2 * 10**7}))
    monkeypatch.setattr("atom_hf.modeling.load._load_base", lambda *a: pytest.fail("the model was made"))
    with pytest.raises(AtomError, match=r"its configuration describes \d+ parameters, and its files hold \d+"):
        load_atom_model(saved)


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_what_names_no_model(saved):
    for name in ("", "  ", None, 5):
        with pytest.raises(AtomError, match="name_or_folder must be"):
            load_atom_model(name)
    with pytest.raises(AtomError, match="subfolder is not supported"):
        load_atom_model(saved, subfolder="v1")


# The configuration and the heads of one save


@pytest.fixture
def two_saves(tmp_path):
    """Two saves of a model: as it was trained, and with an explainer."""
    model = attach_atoms(tiny("bert"), AtomConfig(softening=0.5))
    model.save_pretrained(tmp_path / "before")
    add_explainer(model, explainer_classes=model.config.num_labels, explainer_width=4)
    model.save_pretrained(tmp_path / "after")
    return tmp_path / "before", tmp_path / "after"


def test_both_files_hold_one_id_which_is_the_same_for_the_same_heads(two_saves, tmp_path):
    configs = [json.loads((folder / "atom_config.json").read_text()) for folder in two_saves]
    for folder, config in zip(two_saves, configs, strict=True):
        with safe_open(folder / HEADS_NAME, "pt") as tensors:
            assert tensors.metadata()["heads_id"] == config["heads_id"] and len(config["heads_id"]) == 16
    assert configs[0]["heads_id"] != configs[1]["heads_id"]
    load_atom_model(two_saves[1]).save_pretrained(tmp_path / "again")
    for name in (HEADS_NAME, "atom_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (two_saves[1] / name).read_bytes()


@pytest.mark.parametrize("newer", ["heads", "configuration"])
@pytest.mark.parametrize("spoil", ["other save", "cut short", "empty", "missing"])
def test_heads_are_read_with_their_own_configuration_where_the_two_files_are_torn(two_saves, caplog, newer, spoil):
    target, other = two_saves if newer == "configuration" else two_saves[::-1]
    file = target / "atom_config.json"
    expected = AtomConfig.load(file)
    text = (other / "atom_config.json").read_text()
    if spoil == "missing":
        file.unlink()
    else:
        file.write_text({"other save": text, "cut short": text[:40], "empty": ""}[spoil])
    with caplog.at_level("WARNING", "atom_hf"):
        model = load_atom_model(target)
    assert model.atom_config == expected and (model.atom_heads.explainer is None) == (not expected.has_explainer)
    says = [
        r.getMessage() for r in caplog.records if "with the configuration that they hold themselves" in r.getMessage()
    ]
    assert len(says) == 1 and str(target / HEADS_NAME) in says[0]


def test_whole_pairs_are_read_without_a_word(two_saves, caplog):
    file = two_saves[1] / "atom_config.json"
    config = json.loads(file.read_text())
    with caplog.at_level("WARNING", "atom_hf"):
        assert load_atom_model(two_saves[1]).atom_config.softening == 0.5
        file.write_text(json.dumps({**config, "softening": 0.75}))  # somebody's own change
        assert load_atom_model(two_saves[1]).atom_config.softening == 0.75
        del config["heads_id"]  # as those saved before there were ids
        file.write_text(json.dumps(config))
        assert load_atom_model(two_saves[1]).atom_config.softening == 0.5
        save_file(load_file(two_saves[1] / HEADS_NAME), two_saves[1] / HEADS_NAME)
        assert load_atom_model(two_saves[1]).atom_config.has_explainer
    assert "hold themselves" not in caplog.text


@pytest.mark.parametrize("own", ["{", "[]", '{"format_version": 9}', '{"format_version": 2, "layer": "x"}', "[" * 5000])
def test_a_configuration_in_the_heads_is_as_untrusted_as_any(two_saves, own):
    heads = load_file(two_saves[0] / HEADS_NAME)
    save_file(heads, two_saves[0] / HEADS_NAME, metadata={"atom_config": own, "heads_id": "0" * 16})
    assert load_atom_model(two_saves[0]).atom_config.softening == 0.5  # that of its own file
    (two_saves[0] / "atom_config.json").write_text("{")
    with pytest.raises(AtomError, match="not a readable atom configuration"):
        load_atom_model(two_saves[0])
