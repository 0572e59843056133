"""`atom-hf fit-explainer`, and the explainer that `atom-hf train` fits at the end of a run."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from atom_hf import AtomTrainer, load_atom_model
from atom_hf.cli.main import main

pytestmark = pytest.mark.usefixtures("few_steps")

SMALL = "hidden_size=16,num_hidden_layers=2,num_attention_heads=2,intermediate_size=16,image_size=8,patch_size=2,num_channels=1"
DIGITS = ["--dataset", "digits", "--max_train_samples", "40", "--max_eval_samples", "20"]
RUN = ["--max_steps", "2", "--use_cpu", "--report_to", "none", "--save_strategy", "no"]
RUN += ["--per_device_train_batch_size", "8"]
VIT = [*DIGITS, "--model_type", "vit", "--config_overrides", SMALL, *RUN]


def test_train_fits_an_explainer_or_none_and_fit_explainer_does_it_later(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *VIT, "--atom", "--no_explainer", "--output_dir", str(run)]) == 0
    assert "masking explained" not in capsys.readouterr().out
    assert load_atom_model(run).atom_heads.explainer is None
    assert main(["fit-explainer", "--model", str(run), *DIGITS, "--samples", "24", "--copies", "1", "--sets", "4"]) == 0
    printed = capsys.readouterr().out
    assert "samples   24, 168 masked copies" in printed and f"model     {run}" in printed
    done = load_atom_model(run)
    assert done.atom_heads.explainer.outer.weight.shape == (2 * 10, 256)
    # The same seed on the same machine gives the same, and the model that was read stays as it is.
    other = ["--output_dir", str(tmp_path / "other"), "--samples", "24", "--copies", "1", "--sets", "4"]
    assert main(["fit-explainer", "--model", str(run), *DIGITS, *other]) == 0
    pixels = torch.rand(2, 1, 8, 8)
    again = load_atom_model(tmp_path / "other")
    assert torch.equal(
        again.atom_importance(pixel_values=pixels)[:, 1:], done.atom_importance(pixel_values=pixels)[:, 1:]
    )
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "other").eval()
    assert torch.equal(plain(pixels).logits, done.eval()(pixels).logits)
    # A run that starts from it, on other classes, takes the charges on.
    new = [
        "train",
        "--model",
        str(run),
        "--dataset",
        "gaussians",
        "--max_train_samples",
        "40",
        "--max_eval_samples",
        "20",
    ]
    assert main([*new, *RUN, "--atom", "--no_explainer", "--output_dir", str(tmp_path / "new")]) == 0
    assert not load_atom_model(tmp_path / "new").atom_config.has_explainer
    assert load_atom_model(tmp_path / "new").config.num_labels != 10


def test_train_fits_an_explainer_by_default(tmp_path, capsys):
    run = tmp_path / "run"
    sizes = ["--explainer_samples", "16", "--explainer_seconds", "1000"]
    assert main(["train", *VIT, "--atom", *sizes, "--output_dir", str(run)]) == 0
    assert "masking explained" in capsys.readouterr().out
    config = load_atom_model(run).atom_config
    assert config.explainer_classes == 10 and config.explainer_strategies == ["mean", "blur"]
    # Fitted again: attention between tokens, and another strategy that is read by default.
    again = [
        "--samples",
        "16",
        "--copies",
        "1",
        "--sets",
        "4",
        "--masking",
        "blur",
        "--blocks",
        "1",
        "--seconds",
        "1000",
    ]
    assert main(["fit-explainer", "--model", str(run), *DIGITS, *again]) == 0
    fitted = load_atom_model(run)
    assert fitted.atom_config.explainer_strategies == ["blur", "mean"] and len(fitted.atom_heads.explainer.blocks) == 1


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ["--dataset", "verse", "--task", "causal-lm", "--model_type", "gpt2", "--vocabulary_size", "300"]
            + ["--config_overrides", "n_embd=16,n_layer=2,n_head=2", "--max_length", "32"],
            "GPT2LMHeadModel predicts no class of a whole sample",
        ),
        (
            ["--dataset", "digits", "--model_type", "resnet", "--config_overrides"]
            + [
                '{"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}'
            ],
            "ResNetForImageClassification has no token for each patch",
        ),
    ],
)
def test_where_no_explainer_can_be_fitted_a_line_says_so_and_the_model_is_saved(flags, line, tmp_path, caplog):
    run = tmp_path / "run"
    few = ["--max_train_samples", "24", "--max_eval_samples", "8"]
    assert main(["train", *flags, *few, *RUN, "--atom", "--output_dir", str(run)]) == 0
    said = [record.getMessage() for record in caplog.records if "stays the charge" in record.getMessage()]
    assert len(said) == 1 and line in said[0] and "\n" not in said[0]
    heads = load_file(run / "atom_heads.safetensors")
    assert (run / "model.safetensors").is_file() and not any("explainer" in key for key in heads)


@pytest.mark.parametrize("error", [RuntimeError("out of\nmemory"), KeyboardInterrupt()])
def test_a_fit_that_breaks_off_costs_no_model(error, tmp_path, caplog, monkeypatch):
    def broken(*args, **options):
        raise error

    monkeypatch.setattr(AtomTrainer, "fit_explainer", broken)
    status = main(["train", *VIT, "--atom", "--output_dir", str(tmp_path / "run")])
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 0)
    if status == 0:
        assert "could not be fitted to the prediction and stays the charge: RuntimeError: out of" in caplog.text
    assert load_atom_model(tmp_path / "run").atom_heads.explainer is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", *VIT, "--atom", "--explainer_samples", "3"], "--explainer_samples must be at least 16"),
        (["train", *VIT, "--atom", "--explainer_seconds", "0"], "--explainer_seconds must be above 0"),
        (["fit-explainer", *DIGITS], "give --model: a folder or Hub id"),
        (["fit-explainer", *DIGITS, "--model", "vit-fashion-mnist"], "give --model: a folder or Hub id"),
        (["fit-explainer", *DIGITS, "--model", "nobody/nothing"], "give --output_dir"),
    ],
)
def test_error_messages(arguments, words, tmp_path, capsys):
    extra = ["--output_dir", str(tmp_path / "run")] if arguments[0] == "train" else []
    assert main([*arguments, *extra]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error and error.startswith("atom-hf: error: ")
