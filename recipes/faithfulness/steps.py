"""What makes an explainer faithful, step by step: python recipes/faithfulness/steps.py

For each setting and seed of `steps.yaml` a model is trained, samples of its training and evaluation split are masked once (kept
under runs/), and an explainer is fitted by each step to a part of that. It is compared with the Shapley values of the
evaluation samples, by the sets that were drawn for these. Writes `steps/results.jsonl`, from which an interrupted command
resumes, and `steps/README.md`; `--report_only` writes the page alone.

Without the Hub give local copies: --data sst2=TRAIN.parquet,EVAL.parquet (also poem).
"""

import argparse
import itertools
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from faithfulness_report import HERE
from run import ROOT, call
from steps_copy import LiveTokens, fit_copy, inputs_of
from steps_report import RESULTS, SHAPLEY, write_page
from torch.utils.data import DataLoader

from atom_hf import load_atom_model
from atom_hf.atoms.config import AtomConfig
from atom_hf.atoms.novelty import pooled
from atom_hf.data.encoding import encode_rows
from atom_hf.data.load import load_data
from atom_hf.explainer.collect import collect
from atom_hf.explainer.descent import HeadOptions, fit_head
from atom_hf.explainer.fit import make_maskers
from atom_hf.explainer.masked_samples import MaskedSamples, passes_of
from atom_hf.finetune.pretrained import load_processor
from atom_hf.modeling.inference import default_device
from atom_hf.utils.files import read_yaml
from atom_hf.utils.jsonl import append_line, read_lines, start_lines
from atom_hf.utils.quiet import quiet

RUNS, STUDY = Path("runs", "faithfulness-steps"), HERE / "steps.yaml"
BATCH, MAX_LENGTH = 16, 128


def steps_of(study: dict) -> list[dict]:
    """Every step and variant with all that it sets."""
    found, whole = [], {**study["fit"]}
    for step in study["steps"]:
        whole = {**whole, **step}
        found.append(whole)
    return found + [{**whole, **variant} for variant in study["variants"]]


def make_model(setting: str, seed: int, data: list[str]) -> str:
    """The folder of a trained model without an explainer."""
    folder = str(RUNS / f"{setting}-{seed}")
    if not Path(ROOT, folder, "config.json").is_file():
        flags = ["--config", f"recipes/{setting}/atom.yaml", *data, "--seed", str(seed), "--output_dir", folder]
        call("train", *flags, "--save_strategy", "no", "--no_explainer")
    return str(Path(ROOT, folder))


def masked_samples(study: dict, folder: str, data: dict, seed: int) -> tuple[dict, dict]:
    """What masking gave of samples of the training split and of the evaluation split, and the layers and strategies."""
    file = Path(folder, "masked.pt")
    if file.is_file():
        kept = torch.load(file, weights_only=True)
        return {name: MaskedSamples(**kept[name]) for name in ("fit", "evaluation")}, kept["about"]
    model = load_atom_model(folder).to(default_device()).eval()
    rows = load_data(**data)
    processor = load_processor(folder, rows.is_image)
    maskers, found, about = make_maskers(model, processor), {}, {}
    for name, split in (("fit", rows.train), ("evaluation", rows.eval)):
        sizes = {"copies": 1, **study[name]}
        loader = DataLoader(
            split.shuffle(seed=seed), BATCH, collate_fn=lambda part: encode_rows(part, model, processor, MAX_LENGTH)
        )
        start = time.perf_counter()
        found[name], passes, layers = collect(
            model, maskers, loader, sizes["samples"], sizes["copies"], sizes["sets"], seed
        )
        about |= {"layers": layers, "own": model.atom_config.layer, "strategies": [m.strategy for m in maskers]}
        about |= {f"{name}_seconds": time.perf_counter() - start, f"{name}_passes": passes}
    parts = {name: {f.name: getattr(part, f.name) for f in fields(part)} for name, part in found.items()}
    torch.save({**parts, "about": about}, file)
    return found, about


def part_of(masked: MaskedSamples, step: dict, own: int) -> MaskedSamples:
    """The masked samples as a step sees them."""
    first = chosen(masked, step["samples"], step["choice"])
    rows = torch.isin(masked.sample, first) & (masked.copy < step["copies"])
    part = MaskedSamples(**{f.name: getattr(masked, f.name)[rows] for f in fields(masked)})
    sets, classes = slice(step["sets"]), slice(step["classes"])
    part = replace(
        part,
        tokens=part.tokens if step["layers"] == "mix" else part.tokens[:, [own]],
        classes=part.classes[:, classes],
        keep=part.keep[:, sets],
        strategy=part.strategy[:, sets],
        change=part.change[:, sets, classes],
        whole=part.whole[:, :, classes],
    )
    return part if step["outputs"] == "strategy" else as_one(part)


def chosen(masked: MaskedSamples, count: int, choice: str) -> torch.Tensor:
    """The numbers of the samples that a fit uses: any, those whose prediction has the largest entropy, or those farthest from
    one another (k-centre greedy, Sener and Savarese, arXiv 1708.00489). Both need one forward pass of each sample."""
    own = masked.copy == 0
    samples, values = masked.sample[own], masked.values[own]
    if choice == "unsure":
        entropy = -(values * values.clamp(min=1e-12).log()).sum(1)
        return samples[entropy.argsort(descending=True)[:count]]
    if choice == "apart":
        places = pooled(masked.tokens[own, -1], masked.real[own])
        taken, distance = [0], (places - places[0]).norm(dim=1)
        while len(taken) < min(count, len(samples)):
            taken.append(int(distance.argmax()))
            distance = torch.minimum(distance, (places - places[taken[-1]]).norm(dim=1))
        return samples[taken]
    return samples[:count]


def as_one(part: MaskedSamples) -> MaskedSamples:
    """Masked samples whose strategies are taken for one: what each set changes beyond an equal share stays what it is."""
    share = (part.keep.sum(-1) / part.mask.sum(1, keepdim=True))[..., None]
    whole = part.whole.mean(1, keepdim=True)
    each = part.whole.gather(1, part.strategy[..., None].expand(-1, -1, whole.shape[2]))
    return replace(
        part,
        strategy=torch.zeros_like(part.strategy),
        change=part.change + (whole - each) * share,
        whole=whole,
        nothing=part.nothing.mean(1, keepdim=True),
    )


@torch.no_grad()
def parts_by(model, masked: MaskedSamples, step: dict, own: int) -> torch.Tensor:
    """The parts [n, N, S] of the tokens for the predicted class, by the model's explainer."""
    head, found = model.atom_heads.explainer, []
    for rows in torch.arange(len(masked)).split(BATCH):
        tokens = masked.tokens[rows].float()
        tokens = tokens if step["layers"] == "mix" else tokens[:, [own]]
        importance = head(
            tokens.to(head.scale.device),
            masked.real[rows].to(head.scale.device),
            masked.classes[rows, :1].to(head.scale.device),
        )
        found.append((importance[..., 0] * head.scale).cpu())
    return torch.cat(found).expand(-1, -1, masked.whole.shape[1])


def shapley_values(masked: MaskedSamples) -> torch.Tensor:
    """The Shapley values [n, N, S] of the predicted class: least squares over the sets, which are drawn by the Shapley kernel,
    with the sum that efficiency asks for (Lundberg and Lee, arXiv 1705.07874, Theorem 2)."""
    found = torch.zeros(len(masked), masked.mask.shape[1], masked.whole.shape[1], dtype=torch.double)
    for item, strategy in itertools.product(range(len(masked)), range(masked.whole.shape[1])):
        mine, places = masked.strategy[item] == strategy, masked.mask[item].nonzero()[:, 0]
        keep = masked.keep[item, mine][:, places].double()
        whole, change = float(masked.whole[item, strategy, 0]), masked.change[item, mine, 0].double()
        last = keep[:, -1:]
        values = torch.linalg.lstsq(keep[:, :-1] - last, change[:, None] - last * whole, driver="gelsd").solution[:, 0]
        found[item, places, strategy] = torch.cat([values, whole - values.sum()[None]])
    return found.float()


def judged(parts: torch.Tensor, truth: torch.Tensor, masked: MaskedSamples) -> list[dict]:
    """For each strategy the share of the changes that the parts explain, beyond equal ones, and for each sample Spearman's rank
    correlation with the Shapley values and the gap of the efficiency."""
    from scipy import stats

    found = []
    for strategy in range(masked.whole.shape[1]):
        share = masked.keep.sum(-1) / masked.mask.sum(1, keepdim=True)
        phi = parts[..., strategy] * masked.mask
        told = torch.einsum("nkt,nt->nk", masked.keep.float(), phi) - phi.sum(1, keepdim=True) * share
        change = masked.change[..., 0] - masked.whole[:, strategy, :1] * share
        mine = masked.strategy == strategy
        ranks = [
            float(stats.spearmanr(phi[item, real], truth[item, real, strategy]).statistic)
            for item, real in enumerate(masked.mask)
        ]
        explained = 1 - float((change - told)[mine].square().sum() / change[mine].square().sum())
        gap = float((masked.whole[:, strategy, 0] - phi.sum(1)).abs().mean())
        rounded = {"explained": round(explained, 4), "gap": round(gap, 4)}
        found.append({**rounded, "ranks": [round(rank, 4) for rank in ranks]})
    return found


def run_setting(study: dict, setting: str, seed: int, given: list[str] | None, wanted: list[str] | None) -> None:
    """Fits and judges every step of one model, or those that are wanted, that is not in the results yet."""
    data = {"dataset": study["settings"][setting]["dataset"]}
    if given is not None:
        data = dict(zip(("dataset", "eval_dataset"), given, strict=True))
    done = {(line["setting"], line["seed"], line["step"]) for line in read_lines(RESULTS)}
    asked = [step for step in steps_of(study) if wanted is None or step["name"] in wanted]
    left = [step for step in asked if (setting, seed, step["name"]) not in done]
    if not left:
        return
    folder = make_model(setting, seed, [part for name, value in data.items() for part in (f"--{name}", value)])
    with quiet():
        masked, about = masked_samples(study, folder, data, seed)
        model = load_atom_model(folder).to(default_device()).eval()
    own = about["layers"].index(AtomConfig.load(Path(folder, "atom_config.json")).layer % (max(about["layers"]) + 1))
    truth, strategies = shapley_values(masked["evaluation"]), about["strategies"]
    if (setting, seed, SHAPLEY) not in done:
        found = judged(truth, truth, masked["evaluation"])
        line = {"setting": setting, "seed": seed, "step": SHAPLEY, "seconds": round(about["evaluation_seconds"], 1)}
        line["passes"] = about["evaluation_passes"]
        append_line(RESULTS, {**line, "strategies": dict(zip(strategies, found, strict=True))})
    for step in left:
        start = time.perf_counter()
        options = HeadOptions(**{name: step[name] for name in ("width", "blocks", "dropout", "context")})
        layers = about["layers"] if step["layers"] == "mix" else [about["layers"][own]]
        outputs = strategies if step["outputs"] == "strategy" else ["any"]
        torch.set_num_threads(1)
        part, held = part_of(masked["fit"], step, own), masked["evaluation"]
        if step["lora"]:
            rows, processor = load_data(**data), load_processor(folder, load_data(**data).is_image)
            its = [
                inputs_of(split.shuffle(seed=seed), some, model, processor, MAX_LENGTH)
                for split, some in ((rows.train, part), (rows.eval, held))
            ]
            copy = load_atom_model(folder).to(default_device()).eval()
            live = fit_copy(copy, replace(part), its[0], layers, outputs, options, seed)
            parts = parts_by(copy, replace(held, tokens=LiveTokens(live.model, its[1], layers)), step, own)
        else:
            fit_head(model, part, layers, outputs, options, seed=seed)
            parts = parts_by(model, held, step, own)
        seconds = time.perf_counter() - start
        found = judged(parts, truth, held)
        line = {"setting": setting, "seed": seed, "step": step["name"], "seconds": round(seconds, 1)}
        line["passes"] = step["samples"] * passes_of(step["copies"], step["sets"], len(strategies))
        append_line(RESULTS, {**line, "strategies": dict(zip(strategies, found, strict=True))})
        print(setting, seed, step["name"], [each["explained"] for each in found], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    study = read_yaml(str(STUDY), "study")
    parser.add_argument(
        "--only", choices=study["settings"], action="append", help="this setting; several times for several"
    )
    parser.add_argument("--seed", type=int, choices=study["seeds"], action="append", help="this seed, likewise")
    names = [step["name"] for step in steps_of(study)]
    parser.add_argument("--step", choices=names, action="append", help="this step, likewise")
    parser.add_argument(
        "--data", action="append", default=[], metavar="SETTING=TRAIN,EVAL", help="local files in place of the Hub's"
    )
    parser.add_argument("--report_only", action="store_true", help="write the page from the results that are there")
    options = parser.parse_args()
    local = {name: files.split(",") for name, _, files in (part.partition("=") for part in options.data)}
    if unknown := [name for name, files in local.items() if name not in study["settings"] or len(files) != 2]:
        parser.error(f"--data {unknown[0]}: give SETTING=TRAIN,EVAL with one of {', '.join(study['settings'])}")
    if not options.report_only:
        RESULTS.parent.mkdir(exist_ok=True)
        start_lines(RESULTS)
        for seed, setting in itertools.product(options.seed or study["seeds"], options.only or study["settings"]):
            run_setting(study, setting, seed, local.get(setting), options.step)
    print(f"written   {write_page(study)}")


if __name__ == "__main__":
    main()
