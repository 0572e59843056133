"""Train a task beside the main one: the sparring copy, the judge."""

from typing import Any

import torch

from ...finetune.log_lines import print_lines
from ..arguments import TaskArguments
from ..model import TaskModel
from ..rows import TaskRows, collate
from ..spec import TaskSpec
from ..trainer import TaskTrainer
from .rows import LabelledRows

BATCH = 128


def fit(
    spec: TaskSpec,
    boxes: dict[str, Any],
    rows: LabelledRows | TaskRows,
    args: TaskArguments,
    steps: int,
    rate: float,
    batch: int = BATCH,
) -> TaskModel:
    """Train the learners of a task of one data source `D`, without saving; returns the trained model.

    Args:
        args: of the run that it belongs to, whose seed, device and folder it takes.
        rows: of the source `D`.
        batch: rows of a batch, at most.
        steps, rate: optimizer steps, and the peak of the learning rate, which rises over a tenth of them and falls again.
    """
    torch.manual_seed(args.seed)
    model = TaskModel(spec, boxes)
    own = TaskArguments(
        args.output_dir,
        max_steps=steps,
        learning_rate=rate,
        per_device_train_batch_size=min(batch, len(rows)),
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        seed=args.seed,
        use_cpu=args.use_cpu,
        disable_tqdm=args.disable_tqdm,
        bf16=args.bf16,
        fp16=args.fp16,
        train_sampling_strategy=args.train_sampling_strategy,
        dataloader_pin_memory=args.dataloader_pin_memory,
    )
    data = rows if isinstance(rows, TaskRows) else rows.as_task_rows(args.seed)
    trainer = TaskTrainer(model, own, train_dataset=data, data_collator=collate)
    print_lines(trainer)
    trainer.train()
    return model.eval()
