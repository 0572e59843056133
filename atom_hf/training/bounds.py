"""Bounds of the numbers of `TrainingArguments`.

Transformers checks few of them when they are given: most end in a traceback when the number is used, after data and model
have been loaded.
"""

from ..utils.bounds import COUNT, NOT_NEGATIVE, SEED, Bound

_SHARE = Bound(0, 1)

_BETA = Bound(0, 1, below=True)

TRAINING_BOUNDS = {
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "eval_accumulation_steps": COUNT,
    "num_train_epochs": Bound(0, 10**9),
    "max_steps": Bound(-1, 2**53, whole=True),
    "learning_rate": NOT_NEGATIVE,
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": _BETA,
    "adam_beta2": _BETA,
    "adam_epsilon": NOT_NEGATIVE,
    "label_smoothing_factor": _SHARE,
    "neftune_noise_alpha": NOT_NEGATIVE,
    "logging_steps": NOT_NEGATIVE,
    "eval_steps": NOT_NEGATIVE,
    "save_steps": NOT_NEGATIVE,
    "eval_delay": NOT_NEGATIVE,
    "seed": SEED,
    "data_seed": SEED,
    "dataloader_num_workers": Bound(0, 2**15, whole=True),
    "dataloader_prefetch_factor": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "ddp_timeout": COUNT,
}
