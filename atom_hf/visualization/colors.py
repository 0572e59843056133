"""The two colours of importance, and the colours of classes; all remain distinct under every common colour blindness."""

import numpy as np

# Blue and vermillion show on white and on dark paper.
NEGATIVE, POSITIVE = (42, 123, 192), (226, 100, 28)

PAPER, NIGHT, INK, MUTED = (255, 255, 255), (28, 30, 34), (29, 28, 26), (97, 93, 87)

LEVELS = 20  # steps of strength per sign: finer than the eye can see, few enough for one CSS class each

# Classes, on white and on dark paper: each has a contrast of 3:1 with its own. After Okabe and Ito.
CLASSES = ((0, 102, 170), (196, 78, 0), (0, 128, 96), (176, 72, 130), (128, 108, 0), (40, 40, 40), (120, 80, 200))

NIGHT_CLASSES = (
    (92, 176, 240), (245, 150, 70), (60, 200, 160), (230, 140, 190), (222, 202, 70), (230, 230, 230), (178, 150, 250),
)  # fmt: skip


def level_of(importance: float, scale: float) -> int:
    """-LEVELS..LEVELS: the strength of an importance where one of `scale` has the full colour; 0 for nan."""
    return 0 if importance != importance else max(-LEVELS, min(LEVELS, round(importance / scale * LEVELS)))


def word_style(level: int, paper=PAPER) -> tuple[tuple, tuple, int]:
    """Of a word at level -LEVELS..LEVELS: the colours of its ground and text, and the weight 0..3 of its underline."""
    share, end = abs(level) / LEVELS, NEGATIVE if level < 0 else POSITIVE
    ground = tuple(round(a + (b - a) * share) for a, b in zip(paper, end, strict=True))
    # Either black or white has a contrast of 4.5:1 with any colour; at this luminance they change places.
    light = np.dot((np.array(ground) / 255) ** 2.2, (0.2126, 0.7152, 0.0722)) > 0.18
    return ground, (0, 0, 0) if light else (255, 255, 255), (share >= 0.1) + (share >= 0.35) + (share >= 0.7)
