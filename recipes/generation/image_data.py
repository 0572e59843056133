"""Images of a study of generators, and the small classifier whose features and classes measure samples of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from atom_hf.data.load import load_data

FEATURES = 32
EPOCHS, BATCH, RATE = 30, 64, 2e-3


class Images(NamedTuple):
    """Pixels float32 [N, C, H, W] in [-1, 1] and classes [N], to train on and of others."""

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor

    def first(self, count: int | None) -> "Images":
        """With the first images of training alone; the built-in digits are in random order."""
        return self._replace(train=self.train[:count], labels=self.labels[:count])


def load_images(name: str, file: str | None) -> Images:
    """The built-in digits, or a file in Keras' layout (.npz of x_train, y_train, x_test, y_test)."""
    if name == "digits":
        data = load_data("digits")
        parts = [
            (np.stack([np.array(row["image"]) for row in part]), part["label"]) for part in (data.train, data.eval)
        ]
    else:
        values = np.load(file)
        parts = [(values[f"x_{part}"], values[f"y_{part}"]) for part in ("train", "test")]
    found = []
    for pixels, labels in parts:
        pixels = torch.from_numpy(np.asarray(pixels, dtype=np.float32)) / 127.5 - 1
        pixels = pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        found += [pixels, torch.as_tensor(np.asarray(labels), dtype=torch.long).flatten()]
    return Images(*found)


class Classifier(nn.Module):
    """Two convolutions, features [N, 32], ten classes."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 16, FEATURES),
        )
        self.last = nn.Linear(FEATURES, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 32] and logits [N, 10] of images in [-1, 1]."""
        features = self.body(images)
        return features, self.last(features.relu())


def load_classifier(data: Images, file: Path) -> Classifier:
    """The classifier in `file`, which is trained and written if it is not there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(data.train.shape[1])
        if not file.is_file():
            optimizer = torch.optim.AdamW(model.parameters(), RATE)
            for _ in range(EPOCHS):
                for rows in torch.randperm(len(data.train)).split(BATCH):
                    loss = F.cross_entropy(model(data.train[rows])[1], data.labels[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    model.load_state_dict(load_file(file))
    return model.eval()


def accuracy(model: Classifier, data: Images) -> float:
    with torch.no_grad():
        return float((model(data.test)[1].argmax(1) == data.test_labels).float().mean())
