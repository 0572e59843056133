"""Print a table line for each log of a run. Reporters get Transformers' dictionaries, as usual."""

import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy, has_length

from ..utils.tables import format_number

# (heading, key in the logs): the least width is that of a number such as -1.234e-05.
LOSS = (("loss", "loss"),)
ATOM = (("energy", "atom_energy"), ("importance", "atom_importance"))
TASK, MOST = "loss_", 6  # the atoms of a task, and how many of them have room beside the loss
RATE = (("learning rate", "learning_rate"), ("rows/s", "rows"))
WIDTH = 10


def print_lines(trainer: Trainer) -> None:
    """Print lines instead of Transformers' dictionaries. What a notebook shows stays."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar())
        trainer.add_callback(LogLines())
    elif trainer.pop_callback(PrinterCallback) is not None:
        trainer.add_callback(LogLines())


def log_often(trainer: Trainer, least: int) -> None:
    """Let a run of few steps log at least so many times, as far as it has steps. One that is resumed logs as it did."""
    args = trainer.args
    if args.logging_strategy != IntervalStrategy.STEPS:
        return
    if args.resume_from_checkpoint is not None:
        kept = TrainerState.load_from_json(Path(args.resume_from_checkpoint, TRAINER_STATE_NAME))
        args.logging_steps = kept.logging_steps or args.logging_steps
        return
    *_, steps = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
    if args.logging_steps >= 1:
        args.logging_steps = min(args.logging_steps, max(1, steps // least))


class _Bar(ProgressCallback):
    """The progress bar alone."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class LogLines(TrainerCallback):
    """A line for each log of training and for each evaluation in between, and one at the end. The first process prints them."""

    def __init__(self) -> None:
        self._is_training = False
        self._columns: tuple[tuple[str, str], ...] = ()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_training, self._columns = True, ()
        self._first, self._logged = state.global_step, None
        self._seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._logged is None:  # batches that a resumed run skips take time too, and none of it is training
            self._logged, self._since = (state.global_step, state.epoch or 0.0), time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds += time.monotonic() - self._since
        self._since = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    on_save = on_evaluate

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not (self._is_training and logs and state.is_world_process_zero):
            return
        if "loss" in logs and self._logged is not None:
            self._print_line(state, {**logs, "rows": self._rows_a_second(args, state, kwargs.get("train_dataloader"))})
        elif "train_runtime" in logs and state.global_step > self._first:
            steps, seconds = state.global_step - self._first, format_number(logs["train_runtime"])
            tqdm.write(
                f"trained {steps} step{'s' * (steps > 1)} in {seconds} s, mean loss {_shown(logs.get('train_loss'))}"
            )
        elif any(name.startswith("eval_") for name in logs):
            left_out = ("_runtime", "_per_second", "_time")  # how long it took
            found = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
            parts = [f"{name} {_shown(value)}" for name, value in found.items() if not f"_{name}".endswith(left_out)]
            tqdm.write(f"{state.global_step:>{WIDTH}}  evaluation: {', '.join(parts)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_training = False

    def _print_line(self, state: Any, values: dict[str, Any]) -> None:
        if not self._columns:
            atom = ATOM if ATOM[0][1] in values else ()
            parts = [(key.removeprefix(TASK), key) for key in values if key.startswith(TASK)][:MOST]
            self._columns = (*LOSS, *parts, *atom, *RATE)
            tqdm.write("  ".join(heading.rjust(WIDTH) for heading in ("step", *(name for name, _ in self._columns))))
        cells = [str(state.global_step).rjust(WIDTH)]
        cells += [_shown(values.get(key)).rjust(max(WIDTH, len(heading))) for heading, key in self._columns]
        tqdm.write("  ".join(cells))

    def _rows_a_second(self, args: Any, state: Any, loader: Any) -> float | None:
        """Rows of training since the last log, a second; evaluations and checkpoints in between do not count."""
        step, epoch = self._logged
        self._logged = state.global_step, state.epoch or 0.0
        seconds, self._seconds = self._seconds, 0.0
        data = getattr(loader, "dataset", None)
        if has_length(data) and not args.dataloader_drop_last:
            rows = (self._logged[1] - epoch) * len(data)
        else:
            batch = (state.train_batch_size or args.train_batch_size) * args.world_size
            rows = (state.global_step - step) * batch * args.gradient_accumulation_steps
        return rows / seconds if seconds > 0 and rows > 0 else None


def _shown(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return format_number(value)
