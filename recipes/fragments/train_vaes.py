"""Train the beta-VAEs of an ensemble, over beta and seeds, for `vaes.py`.

Each is a folder of its own, `runs/fragments/<data>/beta-<beta>-seed-<seed>`, with its image processor; those that are there are
not trained again. Their data are written beside them as `<data>.npz`, which `atom-hf fragments --dataset` reads.
"""

from pathlib import Path

import numpy as np
import sprites
import torch
from tqdm import tqdm
from transformers import Trainer, TrainingArguments, set_seed
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf.data.load import load_data
from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel
from atom_hf.utils.quiet import quiet

RUNS = Path("runs/fragments")
SEEDS = range(8)
STEPS, BATCH = 2000, 128
SIZES = {"latent_size": 6, "hidden_sizes": [128, 128]}

BETAS = {"sprites": (1, 2, 4, 8), "digits": (0.5, 1, 2), "fashion": (1, 4, 16, 32)}


def make_data(name: str, source: str | None) -> dict[str, np.ndarray]:
    """Arrays of an npz file: x_train, y_train, x_test, y_test; of sprites also their factors, f_train and f_test."""
    if name == "fashion":
        with np.load(source) as file:
            return {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    if name == "digits":
        data = load_data("digits")
        found = {}
        for split, rows in (("train", data.train), ("test", data.eval)):
            found |= {
                f"x_{split}": np.stack([np.asarray(image) for image in rows["image"]]),
                f"y_{split}": rows["label"],
            }
        return found
    found = {}
    for split, count, seed in (("train", 4000, 0), ("test", 1000, 1)):
        factors = sprites.draw_factors(count, seed)
        found[f"x_{split}"] = np.rint(sprites.render(factors)[:, 0] * 255).astype(np.uint8)
        # A class, which the data must have: the quarter of the image that the centre lies in.
        found[f"y_{split}"] = (factors[:, 0] > 0.5) + 2 * (factors[:, 1] > 0.5)
        found[f"f_{split}"] = factors
    return found


class Steps(torch.utils.data.Dataset):
    """One batch of rows a step, drawn with a seed."""

    def __init__(self, images: torch.Tensor, seed: int):
        self.images = images
        self.rows = np.random.default_rng(seed).integers(0, len(images), (STEPS, BATCH))

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.images[self.rows[step]]}


def train(images: np.ndarray, beta: float, seed: int, folder: Path) -> None:
    """Train one, and save it with its image processor."""
    set_seed(seed)
    model = BetaVAEModel(BetaVAEConfig(image_size=images.shape[1], beta=beta, **SIZES))
    args = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=1, learning_rate=2e-3, lr_scheduler_type="cosine",
        warmup_steps=100, report_to="none", disable_tqdm=True, save_strategy="no", logging_steps=STEPS, seed=seed,
        dataloader_pin_memory=False,
    )  # fmt: skip
    pixels = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    rows = Steps(pixels, seed)
    Trainer(model=model, args=args, train_dataset=rows, data_collator=lambda steps: steps[0]).train()
    size = {"height": images.shape[1], "width": images.shape[1]}
    ViTImageProcessorPil(size=size, image_mean=[0.0], image_std=[1.0]).save_pretrained(folder)
    model.save_pretrained(folder)


def train_all(name: str, source: str | None = None) -> None:
    """Train the runs of a data set that are missing; `source` is the file of Fashion-MNIST."""
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.npz"
    if not file.is_file():
        np.savez_compressed(file, **make_data(name, source))
    with np.load(file) as stored:
        images = stored["x_train"]
    runs = [(beta, seed) for beta in BETAS[name] for seed in SEEDS]
    with quiet():
        for beta, seed in tqdm(runs, desc=name, unit="run"):
            own = folder / f"beta-{beta:g}-seed-{seed}"
            if not (own / "model.safetensors").is_file():
                train(images, beta, seed, own)
