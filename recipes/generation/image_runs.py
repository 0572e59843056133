"""One run on images: a small UNet by flow matching, a GAN or a VAE, with one arm."""

import base64
import json
import tempfile
import time
from typing import Any

import numpy as np
import torch
from dispersive import Dispersive
from image_data import Classifier, Images
from rows import Rows, collate
from torch import Tensor
from transformers import Trainer, TrainerCallback, set_seed

from atom_hf import AtomTrainerMixin, AtomTrainingArguments
from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel
from atom_hf.generation.denoisers import make_denoiser, make_scheduler
from atom_hf.generation.gan import GANConfig, GANModel
from atom_hf.generation.gan_trainer import GANArguments, GANTrainer
from atom_hf.generation.measures import active_units, class_diversity, fidelity, frechet_distance, nearest_training
from atom_hf.generation.objective import DenoisingObjective
from atom_hf.generation.sampling import sample_images
from atom_hf.generation.trainer import DenoisingTrainer
from atom_hf.modeling.blocks import find_block
from atom_hf.utils.statistics import effective_rank

STEPS = {"flow": 600, "gan": 1500, "vae": 1500}
BATCH = 64
LATENTS = 16  # of the GAN and of the VAE
EULER = 20  # steps of sampling by flow
MOST = 1000  # samples that are measured, and images that they are compared with
POINTS = 5  # of a curve
ON_THE_WAY = 300  # samples of a point of a curve, and images that they are compared with
SHOWN = 12


class DispersiveGANTrainer(Dispersive, GANTrainer):
    """Dispersive Loss on the generator's last hidden state, of which the energy makes its atoms too."""


class DispersiveDenoisingTrainer(Dispersive, DenoisingTrainer):
    """Dispersive Loss on the block of which the energy makes its atoms too."""


class PixelTrainer(Trainer):
    """Divides the loss, which a VAE sums over pixels, by their number, so that other weights mean what they do for a flow."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        given = {"num_items_in_batch": num_items_in_batch}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **given)
        loss = loss / inputs["pixel_values"][0].numel()
        return (loss, outputs) if return_outputs else loss


class DispersiveVAETrainer(Dispersive, AtomTrainerMixin, PixelTrainer):
    """Dispersive Loss on the encoder's last hidden state, of which the energy makes its atoms too."""


def make_unet(images: Tensor) -> Any:
    """A small UNet without attention, of two levels."""
    levels = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "add_attention": False}
    sizes = {"block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 4}
    return make_denoiser(images.shape[2], images.shape[1], None, json.dumps({**levels, **sizes}))


def make_vae(images: Tensor, beta: float, **over: Any) -> BetaVAEModel:
    """A small convolutional beta-VAE; with beta 1 its loss is the evidence lower bound."""
    sizes = {"latent_size": LATENTS, "hidden_sizes": [16, 32], "architecture": "convolutional", **over}
    return BetaVAEModel(BetaVAEConfig(image_size=images.shape[2], num_channels=images.shape[1], beta=beta, **sizes))


def draw(trainer: Any, count: int, seed: int) -> Tensor:
    """Images [count, C, H, W] in [0, 1]; those of two models come from the same noise."""
    if isinstance(trainer, DenoisingTrainer):
        with trainer.averaged():
            parts = trainer.objective
            return sample_images(parts.denoiser, parts.scheduler, count, steps=EULER, seed=seed, batch_size=250)
    images = trainer.model.sample(count, generator=torch.Generator().manual_seed(seed))
    return images if isinstance(trainer.model, BetaVAEModel) else (images / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def measure(images: Tensor, data: Images, classifier: Classifier) -> dict[str, float]:
    """How good samples in [0, 1] are, beside images that were not trained on."""
    features, logits = classifier(2 * images - 1)
    real, _ = classifier(data.test[: len(images)])
    real, features = real / real.std(), features / real.std()
    found = fidelity(real.numpy(), features.numpy())
    shares = torch.bincount(logits.argmax(1), minlength=10).double() / len(images)
    true = torch.bincount(data.test_labels, minlength=10).double() / len(data.test_labels)
    some = shares > 0
    reals = (real.numpy(), data.test_labels[: len(images)].numpy())
    flat = [values.flatten(1).numpy() for values in (data.train / 2 + 0.5, images)]
    return {
        "frechet": frechet_distance(real.numpy(), features.numpy()),
        **found._asdict(),
        "class_diversity": class_diversity(*reals, features.numpy(), logits.argmax(1).numpy()),
        "class_divergence": float((shares[some] * (shares[some] / true[some]).log()).sum()),
        "memorised": nearest_training(*flat).memorised,
    }


@torch.no_grad()
def measure_latents(model: BetaVAEModel, images: Tensor) -> dict[str, float]:
    """How many latents hold something of images in [-1, 1], and how well they do: the squared error of a pixel in [0, 1]."""
    pixels = images / 2 + 0.5
    means, _ = model.encode(pixels)
    return {
        "active_units": active_units(means.numpy()),
        "effective_rank": effective_rank(means.numpy()),
        "reconstruction": float((model.decode(means) - pixels).square().mean()),
    }


class Curve(TrainerCallback):
    """Measures along the training; its own time is left out."""

    def __init__(self, trainer: Any, steps: int, found: Any):
        self.trainer, self.every, self.measure = trainer, steps // POINTS, found
        self.found: list[dict[str, float]] = []
        self.spent = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            start = time.process_time()
            self.found.append({"step": state.global_step, **self.measure(self.trainer)})
            self.spent += time.process_time() - start


def packed(images: Tensor) -> str:
    """Images in [0, 1] as text."""
    return base64.b64encode((images * 255).round().to(torch.uint8).numpy().tobytes()).decode()


def unpacked(text: str, shape: list[int]) -> np.ndarray:
    """The inverse of `packed`: uint8 [N, C, H, W]."""
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, *shape)


def make_trainer(data: Images, kind: str, arm: str, weight: float, seed: int, folder: str, **over: Any) -> Any:
    """The trainer of a run."""
    atom: dict[str, Any] = {}
    if arm in ("separation", "paper"):
        atom = {"atom": True, "atom_form": arm, "atom_weight": weight}
        atom |= {"atom_tokens": "all", "atom_layer": -1} if kind in ("gan", "vae") else {}
    common = dict(
        output_dir=folder,
        max_steps=over.pop("steps", STEPS[kind]),
        per_device_train_batch_size=BATCH,
        lr_scheduler_type="cosine",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
        use_cpu=True,
        **atom,
    )
    rows = {"train_dataset": Rows(data.train), "data_collator": collate}
    if kind == "flow":
        args = AtomTrainingArguments(**common, learning_rate=over.pop("lr", 2e-3))
        model = DenoisingObjective(make_unet(data.train), make_scheduler("flow"))
        trainer = DispersiveDenoisingTrainer(model, args, ema_decay=0.995, **rows)
        place = f"denoiser.{find_block(model.denoiser, None)}"
    elif kind == "vae":
        args = AtomTrainingArguments(**common, learning_rate=over.pop("lr", 2e-3))
        model = make_vae(data.train, weight if arm == "beta" else 1.0, **over)
        rows["train_dataset"] = Rows(data.train / 2 + 0.5)
        trainer = DispersiveVAETrainer(model, args, **rows)
        place = f"encoder.{len(model.encoder) - 1}"
    else:
        args = GANArguments(
            **common,
            learning_rate=over.pop("lr", 1e-3),
            adam_beta1=0.5,
            players={"discriminator": {"lr": over.pop("lr_d", 2e-3)}},
        )
        sizes = {"latent_size": LATENTS, "hidden_sizes": [32, 16], "gradient_penalty": 1.0, **over}
        config = GANConfig(
            image_size=data.train.shape[2],
            num_channels=data.train.shape[1],
            mode_seeking=weight if arm == "mode seeking" else 0.0,
            **sizes,
        )
        trainer = DispersiveGANTrainer(GANModel(config), args, **rows)
        place = f"generator.layers.{len(config.hidden_sizes) - 1}"
    if arm == "dispersive":
        trainer.weight, trainer.place = weight, place
    return trainer


def train(
    data: Images, classifier: Classifier, kind: str, arm: str, weight: float, seed: int, **over: Any
) -> dict[str, Any]:
    """What one run reaches; with seed 0 also what it looks like. Of plain runs with samples along the training."""
    set_seed(seed)
    count = min(MOST, len(data.test))

    def found(trainer: Any, count: int = min(ON_THE_WAY, count)) -> dict[str, float]:
        latents = measure_latents(trainer.model, data.test) if kind == "vae" else {}
        return {**measure(draw(trainer, count, 10_000), data, classifier), **latents}

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(data, kind, arm, weight, seed, folder, **over)
        curve = Curve(trainer, trainer.args.max_steps, found)
        if arm == "plain":
            trainer.add_callback(curve)
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start - curve.spent
    trainer.model.eval()
    row = {**found(trainer, count), "seconds": seconds}
    if kind == "vae":
        row["images"] = len(data.train)
    if arm == "plain":
        row["curve"] = curve.found
    if seed == 0:
        images = draw(trainer, SHOWN, 10_000)
        flat = [values.flatten(1).numpy() for values in (data.train / 2 + 0.5, images)]
        near = data.train[torch.from_numpy(nearest_training(*flat).index)] / 2 + 0.5
        row |= {"shown": packed(images), "nearest": packed(near), "shape": list(images.shape[1:])}
    return row
