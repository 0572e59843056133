"""Texts of tasks that tests share."""

DECLARATIONS = """\
type image = pixels(1, 8, 8), label = class(10), code = vector(16), stats = gaussian(16)
type truth = logit, row = class(batch)

data D : image, label
noise N : code = normal
noise A : label = marginal(D.2)
const one : truth = 1
const zero : truth = 0
const unit : stats = standard
const own : row
function draw : stats -> code
function hide : image -> image = mask(0.4), noisy
function view : image -> image = shift(1), noisy
"""

# Every line of the language's specification, and each with the learners that it needs.
EVERY_PATTERN = f"""{DECLARATIONS}
fixed get, teacher : image -> label
learner f, student : image -> label
learner g : label -> image
learner enc : image -> stats
learner plain, same : image -> code
learner dec, gen : code -> image
learner dis : image -> truth
learner put : image, label -> image
learner w : label -> code
let steer(x, a) = dec(add(plain(x), w(a)))

for x, y in D; n in N:
    fit: f(x) == y                                   # supervised
    rebuild: dec(draw(enc(x))) == x by sse           # VAE
    prior 0.1: enc(x) == unit by kl
    denoise: dec(plain(hide(x))) == x
    real: dis(x) == one trains dis                   # GAN
    fake: dis(gen(n)) == zero trains dis
    fool: dis(gen(n)) == one trains gen
    back_x 10: g(f(x)) == x by l1
    hint 0.7: student(x) == teacher(x) by kl(temperature=2)
    match: against(same(view(x)), same(view(x))) == own
for x, y in D; a in A:
    putget 1  : get(put(x, a)) == a
    getput 10 : put(x, get(x)) == x
    undo 10   : put(put(x, a), get(x)) == x
    law 0.3   : (put(x, a), a) ~ (x, y)
    steered: get(steer(x, a)) == a
"""

FIT = f"{DECLARATIONS}learner f : image -> label\n"
"""Declarations to which atoms with a classifier f, and x, y in D are added."""


def fit(atoms, more=""):
    """A task over x, y in D and n in N: what `FIT` declares, more lines, and lines of atoms."""
    lines = "".join(f"    {line}\n" for line in atoms.splitlines())
    return f"{FIT}{more}\nfor x, y in D; n in N:\n{lines}"
