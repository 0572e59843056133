"""Makes the whole report of what the flag costs: python recipes/cost/run.py

It measures BERT-base, ViT-base, a small ViT in both forms of the energy, and the growth of the energy on this machine's GPU,
or on its CPU where there is none, keeps what it finds in `results/`, and writes README.md and the plots from all results that
are there. A part that is finished is not measured again, unless with --fresh. Nothing is downloaded: the models are made from
their configurations.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import small_models
import torch
from cost_report import HERE, MODELS, RESULTS, read_results, write_report
from growth import measure

from atom_hf.modeling.inference import default_device

PARTS = (*MODELS, *small_models.FORMS, "growth")

# On a CPU in float32, on a GPU in bfloat16: as each is trained.
PAIRS = {"cpu": (12, 2), "cuda": (100, 10)}
FLAGS = {"cpu": ["--use_cpu", "true"], "cuda": ["--bf16", "true"]}


def bench_flags(model: str, kind: str, pairs: int | None = None) -> list[str]:
    """What `atom-hf bench` is called with."""
    measured, warmup = small_models.PAIRS if model in small_models.FORMS else PAIRS[kind]
    length = ["--tokens", "128"] if model == "bert" else []
    counts = ["--pairs", str(pairs or measured), "--warmup_pairs", str(warmup)]
    which = small_models.flags(model) if model in small_models.FORMS else ["--model_type", model]
    return [*which, "--per_device_train_batch_size", "32", *length, *counts, *FLAGS[kind]]


def bench(flags: list[str]) -> dict[str, Any]:
    """The results of one call, in a process of its own: it takes all the memory that there is with it when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        subprocess.run(
            [sys.executable, "-m", "atom_hf", "bench", *flags, "--profile", "true", "--output", str(file)], check=True
        )
        return json.loads(file.read_text(encoding="utf-8"))


def run(kind: str, pairs: int | None = None, fresh: bool = False, only: list[str] | None = None) -> None:
    """Measures what is not measured yet, of the parts `only` if given; `fresh` measures these again."""
    found = read_results().get(kind, {})
    file = RESULTS / f"{kind}.json"
    for part in only or PARTS:
        if part in found and not fresh:
            print(f"{part}: measured before")
            continue
        if part == "growth":
            result = measure(kind)
        else:
            flags = bench_flags(part, kind, pairs)
            print(f"atom-hf bench {' '.join(flags)}", flush=True)
            result = {"flags": " ".join(flags), **bench(flags)}
        found[part] = result
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(PAIRS), help="the GPU if there is one, if not given")
    parser.add_argument("--pairs", type=int, help="pairs of steps timed: 12 on a CPU, 100 on a GPU if not given")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}; all if not given"
    )
    parser.add_argument("--fresh", action="store_true", help="measure them again")
    parser.add_argument("--report_only", action="store_true", help="measure nothing")
    given = parser.parse_args()
    kind = given.device or default_device()
    if kind == "cuda" and not torch.cuda.is_available() and not given.report_only:
        parser.error("--device cuda: PyTorch sees no GPU here")
    if not given.report_only:
        run(kind, given.pairs, given.fresh, given.only)
    write_report()
    print(f"written   {HERE / 'README.md'}")


if __name__ == "__main__":
    main()
