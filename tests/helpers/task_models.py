"""Small tasks with their modules, and the naive way to train them."""

import torch
from torch import nn
from torch.nn import functional as F

from atom_hf.tasks import TaskModel, read_task

GAME = """\
type image = pixels(1, 8, 8), label = class(10), code = vector(4), truth = logit
data D : image, label
noise N : code = normal
noise A : label = marginal(D.2)
const one : truth = 1
const zero : truth = 0
fixed get : image -> label
learner gen : code -> image
learner dis : image -> truth
learner put : image, label -> image
for x, y in D; n in N; a in A:
    real: dis(x) == one trains dis
    fake 0.5: dis(gen(n)) == zero trains dis
    fool: dis(gen(n)) == one trains gen
    putget: get(put(x, a)) == a
    getput 10: put(x, get(x)) == x
    round 2: put(gen(n), get(gen(n))) == gen(n) trains put
    seems: dis(put(x, a)) == one trains put
"""


class SameDropout(nn.Module):
    """Dropout whose mask depends on its input alone, so that the same call drops the same, however often it is made."""

    def forward(self, x):
        if not self.training:
            return x
        generator = torch.Generator().manual_seed(int(x.detach().double().abs().sum().item() * 1e6) % 2**31)
        return x * (torch.rand(x.shape, generator=generator) > 0.3) / 0.7


def network(inputs, outputs, dropout=True):
    layers = [nn.Linear(inputs, 24), nn.Tanh(), SameDropout() if dropout else nn.Identity(), nn.Linear(24, outputs)]
    return nn.Sequential(nn.Flatten(), *layers)


class Joined(nn.Module):
    """A network of two wires."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = network(inputs, outputs)

    def forward(self, *wires):
        return self.layers(torch.cat([wire.flatten(1) for wire in wires], 1))


def game_boxes(seed=0):
    torch.manual_seed(seed)
    return {"get": network(64, 10), "gen": network(4, 64), "dis": network(64, 1), "put": Joined(74, 64)}


def game(seed=0):
    return TaskModel(read_task(GAME), game_boxes(seed))


def game_batch(rows=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.rand(rows, 1, 8, 8, generator=generator),
        "y": torch.randint(10, (rows,), generator=generator),
        "n": torch.randn(rows, 4, generator=generator),
        "a": torch.randint(10, (rows,), generator=generator),
    }


def naive_gradients(boxes, batch):
    """The gradients of the game, atom by atom: requires_grad is switched on for what the atom trains, and off for the rest."""
    get, gen, dis, put = (boxes[name] for name in ("get", "gen", "dis", "put"))
    get.eval()
    x, n, a = (batch[name] for name in ("x", "n", "a"))
    hot = F.one_hot(a, 10).float()
    rows = len(x)

    def image(values):
        return values.view(rows, 1, 8, 8)

    def classes(values):
        return get(values).softmax(-1)

    def truth(values, target):
        return F.binary_cross_entropy_with_logits(dis(values).view(-1), torch.full((rows,), float(target)))

    atoms = [
        (1, ["dis"], lambda: truth(x, 1)),
        (0.5, ["dis"], lambda: truth(image(gen(n)), 0)),
        (1, ["gen"], lambda: truth(image(gen(n)), 1)),
        (1, ["put"], lambda: F.cross_entropy(get(image(put(x, hot))), a)),
        (10, ["put"], lambda: F.mse_loss(image(put(x, classes(x))), x)),
        (2, ["put"], lambda: F.mse_loss(image(put(image(gen(n)), classes(image(gen(n))))), image(gen(n)))),
        (1, ["put"], lambda: truth(image(put(x, hot)), 1)),
    ]
    learners = {name: boxes[name] for name in ("gen", "dis", "put")}
    losses = []
    for weight, trains, loss in atoms:
        for name, module in learners.items():
            module.requires_grad_(name in trains)
        losses.append(loss())
        (weight * losses[-1]).backward()
    for module in learners.values():
        module.requires_grad_(True)
    gradients = {f"boxes.{n}.{key}": p.grad for n, m in learners.items() for key, p in m.named_parameters()}
    return gradients, [loss.item() for loss in losses]
