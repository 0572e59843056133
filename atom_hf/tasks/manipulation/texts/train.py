"""Make an editor of texts of a classifier: a filler learns to fill gaps first, and then to write classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import transformers

from ....errors import AtomError
from ....finetune.log_lines import log_often, print_lines
from ....finetune.resume import find_checkpoint
from ....finetune.resume import train as train_from
from ....utils.quiet import quiet
from ....utils.terminal import get_logger
from ...boxes import TextModel
from ...model import TaskModel
from ...rows import collate
from ...trainer import TaskTrainer
from ..arguments import FILLING_STEPS, ManipulatorArguments
from ..classifier import Classifier
from ..equations import covered_task, filling_task, text_task, text_weights
from ..fitting import fit
from ..put import SHARE
from ..sparring import COSTS, fresh_copy, sigmas_to_try
from ..train import shown_name
from .classifier import TextClassifier, check_tokenizer, form_of, load_filler
from .config import TextManipulatorConfig
from .fill import BEGINS, NO_WORD, Cover, Filler, Hide, check_embeds, token_roles
from .manipulator import TextManipulator
from .rows import TextRows, padded, token_ids

logger = get_logger(__name__)

FILLING_RATE = 5e-4  # of learning to fill gaps, before classes are written

SPARRING_STEPS, SPARRING_RATE = 150, 5e-5

SHARES = (0.5, 0.3, 0.2, 0.1)
"""Of the words that are hidden when a sparring copy is tuned, to try."""


class MadeOfTexts(NamedTuple):
    """An editor of texts, and what it is compared with."""

    manipulator: TextManipulator
    denoiser: TextManipulator
    """The same before it was trained to write classes: it has learned to fill gaps for a class."""


def manipulate_texts(
    classifier: TextClassifier,
    train: TextRows,
    held_out: TextRows,
    *,
    filler: str | None = None,
    weights: Sequence[float] | None = None,
    sigma: str | float = 0,
    share: float = SHARE,
    filling_steps: int = FILLING_STEPS,
    max_length: int = 128,
    dataset: str | None = None,
    args: ManipulatorArguments | None = None,
) -> MadeOfTexts:
    """Turn a classifier of texts into an editor.

    Args:
        classifier: see `load_text_classifier`.
        train: the rows to train on.
        held_out: others, on which the sparring copy is chosen. Judge the editor on yet others.
        filler: what the filler starts from: a folder, Hub id or built-in name, with the classifier's tokenizer; the
            classifier's own encoder if not given.
        weights: of putget and denoise; 1 and 1 if not given.
        sigma: the share of words that are hidden when a sparring copy of the classifier is tuned; "auto" for the largest of
            0.5, 0.3, 0.2 and 0.1 that costs at most two points on held-out rows, 0 for the classifier as it is.
        share: of the tokens that are hidden.
        filling_steps: of learning to fill gaps, before classes are written.
        max_length: tokens that are read of a text.
        dataset: the name of the data, for the card.
        args: how to train; its folder keeps the checkpoints.

    Raises:
        AtomError: whatever is wrong, before training starts; a loss that is not a finite number.
    """
    weighed, sigmas = text_weights(weights), sigmas_to_try(sigma)
    if not 0 < share < 1:
        raise AtomError(f"--hidden_share must be between 0 and 1, such as 0.25, got {share}")
    tokenizer, labels = classifier.tokenizer, classifier.labels
    check_tokenizer(tokenizer)
    check_embeds(classifier.model, "--classifier")
    encoder = load_filler(filler, classifier)
    args = (args or ManipulatorArguments("trainer_output")).with_rate("tokens")
    args.train_sampling_strategy = "group_by_length"
    if args.world_size > 1:
        raise AtomError("a manipulator is trained in one process; start it without accelerate or torchrun")
    checkpoint = find_checkpoint(args, save=True)
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
    transformers.set_seed(args.seed)
    roles = token_roles(tokenizer)
    size = encoder.get_input_embeddings().num_embeddings
    roles = torch.nn.functional.pad(roles, (0, max(0, size - len(roles))), value=NO_WORD)[:size]
    special, mask_id = list(tokenizer.all_special_ids), tokenizer.mask_token_id
    get = TextModel(fresh_copy(classifier.model)).to(args.device).eval()
    hide = Hide(get, roles.to(args.device), special, mask_id, share)
    rows = train.as_task_rows(tokenizer, max_length, args.seed)
    vocabulary = whole_words(rows.sources["D"][0].values, hide)
    many = len(tokenizer)
    if sigma == "auto":
        sigmas = SHARES
    sparring, hidden = sparring_texts(get, hide, rows, held_out, tokenizer, sigmas, max_length, args)
    explained = classifier.explained
    explained = None if explained is None else explained.to(args.device).requires_grad_(False)
    hide = Hide(sparring, hide.roles, special, mask_id, share, explained, keeps=True)
    transformers.set_seed(args.seed)
    put = Filler(encoder, len(labels), mask_id, vocabulary)
    if filling_steps:
        logger.info("learning to fill gaps")
        boxes = {"cover": Cover(hide, share), "fill": put}
        # The seed of its weights has been set, and `fit` gives the module that it was given.
        put = fit(
            filling_task(many, len(labels)), boxes, rows, args, filling_steps, FILLING_RATE, args.train_batch_size
        ).boxes["fill"]
    config = TextManipulatorConfig(
        filler=form_of(encoder),
        classifier=form_of(classifier.model),
        heads={} if explained is None else explained.atom_config.to_dict(),
        vocabulary=len(vocabulary),
        mask_id=mask_id,
        special_ids=special,
        max_length=max_length,
        share=share,
        classifier_name=shown_name(classifier.name),
        classifier_revision=classifier.revision,
        classifier_hash=Classifier(classifier.model, {}, labels).weights_hash,
        hidden_share=hidden,
        weights=dict(weighed),
        dataset=dataset,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    parts = (sparring, explained, roles, tokenizer, args.device)
    denoiser = assembled(config, put, *parts)
    spec = text_task(many, len(labels), weighed)
    model = TaskModel(spec, {"get": sparring, "hide": hide, "fill": put.train()})
    trainer = TaskTrainer(model, args, train_dataset=rows, data_collator=collate)
    print_lines(trainer)
    args.resume_from_checkpoint = checkpoint
    log_often(trainer, 10)
    train_from(trainer, checkpoint)
    return MadeOfTexts(assembled(config, put, *parts), denoiser)


def whole_words(texts: Sequence[Any], hide: Hide) -> torch.Tensor:
    """The ids [v] of the tokens that are a word by themselves somewhere in some texts of ids. Raises `AtomError` if none is."""
    found: set[int] = set()
    for start in range(0, len(texts), 512):
        batch = padded([list(map(int, row)) for row in texts[start : start + 512]], hide.roles.device)
        words = hide.words(batch)
        alone = words >= 0
        alone[:, 1:] &= words[:, 1:] != words[:, :-1]
        alone[:, :-1] &= words[:, :-1] != words[:, 1:]
        found.update(batch.ids[alone & (hide.roles[batch.ids] == BEGINS)].unique().tolist())
    if not found:
        raise AtomError(
            "--dataset: its texts have no word that is one token, and nothing could be written; give other texts"
        )
    return torch.tensor(sorted(found), device=hide.roles.device)


def sparring_texts(
    get: TextModel,
    hide: Hide,
    rows: Any,
    held_out: TextRows,
    tokenizer: Any,
    sigmas: Sequence[float],
    length: int,
    args: Any,
) -> tuple[TextModel, float]:
    """The classifier that the editor is trained against, and the share of words that were hidden when it was tuned."""
    found, hidden = get.requires_grad_(False), 0.0
    before = text_accuracy(get, held_out, tokenizer, length)
    logger.info("the classifier: accuracy %.4f on %d held-out rows", before, len(held_out))
    for sigma in sigmas:
        spec, cover = covered_task(len(tokenizer), get.model.config.num_labels), Cover(hide, sigma)
        boxes = {"get": fresh_copy(get), "cover": cover}
        tuned = fit(spec, boxes, rows, args, SPARRING_STEPS, SPARRING_RATE, args.train_batch_size).boxes["get"]
        tuned = tuned.to(args.device).requires_grad_(False).eval()
        accuracy = text_accuracy(tuned, held_out, tokenizer, length)
        logger.info("a sparring copy with %.0f %% of the words hidden: accuracy %.4f", 100 * sigma, accuracy)
        if len(sigmas) == 1 or accuracy >= before - COSTS - 1e-9:
            return tuned, sigma
    return found, hidden


@torch.no_grad()
def text_accuracy(get: TextModel, rows: TextRows, tokenizer: Any, max_length: int, batch: int = 64) -> float:
    """The share of texts whose class a classifier reads."""
    device, right = next(get.parameters()).device, 0
    ids = token_ids(rows.texts, tokenizer, max_length)
    for start in range(0, len(ids), batch):
        read = get(padded(ids[start : start + batch], device))["logits"].argmax(1).cpu()
        right += int((read == rows.labels[start : start + batch]).sum())
    return right / len(ids)


def assembled(
    config: TextManipulatorConfig,
    put: Filler,
    get: TextModel,
    explained: Any,
    roles: torch.Tensor,
    tokenizer: Any,
    device: Any,
) -> TextManipulator:
    """A manipulator with copies of these weights."""
    with quiet():
        manipulator = TextManipulator(config)
    manipulator.put.load_state_dict(put.state_dict())
    manipulator.get.load_state_dict(get.state_dict())
    if explained is not None:
        manipulator.explained.load_state_dict(explained.state_dict())
    manipulator.roles.copy_(roles)
    manipulator.tokenizer = tokenizer
    return manipulator.to(device).eval()
