"""Perplexity of texts under a causal language model that judges them, and was trained by nobody here."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from atom_hf.finetune.pretrained import find_model
from atom_hf.tasks.manipulation.train import shown_name
from atom_hf.utils.quiet import quiet

BATCH = 16

DOCUMENT = "<|endoftext|>"  # what stands between documents where GPT-2, SmolLM2 and others are pretrained

NOT_RUN = "not run"

READ_AS = (
    "A perplexity says how unexpected the words of a text are, and not whether it is a good sentence: frequent words make it",
    "small, and a rare word that a person would write makes it large.",
    "It is to be compared with that of the sentences themselves, which are in lower case with their punctuation apart: text",
    "that a language model seldom sees.",
)


class LanguageModel(NamedTuple):
    """A causal language model that judges texts."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def start(self) -> int | None:
        """The id of the token that a text follows, so that its first token is judged too; None if there is none.

        That of documents where there is one: an instruct model's own begins a chat, which no sentence follows.
        """
        known = self.tokenizer.get_vocab().get(DOCUMENT)
        others = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((one for one in (known, *others) if one is not None), None)


def load_language_model(source: str, gguf: str | None = None) -> LanguageModel:
    """The model of a folder or Hub id; of a GGUF file in it, dequantized (which needs the package gguf)."""
    folder, more = find_model(source), {"gguf_file": gguf} if gguf else {}
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, **more)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)
    return LanguageModel(Path(gguf).stem if gguf else shown_name(source), model.eval(), tokenizer)


@torch.no_grad()
def token_losses(judge: LanguageModel, texts: Sequence[str], batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """The sum [N] of the negative log-likelihoods of each text's tokens, and how many tokens they are [N]."""
    first = [] if judge.start is None else [judge.start]
    rows = [first + judge.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    losses, counts = torch.zeros(len(rows), dtype=torch.float64), torch.tensor([max(0, len(row) - 1) for row in rows])
    order = np.argsort([len(row) for row in rows], kind="stable")  # texts of about one length share a batch
    order = [row for row in order.tolist() if counts[row]]
    device = next(judge.model.parameters()).device
    for start in tqdm(range(0, len(order), batch), desc="perplexity", unit="batch", leave=False):
        some = order[start : start + batch]
        longest = max(len(rows[row]) for row in some)
        ids = torch.tensor([rows[row] + [0] * (longest - len(rows[row])) for row in some], device=device)
        mask = torch.arange(longest, device=device) < counts[some, None].to(device) + 1
        logits = judge.model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1].float()
        found = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(some), -1)
        losses[some] = (found * mask[:, 1:]).sum(1).double().cpu()
    return losses, counts


def perplexity(judge: LanguageModel, texts: Sequence[str]) -> dict[str, Any]:
    """That of all tokens of all texts, with the number of texts and of tokens, and the name of the model."""
    losses, counts = token_losses(judge, texts)
    tokens = int(counts.sum())
    value = math.exp(float(losses.sum()) / tokens)
    return {"perplexity": value, "texts": len(texts), "tokens": tokens, "model": judge.name}


def judge_rows(judge: LanguageModel, rows: list[dict[str, Any]]) -> None:
    """Adds to each run what its edits have; to one whose edits were not kept what its examples, and their sentences, have."""
    for row in rows:
        if "texts" in row:
            if row.get("fluency", {}).get("model") != judge.name:
                row["fluency"] = perplexity(judge, row["texts"])
        elif "examples" in row and row.get("fluency_of_examples", [{}])[0].get("model") != judge.name:
            row["fluency_of_examples"] = [
                perplexity(judge, [one[place] for one in row["examples"]]) for place in (0, 2)
            ]


def cell(rows: list[dict[str, Any]]) -> str:
    """The perplexity of the edits of an editor's runs, as a cell of a table."""
    values = [row["fluency"]["perplexity"] for row in rows if "fluency" in row]
    if not values:
        return NOT_RUN
    between = f" [{min(values):.1f}, {max(values):.1f}]" if len(values) > 1 else ""
    seeds = "" if len(values) == len(rows) else f" ({len(values)} of {len(rows)} seeds)"
    return f"{np.mean(values):.1f}{between}{seeds}"


def column_note(rows: list[dict[str, Any]]) -> str:
    """What the column of perplexities is."""
    models = ", ".join(dict.fromkeys(f"`{row['fluency']['model']}`" for row in rows if "fluency" in row))
    if not models:
        return "*Perplexity* was not run: no language model judged all edits of a run (`--judge_lm`)."
    note = (
        f"*Perplexity* is that of the edits, over all their tokens, under {models}, a language model that only judges."
    )
    if not all("fluency" in row for row in rows):
        note += f"\n*{NOT_RUN.capitalize()}* are runs that did not keep their edits, or whose edits it has not read."
    return note


def fluency_note(rows: list[dict[str, Any]], edited: Sequence[str], as_they_are: str) -> str:
    """What a language model says of edits beside the sentences as they are; `edited`: the editors to tell of."""
    by = {(row["seed"], row["editor"]): row["fluency"] for row in rows if "fluency" in row}
    lines = []
    for name in edited:
        seeds = [seed for seed, editor in by if editor == name and (seed, as_they_are) in by]
        ratios = [by[seed, name]["perplexity"] / by[seed, as_they_are]["perplexity"] for seed in seeds]
        if ratios:
            lines.append(
                f"The perplexity of *{name}* is {np.mean(ratios):.2f} times that of the same sentences unedited."
            )
    for row in rows:
        if "fluency_of_examples" in row:
            before, after = row["fluency_of_examples"]
            lines.append(
                f"Under `{after['model']}`, a language model that only judges, the {after['texts']} edits below have a "
                f"perplexity of {after['perplexity']:.0f},\nand their sentences one of {before['perplexity']:.0f}; so few "
                "texts tell no more than the direction."
            )
    if not lines:
        return "No language model judged the edits here."
    return "\n".join([*lines, *READ_AS])
