"""What the channels tell of this project's own models: python recipes/fragments/own_models.py [digits | verse]

Fine-tunes of the digits and verse recipes without --atom and with it, at the flag's defaults, over seeds: do they hold more
information, or other? Which layers of MiniLM say the same before and after? Does the importance say what the labels say?
Channels are kept in `runs/fragments/own/`; runs whose channels are there are not trained again. It writes `own_models/`.
"""

import argparse
import json
from collections.abc import Callable

import torch
from fine_tunes import ARMS, RUNS, trained
from own_models_report import BITS, EXPLAINED, HERE, SAMPLES, SEEDS, TRAINED, analyse, write_report
from tqdm import tqdm

from atom_hf.atoms.config import AtomConfig
from atom_hf.finetune.run import Prepared
from atom_hf.fragments import Channel
from atom_hf.fragments.load import load_model, processor_of
from atom_hf.fragments.points import find_points
from atom_hf.fragments.read import read_channels
from atom_hf.fragments.storage import load_channels, save_channels
from atom_hf.modeling.attach import attach_atoms
from atom_hf.utils.quiet import quiet

AUGMENTED, TOKENS = 200, 1000  # samples that are changed at random, tokens that are kept
BASES = {"digits": "vit-fashion-mnist", "verse": "minilm"}


class Runs:
    """The channels of the runs of one recipe, each read once."""

    def __init__(self, data: str):
        self.data, self.seeds = data, range(SEEDS[data])
        self.bar = tqdm(total=len(ARMS) * len(self.seeds) + 1, desc=data, unit="run")
        self._trained: dict[tuple[str, int], Prepared] = {}

    def read(self, arm: str, seed: int, what: str, make: Callable[[Prepared], list[Channel]]) -> list[Channel]:
        """The channels of a run, kept under the name `what`; trained if they are not there."""
        file = RUNS / "own" / f"{self.data}-{arm}-{seed}-{what}.npz"
        found = load_channels(file, what)
        if found is None:
            key = (arm, seed)
            if key not in self._trained:
                flags = {**ARMS[arm], "sample_seed": seed, "max_train_samples": TRAINED[self.data]}
                self._trained = {key: trained(self.data, seed, **flags)}
                if ARMS[arm]["atom"]:  # as `atom-hf train --atom` does at the end
                    self._trained[key].trainer.fit_explainer(EXPLAINED[self.data])
            found = make(self._trained[key])
            save_channels(file, found, what)
        return found

    def all_of(self, arm: str, seed: int) -> dict[str, list[Channel]]:
        """All channels of a run: the layers, the classes, of digits the units of the last layer, of atoms the importance."""

        def reading(**options: object) -> Callable[[Prepared], list[Channel]]:
            options = {"samples": SAMPLES, **options}
            samples = options.pop("samples")
            return lambda run: read_channels(
                run.trainer.model,
                find_points(run.data, samples),
                processor=run.task.processing_class,
                run=f"{arm} {seed}",
                **options,
            )

        found = {
            "layers": self.read(arm, seed, "layers", reading(kind="space", layer="all", bits=BITS)),
            "classes": self.read(arm, seed, "classes", reading(kind="classes")),
        }
        if self.data == "digits":
            augmented = reading(kind="units", augment=20, samples=AUGMENTED)
            found["units"] = self.read(arm, seed, "units", augmented)
        if arm != "plain":
            found["importance"] = self.read(arm, seed, "importance", reading(kind="importance"))
            tokens = reading(kind="importance", of="tokens", points=TOKENS)
            found["token importance"] = self.read(arm, seed, "tokens", tokens)
        self.bar.update()
        return found

    def before(self) -> dict[str, list[Channel]]:
        """The layers of the pretrained model, and the importance of heads that nothing has trained."""
        files = {name: RUNS / "own" / f"{self.data}-before-{name}.npz" for name in ("layers", "importance", "tokens")}
        found = {name: load_channels(file, name) for name, file in files.items()}
        if None in found.values():
            name = BASES[self.data]
            model = load_model(name)
            processor = processor_of(name, model)
            points = find_points(self.data, SAMPLES)
            given = {"processor": processor, "run": "before"}
            found["layers"] = read_channels(model, points, kind="space", layer="all", bits=BITS, **given)
            torch.manual_seed(0)
            attach_atoms(model, AtomConfig(), processor)
            found["importance"] = read_channels(model, points, kind="importance", **given)
            found["tokens"] = read_channels(model, points, kind="importance", of="tokens", points=TOKENS, **given)
            for what, file in files.items():
                save_channels(file, found[what], what)
        self.bar.update()
        return {"layers": found["layers"], "importance": found["importance"], "token importance": found["tokens"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", choices=[[], *SEEDS], default=[], help="digits, verse; both if not given")
    parser.add_argument("--report_only", action="store_true", help="train and read nothing")
    given = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    with quiet():
        for data in [] if given.report_only else given.data or SEEDS:
            runs = Runs(data)
            found = {(arm, seed): runs.all_of(arm, seed) for seed in runs.seeds for arm in ARMS}
            result = analyse(data, runs.before(), found, len(runs.seeds))
            (HERE / f"{data}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_report()


if __name__ == "__main__":
    main()
