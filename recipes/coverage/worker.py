"""Checks the architectures that it is given, one a line, and answers with a line each. `run.py` starts it.

A line is `[task, model type]`, or `[task, model type, "channels"]` to read the channels alone.
"""

import json
import os
import resource
import sys
import warnings

# One thread: the models are too small for more, and sums are added up in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"


def main() -> None:
    limit = int(sys.argv[1]) * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # What libraries print is not an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import channels
    import check
    import torch
    from transformers import logging

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print("ready", file=answers)
    for line in sys.stdin:
        task, model_type, *what = json.loads(line)
        found = channels.read_units_and_space if what else check.check
        print(json.dumps(found(task, model_type)), file=answers)


if __name__ == "__main__":
    main()
