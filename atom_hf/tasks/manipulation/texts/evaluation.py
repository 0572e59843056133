"""Judge an editor of texts: what its edits say to classifiers that it was not trained against, and what they keep."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ....errors import AtomError
from ....utils.statistics import t_interval
from ..evaluation import ROWS
from .judge import USUAL, TextJudge, make_text_judge
from .manipulator import TextManipulator
from .rows import TextRows

AGREEMENT_ROWS = 60  # texts whose words are masked one by one

OFTEN = 5  # of the words that were written most often, so many are told


class TextEditor(Protocol):
    """What turns texts of their own classes [N] into others [N]."""

    def __call__(self, texts: Sequence[str], own: Tensor, to: Tensor) -> list[str]: ...


class TextEdits(NamedTuple):
    """Every text edited to every class but its own."""

    source: Tensor
    """[M] the number of the text that each edit is of."""
    to: Tensor
    """[M] the class that it was edited to."""
    texts: list[str]


def text_editor_of(manipulator: TextManipulator) -> TextEditor:
    """The manipulator."""
    return lambda texts, own, to: manipulator.edit(texts, to, own=own)


def unedited(texts: Sequence[str], own: Tensor, to: Tensor) -> list[str]:
    """The texts as they are."""
    return list(texts)


def edit_texts(editor: TextEditor, rows: TextRows, own: Tensor, classes: int) -> TextEdits:
    """Every text edited to every class but its label; `own`: [N] the classes that are read from the texts."""
    pairs = [(row, to) for row, label in enumerate(rows.labels.tolist()) for to in range(classes) if to != label]
    source, to = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return TextEdits(source, to, editor([rows.texts[row] for row in source.tolist()], own[source], to))


def kept_share(before: str, after: str) -> float:
    """The share of the words of a text that stand in another in the same order."""
    words, others = before.split(), after.split()
    matches = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    return sum(match.size for match in matches) / max(1, len(words))


def changed_words(before: str, after: str) -> tuple[list[int], list[int]]:
    """The numbers of the words of a text that are not in another in the same order, and those of the other's."""
    words, others = before.split(), after.split()
    matches = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    same = [{first + k for first, size in places for k in range(size)} for places in (
        [(m.a, m.size) for m in matches], [(m.b, m.size) for m in matches]
    )]  # fmt: skip
    return tuple(
        [i for i in range(len(some)) if i not in found] for some, found in zip((words, others), same, strict=True)
    )


def measure_texts(
    editor: TextEditor, rows: TextRows, own: Tensor, edits: TextEdits, judge: TextJudge
) -> dict[str, Any]:
    """What edits say and what they keep.

    Args:
        own: [N] the classes read from the texts.

    Returns:
        judge: the share of edits that the judge reads as their class;
        kept: the mean share of a text's words that an edit keeps;
        half_kept: the share of edits that keep half of the words or more, and judge_half that of those which the judge also
            reads as their class;
        words_identity, words_undone: the share of a text's words that are there when its own class is written, and when an
            edit is undone;
        distinct: the words that were written, each counted once, over all that were written; often: the most frequent ones.
    """
    before = [rows.texts[row] for row in edits.source.tolist()]
    kept = torch.tensor([kept_share(a, b) for a, b in zip(before, edits.texts, strict=True)])
    says = judge.read(edits.texts) == edits.to
    same = editor(rows.texts, own, own)
    back = editor(edits.texts, edits.to, own[edits.source])
    written: Counter[str] = Counter()
    for a, b in zip(before, edits.texts, strict=True):
        words = b.split()
        written.update(words[place] for place in changed_words(a, b)[1])
    return {
        "judge": float(says.float().mean()),
        "kept": float(kept.mean()),
        "half_kept": float((kept >= 0.5).float().mean()),
        "judge_half": float((says & (kept >= 0.5)).float().mean()),
        "words_identity": _mean(kept_share(a, b) for a, b in zip(rows.texts, same, strict=True)),
        "words_undone": _mean(kept_share(a, b) for a, b in zip(before, back, strict=True)),
        "distinct": len(written) / max(1, written.total()),
        "often": [[word, count / written.total()] for word, count in written.most_common(OFTEN)],
    }


def evaluate_text_manipulator(
    manipulator: TextManipulator,
    rows: TextRows,
    judge_rows: TextRows,
    *,
    judge: str | None = None,
    classifier: Any = None,
    most: int = ROWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure an editor of texts on texts that nothing was trained on.

    Args:
        rows: to edit; at most `most` of them are.
        judge_rows: others, for the judge to learn from.
        judge: see `judge.make_text_judge`.
        classifier: the one that was given, as a `TextModel`, for its own success.
        most: texts to edit, drawn from all, each class in proportion.

    Returns:
        What `measure_texts` gives, and: rows and edits, their numbers; success, the share of edits that the sparring copy
        reads as their class, and success_classifier that of the given one; judge_name and judge_accuracy; gap, success - judge;
        agreement, see `text_agreement`.

    Raises:
        AtomError: no text to edit, or to judge by.
    """
    config, name = manipulator.config, judge or USUAL
    if not len(rows):
        raise AtomError("rows: there is none to edit; give more evaluation rows")
    made = make_text_judge(name, judge_rows, config.labels, config.max_length)
    some, editor = rows.draw(most, seed), text_editor_of(manipulator)
    own = manipulator.classify(some.texts).argmax(1)
    edits = edit_texts(editor, some, own, config.num_labels)
    found = measure_texts(editor, some, own, edits, made)
    success = float((manipulator.classify(edits.texts).argmax(1) == edits.to).float().mean())
    found |= {
        "rows": len(some),
        "edits": len(edits.to),
        "success": success,
        "gap": success - found["judge"],
        "judge_name": name,
        "judge_accuracy": made.accuracy(rows),
        "agreement": text_agreement(manipulator, some, edits),
    }
    if classifier is not None:
        with torch.no_grad():
            read = [classifier(batch)["logits"].argmax(1).cpu() for batch in manipulator.read(edits.texts)]
        found["success_classifier"] = float((torch.cat(read) == edits.to).float().mean())
    return found


def text_agreement(manipulator: TextManipulator, rows: TextRows, edits: TextEdits) -> dict[str, Any]:
    """The share of the words that an edit changed that are among the words whose masking lowers the class of the text most.

    Of each text as many words count as important as the edit changed, so that by chance it would be their share of the text.

    Returns:
        agreement: the mean over texts, each over its edits; low, high: its 95 % t interval; chance; rows.
    """
    mask, shares, chances = manipulator.tokenizer.mask_token, [], []
    for row in range(min(len(rows), AGREEMENT_ROWS)):
        words = rows.texts[row].split()
        places = [
            changed_words(rows.texts[row], edits.texts[at])[0] for at in (edits.source == row).nonzero().flatten()
        ]
        places = [one for one in places if one]
        if not places:
            continue
        masked = [" ".join([*words[:place], mask, *words[place + 1 :]]) for place in range(len(words))]
        chance = manipulator.classify([" ".join(words), *masked]).softmax(1)
        drops = chance[0].max() - chance[1:, chance[0].argmax()]
        agreed = [len(set(drops.topk(len(one)).indices.tolist()) & set(one)) / len(one) for one in places]
        shares.append(sum(agreed) / len(agreed))
        chances.append(sum(len(one) / len(words) for one in places) / len(places))
    if len(shares) < 2:
        return {}
    mean, low, high = t_interval(shares)
    return {"agreement": mean, "low": low, "high": high, "chance": sum(chances) / len(chances), "rows": len(shares)}


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)
