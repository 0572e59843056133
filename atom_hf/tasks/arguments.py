"""`TaskArguments`: Transformers' TrainingArguments, with the options of single learners."""

from dataclasses import dataclass, field

from ..training.players import PlayerArguments


@dataclass
class TaskArguments(PlayerArguments):
    """TrainingArguments of a task, whose learners are the players."""

    remove_unused_columns: bool = field(default=False, metadata={"help": "A task names the columns that it uses."})
