"""`atom-hf fragments` as a user runs it: what it prints and writes, that it goes on, and what it rejects."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch

from atom_hf.atoms.config import AtomConfig
from atom_hf.data.load import load_data
from atom_hf.fragments import Channel, compare_channels, find_hotspots
from atom_hf.fragments.command import run_fragments
from atom_hf.fragments.read import read_channels
from atom_hf.fragments.selection import select_runs
from atom_hf.modeling.attach import attach_atoms
from helpers.commands import command
from helpers.ensembles import save_ensemble
from helpers.models import make_tokenizer, tiny, verse

pytestmark = pytest.mark.usefixtures("digits_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with four classifiers of digits, two of texts, and a table of texts."""
    import datasets

    folder = tmp_path_factory.mktemp("ensemble")
    datasets.config.HF_DATASETS_CACHE, before = folder / "cache", datasets.config.HF_DATASETS_CACHE
    save_ensemble(folder)
    for seed in (0, 1):
        attach_atoms(tiny("bert", seed=seed), AtomConfig(layer=-1), make_tokenizer()).save_pretrained(
            folder / f"text-{seed}"
        )
        make_tokenizer().save_pretrained(folder / f"text-{seed}")
    rows = verse(60)[:40]
    with open(folder / "lines.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *((row["text"], row["label"]) for row in rows)])
    yield folder
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


RUNS = "run-0 run-1 run-2 run-3"
CLASSES = f"fragments --models {RUNS} --dataset digits --samples 60"


@pytest.fixture(scope="module")
def classes(folder):
    """(output folder, what is printed) of the command with all that it does."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        status, out, err = command(
            f"{CLASSES} --regularization strength --select 2 --fuse nmi --fuse_bits 1.5 --min_size 2 --errors --output_dir all"
        )
    finally:
        os.chdir(before)
    assert status == 0, err
    return folder / "all", out


def expected(folder):
    """The channels and the labels by hand."""
    rows = load_data("digits").eval.shuffle(seed=0).select(range(60))
    channels = []
    for run in RUNS.split():
        (channel,) = read_channels(str(folder / run), rows, kind="classes")
        channels.append(channel)
    return channels, torch.tensor(rows["label"])


def test_the_files_hold_what_the_functions_give(folder, classes):
    out, _ = classes
    channels, labels = expected(folder)
    comparison = compare_channels(channels, errors=True, chance=True)
    with np.load(out / "pairs.npz") as pairs:
        assert pairs["runs"].tolist() == RUNS.split() and len(pairs["ids"]) == 60
        for name in ("information", "shared", "nmi", "vi", "chance", "nmi_error"):
            np.testing.assert_allclose(pairs[name], getattr(comparison, name), rtol=1e-6, atol=1e-9)
    with open(out / "channels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    to_labels = compare_channels(channels, [Channel.hard(labels)])
    spots = find_hotspots(channels, min_size=2)
    for place, row in enumerate(rows):
        assert row["run"] == f"run-{place}" and row["channel"] == "classes"
        assert float(row["bits"]) == pytest.approx(float(comparison.information[place]), rel=1e-4)
        assert float(row["nmi_labels"]) == pytest.approx(float(to_labels.nmi[place, 0]), rel=1e-4)
        assert int(row["hotspot"]) == spots.labels[place]
        others = [other for other in range(4) if other != place]
        nearest = max(others, key=lambda other: comparison.nmi[place, other])
        assert row["nearest_run"] == f"run-{nearest}"
        assert float(row["nearest_nmi"]) == pytest.approx(float(comparison.nmi[place, nearest]), rel=1e-4)
    with open(out / "hotspots.csv", encoding="utf-8", newline="") as file:
        summary = list(csv.DictReader(file))
    assert [int(row["size"]) for row in summary] == [row["size"] for row in spots.summary()]
    for name in ("similarity", "reachability", "regularization", "fusion"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_it_prints_what_it_found(classes):
    out, printed = classes
    for words in (
        "4 channels (classes) of 4 runs, for 60 data points (samples) of digits: at most log2 N = 5.91 bits.",
        "A channel holds ", "4 of 4 are informative", "The most similar channel of another run has an NMI of ",
        "Nearest to the labels is run-", "Noise: none is added",
        "Estimator: auto, which is exact here", "Runs\n", "Pairs of channels\n", "Hotspots\n",
        "By strength\n", "Fusion\n", "best single", "Ensembles of runs\n", "selected without labels",
    ):  # fmt: skip
        assert words in printed, words
    assert f"written   {out.name}/fragments.html" in printed


def test_runs_are_selected_on_half_of_the_points(folder, classes):
    channels, labels = expected(folder)
    seen, unseen = torch.randperm(60, generator=torch.Generator().manual_seed(0)).chunk(2)
    chosen = select_runs([channel.take(seen) for channel in channels], 2)
    _, printed = classes
    assert f"measured on the other half: {', '.join(f'run-{index}' for index in chosen)}." in printed
    right = sum(channels[index].probabilities[unseen] for index in chosen).argmax(1) == labels[unseen]
    line = next(line for line in printed.splitlines() if line.startswith("selected without labels"))
    assert float(line.split()[-1]) == pytest.approx(float(right.double().mean()), abs=1e-4)


def test_the_page_says_what_the_numbers_refer_to(classes):
    page = (classes[0] / "fragments.html").read_text(encoding="utf-8")
    for words in (
        "are informative", "60 data points", "Estimator: auto", "Chance", "Noise", "Which channels say the same", "By strength",
    ):  # fmt: skip
        assert words in page
    assert page.count("data:image/png;base64,") == 4 and page.count("<table") == 7


def test_what_was_read_is_not_read_again(in_folder, monkeypatch):
    line = f"{CLASSES} --output_dir again"
    status, first, err = command(line)
    assert status == 0, err
    with monkeypatch.context() as patch:
        patch.setattr("atom_hf.fragments.command.read_channels", None)
        assert command(line)[:2] == (0, first)
    # Another model in the place of one is read.
    shutil.copytree("run-3", "moved")
    status, other, _ = command(line.replace("run-3", "moved"))
    assert status == 0 and "moved" in other
    assert command(f"{CLASSES} --output_dir again --temperature 2")[1] != first


@pytest.mark.parametrize(
    "flags, kind, count",
    [
        pytest.param("--channels units --bits 0.5", "units", 64, marks=pytest.mark.slow),
        pytest.param("--channels subspaces --size 16 --principal", "subspaces", 4, marks=pytest.mark.slow),
        ("--channels space --layer all --quantile", "space", 6),
        ("--channels heads --noise 0.5", "heads", 4),
        pytest.param("--channels importance --of tokens --points 50", "importance", 2, marks=pytest.mark.slow),
        pytest.param("--channels position --augment 20", "position", 2, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_texts(in_folder, flags, kind, count):
    given = "--models text-0 text-1 --dataset lines.csv --samples 40 --label_column label"
    status, out, err = command(f"fragments {given} {flags} --output_dir kinds-{kind}")
    assert status == 0, err
    assert f"{count} channels ({kind}) of 2 runs" in out
    noise = {
        "--bits": "holds 0.5 bits",
        "--noise": "a standard deviation of 0.5",
        "--quantile": "ranks as normal scores",
    }
    assert all(words in out for flag, words in noise.items() if flag in flags)
    # There is no evaluation split: all rows are read.
    assert f"for {50 if 'tokens' in flags else 40} data points" in out


def test_a_posterior_of_two_autoencoders(in_folder):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel

    for seed in (0, 1):
        torch.manual_seed(seed)
        config = BetaVAEConfig(image_size=8, latent_size=3, hidden_sizes=[16], beta=2)
        BetaVAEModel(config).save_pretrained(f"vae-{seed}")
        size = {"height": 8, "width": 8}
        ViTImageProcessorPil(size=size, image_mean=[0.0], image_std=[1.0]).save_pretrained(f"vae-{seed}")
    line = "fragments --models vae-0 vae-1 --dataset digits --samples 40 --channels posterior --regularization beta"
    status, out, err = command(f"{line} --output_dir kinds-posterior")
    assert status == 0, err
    assert "6 channels (posterior) of 2 runs" in out and "Noise: none is added" in out and "By beta" in out


def test_two_runs_are_too_few_for_a_hotspot_and_told_so(in_folder):
    status, out, err = command("fragments --models run-0 run-1 --dataset digits --samples 40 --output_dir two")
    assert status == 0, err
    says = "a hotspot takes 3 channels, and 2 are informative; the table of pairs says what they share"
    assert f"There is no hotspot: {says}." in out and f"Hotspots\n\nNone: {says}." in out


def test_a_configuration_file_says_the_same(in_folder):
    from atom_hf.finetune.flags import parse_flags
    from atom_hf.fragments.arguments import FragmentsArguments

    with open("fragments.yaml", "w", encoding="utf-8") as file:
        json.dump({"models": RUNS.split(), "dataset": "digits", "samples": 60, "output_dir": "config"}, file)
    (run,) = parse_flags("fragments", ["--config", "fragments.yaml"], [FragmentsArguments])
    found, written = run_fragments(run)
    assert len(found.channels) == 4 and written[-1].name == "fragments.html"
    assert found.regularization is None and found.fusion is None and found.selection is None


BAD = [
    ("fragments --dataset digits", "give --models"),
    (f"fragments --models {RUNS}", "give --dataset"),
    ("fragments --models run-0 run-0 --dataset digits", "--models 'run-0' is given 2 times"),
    ("fragments --models run-0 ./run-9 --dataset digits", "--models './run-9'"),
    ("fragments --models run-0 --dataset digits", "--channels classes of one model is one channel"),
    (
        "fragments --models run-0 text-0 --dataset digits --channels classes",
        "--models: the classes of 'run-0' are 0, 1, 2",
    ),
    (f"{CLASSES} --channels neurons", "--channels must be one of units, subspaces"),
    (f"{CLASSES} --estimator best", "--estimator must be one of auto"),
    (f"{CLASSES} --cluster kmeans", "--cluster must be one of hdbscan, optics"),
    (f"{CLASSES} --distance cosine", "--distance must be one of nmi, vi"),
    (f"{CLASSES} --fuse mean", "--fuse must be one of vi"),
    (f"{CLASSES} --side left", "--side must be one of encoder, decoder"),
    (
        f"{CLASSES} --channels units --layer last",
        "--layer must be whole numbers separated by commas, or all; got 'last'",
    ),
    (f"{CLASSES} --channels units --layer 9", "layer 9 does not exist"),
    (f"{CLASSES} --channels classes --layer 1", "--layer is for units, subspaces, space, heads"),
    (f"{CLASSES} --channels units --bits 9", "bits must be above 0 and below log2 N"),
    (f"{CLASSES} --channels units --noise 0", "--noise must be a finite number above 0, got 0.0"),
    (f"{CLASSES} --channels units --noise 1 --bits 1", "--noise and --bits: each makes a distribution"),
    (f"{CLASSES} --channels classes --bits 1", "--bits: --channels 'classes' is a distribution as it is"),
    (f"{CLASSES} --channels units --dropout 3", "--dropout must be at least 20 passes"),
    (f"{CLASSES} --channels units --dropout 20", "dropout: nothing varies between the passes"),
    (f"{CLASSES} --channels units --estimator exact", "estimator 'exact' needs soft or hard channels"),
    (f"{CLASSES} --channels importance", "kind 'importance': ViTForImageClassification has no atom heads"),
    (f"{CLASSES} --channels posterior", "kind 'posterior': ViTForImageClassification gives no mean and log variance"),
    (f"{CLASSES} --samples 20", "--samples must be at least 30, got 20"),
    (f"{CLASSES} --points 40", "--points counts tokens"),
    (f"{CLASSES} --channels units --of tokens --points 5", "--points must be at least 30"),
    (f"{CLASSES} --regularization alpha", "--regularization 'alpha': the configuration of 'run-0' has no such number"),
    (f"{CLASSES} --regularization hidden_act", "--regularization 'hidden_act'"),
    (f"{CLASSES} --select 5", "--select 5: there are 4 runs"),
    (f"{CLASSES} --channels units --select 2", "--select is for --channels classes"),
    (f"{CLASSES} --fuse_bits 1", "--fuse_bits is for --fuse information or nmi"),
    (f"{CLASSES} --fuse nmi --fuse_bits 9", "bits must be above 0 and below log2 N"),
    (f"{CLASSES} --min_size 1", "--min_size"),
    ("fragments --models text-0 text-1 --dataset digits", "takes input_ids, and the data are images"),
    (f"fragments --models {RUNS} --dataset few.csv", "few.csv"),
    (f"{CLASSES} --temperature 1e9", "hotspots need at least 2 channels of 0.01 bits or more"),
]


@pytest.mark.parametrize("line, says", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(in_folder, line, says):
    before = set(os.listdir())
    status, _, err = command(f"{line} --output_dir bad")
    lines = err.replace("\r", "\n").splitlines()
    assert status == 2 and lines[-1].startswith("atom-hf: error: ") and "Traceback" not in err, err
    assert says in lines[-1], lines[-1]
    made = [name for name in os.listdir("bad") if name != "channels"] if os.path.isdir("bad") else []
    assert made == []
    shutil.rmtree("bad", ignore_errors=True)
    assert set(os.listdir()) == before


def test_too_few_rows_are_rejected(in_folder):
    with open("short.csv", "w", encoding="utf-8") as file:
        file.write("text,label\n" + "".join(f"the sea is calm {n},{'ab'[n % 2]}\n" for n in range(20)))
    status, _, err = command("fragments --models text-0 text-1 --dataset short.csv --output_dir few")
    assert status == 2 and "'short.csv' has 20 rows to read; give 30 or more" in err
