"""Eqs. 5 to 11 and the two constraints as they are written: loops over samples and pairs of tokens, nothing collapsed.

It works on nested lists of Python floats, and on nested lists of 0-dimensional tensors where a gradient is wanted: only
operators that both have are used, so that it shares no code with the library.
"""

import sys

EPSILON = sys.float_info.epsilon


def to_lists(tensor):
    """A tensor as nested lists of its 0-dimensional entries, still attached to the graph."""
    return [to_lists(part) for part in tensor] if tensor.dim() else tensor


def _norm(vector):
    square = sum(x * x for x in vector)
    # The root has no derivative at 0; the subgradient 0 is the one that leaves a token at the centre where it is.
    return square**0.5 if square > 0 else 0.0


def _atom(charges, positions, mask, weight_of):
    tokens = [(q, p) for q, p, real in zip(charges, positions, mask, strict=True) if real]
    if not tokens:
        return None
    n, width = len(tokens), len(positions[0])
    weights = [weight_of(q) for q, _ in tokens]
    center = [sum(m * p[k] for m, (_, p) in zip(weights, tokens, strict=True)) / n for k in range(width)]
    radius = sum(
        (1 - m) * _norm([p[k] - center[k] for k in range(width)]) for m, (_, p) in zip(weights, tokens, strict=True)
    )
    return [q for q, _ in tokens], center, radius / n


def naive_energy(
    importance, position, mask=None, *, softening=0.0, token_reduction="sum", printed_signs=False, epsilon=EPSILON
):
    """(energy, size): Eq. 5, and the same mean over the absolute value of every term, the scale of its rounding error.

    `printed_signs` takes Eqs. 8 and 11 without the minus signs that the text at hand lost.
    """
    if mask is None:
        mask = [[True] * len(row) for row in importance]
    if printed_signs:
        weight_of, apart = lambda q: 1 - (q if q > 0 else 0), lambda product: product > 0
    else:
        weight_of, apart = lambda q: 1 - (-q if q < 0 else 0), lambda product: product < 0
    atoms = [_atom(*row, weight_of) for row in zip(importance, position, mask, strict=True)]
    atoms = [atom for atom in atoms if atom is not None]
    total, size, pairs = 0.0, 0.0, 0
    for a, (charges_a, center_a, radius_a) in enumerate(atoms):
        for b, (charges_b, center_b, radius_b) in enumerate(atoms):
            if a == b:
                continue
            pairs += 1
            square = sum((x - y) * (x - y) for x, y in zip(center_a, center_b, strict=True)) + softening**2
            # The documented floor: distances under the machine epsilon count as that.
            distance = square**0.5 if square > epsilon**2 else epsilon
            tokens = len(charges_a) * len(charges_b) if token_reduction == "mean" else 1
            for q_i in charges_a:
                for q_j in charges_b:
                    d = distance + (radius_a + radius_b) / 2 if apart(q_i * q_j) else distance
                    term = q_i * q_j / d / tokens
                    total, size = total + term, size + abs(term)
    return (total / pairs, size / pairs) if pairs else (0.0, 0.0)


def naive_constraint(importance, mask, *, token_reduction, neutrality, charge_floor, charge_floor_weight):
    """The two constraints, averaged over the samples that have a token."""
    values = []
    for charges, real in zip(importance, mask, strict=True):
        charges = [q for q, keep in zip(charges, real, strict=True) if keep]
        if charges:
            n = len(charges) if token_reduction == "mean" else 1
            net, total = sum(charges) / n, sum(abs(q) for q in charges) / n
            values.append(neutrality * net**2 + charge_floor_weight * max(0.0, charge_floor - total) ** 2)
    return sum(values) / len(values) if values else 0.0
