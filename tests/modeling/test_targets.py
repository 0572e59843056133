"""What a target names, and the values that masking changes."""

import pytest
import torch
from transformers import PreTrainedConfig

from atom_hf import AtomError
from atom_hf.modeling.targets import output_values, target_classes, target_index

CONFIG = PreTrainedConfig(id2label={0: "cold", 1: "2", 2: "warm"})


@pytest.mark.parametrize(
    ("target", "expected"),
    [("cold", 0), ("warm", 2), (0, 0), (2, 2), ("0", 0), ("2", 1)],  # a name before an index
)
def test_a_class_is_named_or_counted(target, expected):
    assert target_index(target, CONFIG) == expected
    assert target_classes(target, CONFIG, 3).tolist() == [expected] * 3


def test_each_sample_may_have_one_of_its_own():
    assert target_classes(["warm", 0, "2"], CONFIG, 3).tolist() == [2, 0, 1]
    assert target_classes(torch.tensor([1, 2]), CONFIG, 2).tolist() == [1, 2]


@pytest.mark.parametrize("target", ["hot", "3", 3, -1, True, 1.0, None])
def test_what_is_no_class_is_rejected(target):
    with pytest.raises(AtomError, match=r"is no class of the model; give one of cold, 2, warm, or an index below 3"):
        target_index(target, CONFIG)


def test_values_are_probabilities_or_the_number_itself():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    torch.testing.assert_close(output_values(logits, CONFIG), logits.softmax(-1))
    several = PreTrainedConfig(id2label=CONFIG.id2label, problem_type="multi_label_classification")
    torch.testing.assert_close(output_values(logits, several), logits.sigmoid())
    torch.testing.assert_close(output_values(logits[:, :1], CONFIG), logits[:, :1])
