"""Weights that are not finite numbers are found, wherever they are."""

import math

import pytest
import torch
from safetensors.torch import save_file

from atom_hf import AtomError
from atom_hf.modeling.finite import check_finite_files, not_finite
from helpers.models import attached, tiny

pytestmark = pytest.mark.promise(
    "A full disk loses no results, and a model of NaNs is not saved.",
    "weights that are not finite, in a model and in a checkpoint's files",
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_parameters_that_are_not_finite_are_named(value, dtype):
    model = tiny("bert").to(dtype)
    assert not_finite(model) == []
    model.classifier.bias.data[1] = value
    model.bert.embeddings.word_embeddings.weight.data[3, 2] = value
    assert not_finite(model) == ["bert.embeddings.word_embeddings.weight", "classifier.bias"]


def test_heads_whole_numbers_and_shards_are_looked_at():
    model = attached("vit")
    model.atom_heads.position.weight.data[0, 0] = math.nan
    assert not_finite(model) == ["atom_heads.position.weight"]
    packed = torch.nn.Module()
    packed.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    packed.small = torch.nn.Parameter(torch.zeros(3).to(torch.float8_e4m3fn), requires_grad=False)
    packed.sharded = torch.nn.Parameter(torch.empty(0))
    packed.sharded.ds_tensor = torch.tensor([math.nan])  # as DeepSpeed keeps a process's part
    packed.meta = torch.nn.Parameter(torch.empty(3, device="meta"))
    assert not_finite(packed) == ["sharded"]


def test_a_file_of_weights_that_are_not_finite_is_rejected(tmp_path):
    check_finite_files(tmp_path / "nothing")
    save_file({"a": torch.zeros(2), "n": torch.zeros(2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    check_finite_files(tmp_path)
    save_file({"b": torch.tensor([1.0, math.nan])}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(
        AtomError, match=r"model-00002-of-00002\.safetensors holds numbers that are not finite .*in 'b'"
    ):
        check_finite_files(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(AtomError, match=r"adapter_model\.safetensors is truncated or not a safetensors file"):
        check_finite_files(tmp_path)
