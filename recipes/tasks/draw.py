"""Draws every pattern into docs/tasks/: python recipes/tasks/draw.py

Run it when a pattern or the drawing has changed.
"""

from pathlib import Path

from atom_hf.tasks import draw_task, patterns

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "tasks"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in patterns.NAMES:
        (FOLDER / f"{name}.svg").write_text(draw_task(patterns.pattern(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
