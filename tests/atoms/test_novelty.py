"""The score of how unusual a sample is: its distance against the formula, and how well it is calibrated."""

import numpy as np
import torch

from atom_hf.atoms.novelty import Novelty, pooled


def two_clouds(count, seed, width=6):
    """Samples of two classes, whose spread differs by direction."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(2, (count,), generator=generator)
    spread = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.5, 0.5])
    samples = torch.randn(count, width, generator=generator) * spread
    samples[:, 3] += 8.0 * classes
    return samples, classes


def test_the_distance_is_mahalanobis_to_the_mean_of_the_class():
    samples, classes = two_clouds(4000, 0)
    novelty = Novelty(6, 2)
    novelty.fit(samples, classes, *two_clouds(500, 1))
    others, theirs = two_clouds(20, 2)
    means = torch.stack([samples[classes == number].mean(0) for number in range(2)])
    within = (samples - means[classes]).double().numpy()
    covariance = within.T @ within / (len(within) - 2)
    # The three largest variances are told apart, the other three are one.
    values, vectors = np.linalg.eigh(covariance)
    values[:3] = values[:3].mean()
    inverse = vectors @ np.diag(1 / values) @ vectors.T
    expected = [float(off @ inverse @ off) for off in (others - means[theirs]).double().numpy()]
    np.testing.assert_allclose(novelty.distance(others, theirs).numpy(), expected, rtol=1e-3)


def test_on_samples_like_those_of_the_fit_the_score_is_even_and_between_the_classes_it_is_high():
    novelty = Novelty(6, 2)
    novelty.fit(*two_clouds(1000, 0), *two_clouds(1000, 1))
    samples, classes = two_clouds(2000, 2)
    probabilities = torch.nn.functional.one_hot(classes, 2).float()
    real = torch.ones(2000, 1, dtype=torch.bool)
    score = novelty(samples[:, None], real, probabilities)
    assert score.min() >= 0 and score.max() <= 1
    for share in (0.1, 0.5, 0.9):
        assert abs(float((score <= share).float().mean()) - share) < 0.05
    between = samples.clone()
    between[:, 3] += 4.0 * (1 - 2 * classes)
    assert novelty(between[:, None], real, probabilities).median() > 0.95


def test_padding_is_no_part_of_a_sample():
    tokens = torch.tensor([[[1.0, 3.0], [3.0, 5.0], [100.0, 100.0]]])
    assert torch.equal(pooled(tokens, torch.tensor([[True, True, False]])), torch.tensor([[2.0, 4.0]]))


def test_few_samples_a_class_without_any_and_samples_all_alike_give_finite_scores():
    for samples in (torch.randn(3, 6), torch.ones(14, 6)):
        novelty = Novelty(6, 4)
        classes = torch.zeros(len(samples), dtype=torch.long)
        novelty.fit(samples, classes, samples[:2], classes[:2])
        found = novelty.distance(torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0]))
        assert found.isfinite().all() and all(value.isfinite().all() for value in novelty.state_dict().values())
