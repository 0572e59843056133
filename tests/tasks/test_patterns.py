"""Every pattern trains on real small data under Trainer, and is held to a figure."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import nn
from transformers import Trainer, TrainingArguments

from atom_hf.tasks import TaskArguments, TaskModel, TaskTrainer, patterns
from helpers.training import arguments

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    """(training images, their labels, other images, their labels): 1,000 and 797 digits, pixels from 0 to 1."""
    values, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(values))
    images = torch.as_tensor(values[order] / 16).float().view(-1, 1, 8, 8)
    labels = torch.as_tensor(labels[order])
    return images[:1000], labels[:1000], images[1000:], labels[1000:]


def rows(**columns):
    count = len(next(iter(columns.values())))
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def options(steps, batch, rate, **more):
    return {
        "max_steps": steps, "per_device_train_batch_size": batch, "learning_rate": rate, "max_grad_norm": 0.0,
        "logging_steps": steps, "train_sampling_strategy": "random", **more,
    }  # fmt: skip


def trained(folder, model, data, steps, batch, rate, **more):
    args = arguments(folder, TaskArguments, **options(steps, batch, rate, **more))
    TaskTrainer(model, args, train_dataset=data).train()
    return model.eval()


def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).float().mean().item()


def convolutional():
    layers = nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)
    return nn.Sequential(*layers)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_linear_boxes_span_the_subspace_of_pca(digits, tmp_path):
    points = digits[0].flatten(1)
    points = 3 * (points - points.mean(0))
    model = TaskModel(patterns.pca(), {"enc": "linear", "dec": "linear"})
    trained(tmp_path, model, rows(x=points), 300, 128, 2e-2)
    components = PCA(4).fit(points.numpy()).components_
    angles = np.degrees(subspace_angles(model.boxes["dec"].layers[0].weight.detach().numpy(), components.T))
    assert angles.max() < 3


def test_centres_reach_the_inertia_of_k_means(digits, tmp_path):
    points = digits[0].flatten(1)
    model = trained(tmp_path, TaskModel(patterns.kmeans(), {"near": "centres"}), rows(x=points), 60, 500, 2e-2)
    inertia = torch.cdist(points, model.boxes["near"].centres.detach()).square().min(1).values.sum().item()
    assert inertia < 1.05 * KMeans(10, n_init=10, random_state=0).fit(points.numpy()).inertia_


class OwnVae(nn.Module):
    """The same variational autoencoder, with its loss written by hand."""

    accepts_loss_kwargs = False

    def __init__(self, enc, dec):
        super().__init__()
        self.enc, self.dec = enc, dec

    def forward(self, x):
        mean, log_variance = self.enc(x).chunk(2, dim=1)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = (self.dec(code) - x.flatten(1)).square().sum(1).mean()
        prior = (log_variance.exp() + mean.square() - 1 - log_variance).sum(1).mean() / 2
        return {"loss": 10 * error + prior}


@slow
def test_the_bound_of_a_vae_is_that_of_its_own_trainer(digits, tmp_path):
    boxes = {
        "enc": nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)),
        "dec": nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64)),
    }
    own = OwnVae(copy.deepcopy(boxes["enc"]), copy.deepcopy(boxes["dec"]))
    before = [own(digits[2])["loss"].item()]
    trained(tmp_path, TaskModel(patterns.vae(), boxes), rows(x=digits[0]), 400, 128, 3e-3)
    args = arguments(tmp_path, TrainingArguments, remove_unused_columns=False, **options(400, 128, 3e-3))
    Trainer(own, args, train_dataset=rows(x=digits[0])).train()
    found = []
    for model in (OwnVae(**boxes), own):
        torch.manual_seed(1)
        with torch.no_grad():
            found.append(sum(model(digits[2])["loss"].item() for _ in range(20)) / 20)
    assert found[0] == pytest.approx(found[1], rel=0.02) and found[1] < before[0] / 2


@slow
def test_what_is_hidden_is_filled_in(digits, tmp_path):
    model = TaskModel(patterns.denoising(), {"enc": "mlp(128)", "dec": "mlp(128)"})
    trained(tmp_path, model, rows(x=digits[0]), 300, 128, 2e-3)
    images = digits[2]
    hidden = images * (torch.rand_like(images) >= 0.4)
    with torch.no_grad():
        filled = model.boxes["dec"](model.boxes["enc"](hidden)).view_as(images)
    by_mean = (digits[0].mean(0) - images).square().mean()
    assert (filled - images).square().mean() < 0.6 * min(by_mean, (hidden - images).square().mean())


@slow
def test_a_gan_covers_the_modes_of_a_ring(tmp_path):
    angles = torch.arange(8) * math.pi / 4
    modes = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    points = modes[torch.randint(8, (4000,))] + 0.1 * torch.randn(4000, 2)
    model = TaskModel(patterns.gan(code="vector(2)"), {"gen": "mlp(64, 64)", "dis": "mlp(64, 64)"})
    adam = {"adam_beta1": 0.5, "adam_beta2": 0.99, "lr_scheduler_type": "constant", "players": {"dis": {"lr": 2e-3}}}
    trained(tmp_path, model, rows(x=points), 2000, 256, 1e-3, **adam)
    with torch.no_grad():
        distance, mode = torch.cdist(model.boxes["gen"](torch.randn(4000, 2)), modes).min(1)
    near = distance < 0.4
    assert near.float().mean() > 0.8 and len(mode[near].unique()) == 8


@slow
def test_domains_are_turned_into_each_other_and_back(digits, tmp_path):
    """Digits and photographic negatives of other digits. A judge of each domain, of rows that nobody trained on, reads the
    digit from what was turned into it."""
    images, labels, others, judged = digits
    first, second = images[:500], 1 - images[500:]
    judges = SVC().fit(others.flatten(1).numpy(), judged), SVC().fit(1 - others.flatten(1).numpy(), judged)

    def network():
        widths = ((1, 16), (16, 16), (16, 1))
        return nn.Sequential(*[layer for a, b in widths for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())][:-1])

    model = TaskModel(patterns.cyclegan(), {"f": network(), "g": network(), "dis_x": "mlp(64)", "dis_y": "mlp(64)"})
    f, g = model.boxes["f"], model.boxes["g"]

    def round_trips():
        with torch.no_grad():
            return [(g(f(first)) - first).abs().mean().item(), (f(g(second)) - second).abs().mean().item()]

    before = round_trips()
    players = {"dis_x": {"lr": 5e-4}, "dis_y": {"lr": 5e-4}}
    more = {"adam_beta1": 0.5, "lr_scheduler_type": "constant", "players": players}
    trained(tmp_path, model, rows(x=first, y=second), 600, 32, 2e-3, **more)
    assert all(after < start / 3 for after, start in zip(round_trips(), before, strict=True))
    with torch.no_grad():
        turned = f(first).flatten(1).numpy(), g(second).flatten(1).numpy()
    assert judges[1].score(turned[0], labels[:500]) > 0.8 and judges[0].score(turned[1], labels[500:]) > 0.8


@slow
def test_a_student_agrees_with_its_teacher(digits, tmp_path):
    images, labels, others, judged = digits
    teacher = convolutional()
    trained(tmp_path, TaskModel(patterns.supervised(), {"f": teacher}), rows(x=images, y=labels), 200, 128, 5e-3)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    model = TaskModel(patterns.distillation(), {"student": student, "teacher": teacher})
    trained(tmp_path, model, rows(x=images, y=labels), 300, 128, 1e-2)
    agreement = (student(others).argmax(1) == teacher(others).argmax(1)).float().mean()
    assert agreement > 0.9 and accuracy(student, others, judged) > accuracy(teacher, others, judged) - 0.06


@slow
def test_neighbours_of_contrastive_codes_are_better_than_those_of_pixels(digits, tmp_path):
    """Digits at random places of a larger image: codes of shifted views do not depend on the place, and pixels do."""
    images, labels, others, judged = digits

    def placed(small):
        large = torch.zeros(len(small), 1, 12, 12)
        for image, digit in zip(large, small, strict=True):
            row, column = torch.randint(5, (2,)).tolist()
            image[:, row : row + 8, column : column + 8] = digit
        return large

    train, test = placed(images), placed(others)
    model = TaskModel(patterns.contrastive(), {"enc": "mlp(256)"})
    trained(tmp_path, model, rows(x=train), 400, 256, 3e-3)

    def neighbours(read):
        with torch.no_grad():
            values = [nn.functional.normalize(read(part).flatten(1)).numpy() for part in (train, test)]
        return KNeighborsClassifier(5).fit(values[0], labels).score(values[1], judged)

    assert neighbours(model.boxes["enc"]) > neighbours(lambda x: x) + 0.01


@slow
def test_an_editor_writes_what_its_classifier_and_a_judge_read(digits, tmp_path):
    images, labels, others, judged = digits
    get = convolutional()
    trained(tmp_path, TaskModel(patterns.supervised(), {"f": get}), rows(x=images, y=labels), 200, 128, 5e-3)
    model = TaskModel(patterns.manipulation(), {"get": get, "put": "mlp(256, 256)"})
    trained(tmp_path, model, rows(x=images, y=labels), 400, 128, 2e-3)
    judge, put = SVC().fit(others.flatten(1).numpy(), judged), model.boxes["put"]
    hot, success, believed, undone = torch.eye(10), [], [], []
    with torch.no_grad():
        for step in range(1, 10):  # to each of the nine other classes
            wanted = (labels + step) % 10
            edits = put(images, hot[wanted]).view_as(images)
            success.append(accuracy(get, edits, wanted))
            believed.append(judge.score(edits.flatten(1).numpy(), wanted))
            undone.append((put(edits, hot[labels]).view_as(images) - images).square().mean().sqrt().item())
    assert np.mean(success) > 0.98 and np.mean(believed) > 0.9 and np.mean(undone) < 0.15
