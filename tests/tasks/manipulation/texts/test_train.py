"""Training an editor of texts: what can be written, sparring copies, and batches of texts of one length."""

import copy

import torch

from atom_hf.tasks.boxes import TextModel
from atom_hf.tasks.manipulation.equations import covered_task
from atom_hf.tasks.manipulation.texts.fill import Cover, Hide, token_roles
from atom_hf.tasks.manipulation.texts.rows import TextRows
from atom_hf.tasks.manipulation.texts.train import sparring_texts, text_accuracy, whole_words
from atom_hf.tasks.model import TaskModel
from atom_hf.tasks.rows import collate
from atom_hf.tasks.trainer import TaskTrainer
from helpers.models import make_tokenizer
from helpers.text_manipulators import OTHERS, SAYS, few_steps, sentences, text_classifier


def parts():
    tokenizer = make_tokenizer()
    get = TextModel(copy.deepcopy(text_classifier().model))
    return tokenizer, get, Hide(get, token_roles(tokenizer), tokenizer.all_special_ids, tokenizer.mask_token_id)


def test_only_words_of_one_token_are_written():
    tokenizer, _, hide = parts()
    rows = TextRows(["the zq, day", "day's bliss"], torch.tensor([0, 1])).as_task_rows(tokenizer, 48, 0)
    found = whole_words(rows.sources["D"][0].values, hide)
    assert set(tokenizer.convert_ids_to_tokens(found.tolist())) == {"the", "day", "bliss"}


def test_a_sparring_copy_reads_texts_with_gaps(tmp_path):
    tokenizer, get, hide = parts()
    rows = sentences(200, 0).as_task_rows(tokenizer, 48, 0)
    held_out = sentences(60, 1)
    found, share = sparring_texts(get, hide, rows, held_out, tokenizer, (0.3,), 48, few_steps(tmp_path))
    assert share == 0.3 and text_accuracy(found, held_out, tokenizer, 48) > 0.9
    assert not any(parameter.requires_grad for parameter in found.parameters())
    moved = [torch.equal(a, b) for a, b in zip(found.parameters(), get.parameters(), strict=True)]
    assert not all(moved)
    assert sparring_texts(get, hide, rows, held_out, tokenizer, (), 48, few_steps(tmp_path)) == (get, 0.0)


def test_texts_of_one_length_come_in_one_batch(tmp_path):
    tokenizer, get, hide = parts()
    words = [*OTHERS, *SAYS[0]]
    texts = [" ".join(words[: 1 + row % 14]) for row in range(160)]
    rows = TextRows(texts, torch.arange(160) % 2).as_task_rows(tokenizer, 48, 0)
    model = TaskModel(covered_task(len(tokenizer), 2), {"get": get, "cover": Cover(hide, 0.5)})
    lengths = torch.tensor(rows.lengths)

    def spread(strategy):
        args = few_steps(tmp_path, per_device_train_batch_size=8, train_sampling_strategy=strategy)
        trainer = TaskTrainer(model, args, train_dataset=rows, data_collator=collate)
        batches = lengths[list(trainer._get_train_sampler())].view(-1, 8)
        return (batches.amax(1) - batches.amin(1)).float().mean()

    assert sorted(rows.lengths) == sorted(lengths.tolist()) and spread("group_by_length") < spread("random") / 4
