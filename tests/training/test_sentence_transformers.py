"""sentence-transformers with the flag: atoms of the anchors, gradients by the definition, and what is saved."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import Normalize
from torch.nn import functional as F
from transformers import AutoModel, BertModel

from atom_hf import AtomConfig, AtomError, AtomMixin, attach_atoms, detach_atoms, load_atom_model
from atom_hf.modeling.load import restore_heads
from atom_hf.modeling.unwrap import inner_model
from helpers.documents import python_with, run_python, write_table
from helpers.exactness import compare, relative_difference
from helpers.models import make_tokenizer, tiny
from helpers.sentence_trainers import Arguments, AtomSentenceTransformerTrainer, sentences
from helpers.training import Gradients, arguments, equal
from helpers.trl_trainers import ONE_STEP, WEIGHT, atom_term, check_log, gradients_of, halves

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT without a task, and its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    tiny("bert").bert.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def pairs(count=16):
    rows = [{"anchor": first, "positive": second} for first, second in halves(count)]
    return Dataset.from_list(rows)


def make(folder, out, loss=losses.MultipleNegativesRankingLoss, rows=None, model=None, **options):
    model = sentences(folder) if model is None else model
    pieces = {name: options.pop(name) for name in ("callbacks",) if name in options}
    return Watched(
        model=model,
        args=arguments(out, Arguments, **options),
        train_dataset=rows or pairs(),
        loss=loss(model),
        **pieces,
    )


def embeddings(model, batch):
    """(mean of the tokens of each sentence, its atoms) of a column as the model takes it."""
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    outputs = model(**batch)
    weights = batch["attention_mask"].unsqueeze(-1)
    return (outputs.last_hidden_state * weights).sum(1) / weights.sum(1), outputs.get("atoms")


def tokens(texts):
    return make_tokenizer()(texts, padding=True, return_tensors="pt")


class Watched(AtomSentenceTransformerTrainer):
    """Keeps the batches of a run: their order is drawn at random."""

    def compute_loss(self, model, inputs, **kwargs):
        self.batches = [*getattr(self, "batches", []), self.collect_features(dict(inputs))[0]]
        return super().compute_loss(model, inputs, **kwargs)


@pytest.mark.exactness
@pytest.mark.parametrize("batches", [1, 2])
def test_gradients(batches, folder, tmp_path):
    found, size = Gradients(), 16 // batches
    options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
    trainer = make(folder, tmp_path, callbacks=[found], **ONE_STEP, **options)
    trainer.train()

    torch.manual_seed(42)
    model = attach_atoms(BertModel.from_pretrained(folder), AtomConfig(weighting="absolute"), make_tokenizer()).train()
    loss = 0
    assert len(trainer.batches) == batches
    for columns in trainer.batches:
        (anchors, atoms), (positives, _) = (embeddings(model, column) for column in columns)
        scores = 20 * F.normalize(anchors, dim=-1) @ F.normalize(positives, dim=-1).T
        loss = loss + (F.cross_entropy(scores, torch.arange(size)) + WEIGHT * atom_term(atoms)) / batches
    loss.backward()
    expected = {"0.model." + name: value for name, value in gradients_of(model).items()}
    steps = {name.replace("0.auto_model.", "0.model."): value for name, value in found.steps[0].items()}
    what = f"SentenceTransformerTrainer, MultipleNegativesRankingLoss, {batches} of {size} pairs"
    compare(what, "anchors' atoms, by autograd", steps, {name: expected[name] for name in steps})
    assert set(steps) == {name for name in expected if "pooler" not in name}


LOSSES = {
    "MultipleNegativesRankingLoss": (losses.MultipleNegativesRankingLoss, {}),
    "CoSENTLoss": (losses.CoSENTLoss, {"score": 1.0}),
    "ContrastiveLoss": (losses.ContrastiveLoss, {"label": 1}),
    "TripletLoss": (losses.TripletLoss, {"negative": "Who knows what else"}),
    "BatchAllTripletLoss": (losses.BatchAllTripletLoss, None),
    "MatryoshkaLoss": (
        lambda model: losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), [32, 16]),
        {},
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_all_kinds_train(name, folder, tmp_path):
    loss, columns = LOSSES[name]
    rows = pairs() if columns is None else pairs().map(lambda row: columns)
    if columns is None:
        rows = Dataset.from_list([{"sentence": first, "label": n % 2} for n, (first, _) in enumerate(halves())])
    trainer = make(folder, tmp_path, loss, rows, atom=True)
    inner = trainer.model[0].auto_model
    before = {key: value.clone() for key, value in inner.atom_heads.state_dict().items()}
    trainer.train()
    check_log(trainer)
    assert not any(torch.equal(value, before[key]) for key, value in inner.atom_heads.state_dict().items())
    assert inner.atom_balancer.state()["atom_norm"] > 0


def test_columns_in_one_pass_are_told_apart(folder, tmp_path):
    # CoSENTLoss may pass both columns together: the anchors are the first rows of it.
    rows = pairs().map(lambda row, n: {"score": n / 16}, with_indices=True)
    trainer = make(folder, tmp_path, losses.CoSENTLoss, rows, **ONE_STEP)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        task = trainer.loss(*trainer.collect_features(dict(inputs)))
    loss = trainer.compute_loss(trainer.model.train(), dict(inputs))
    atoms = embeddings(trainer.model[0].auto_model, trainer.batches[0][0])[1]
    assert loss.item() == pytest.approx((task + WEIGHT * atom_term(atoms)).item(), rel=1e-4)


def test_pairs_over_more_batches(folder, tmp_path):
    runs = []
    for options in ({}, {"atom_pair_batch": 16}):
        runs.append(Gradients())
        make(folder, tmp_path, callbacks=[runs[-1]], **{**ONE_STEP, **options}, gradient_accumulation_steps=4).train()
    assert relative_difference(*(run.steps[0] for run in runs)) > 1e-2
    model = attach_atoms(BertModel.from_pretrained(folder), processing_class=make_tokenizer())
    heads = make(folder, tmp_path, **ONE_STEP).model[0].auto_model.atom_heads
    model.atom_heads.load_state_dict(heads.state_dict())
    term = WEIGHT * atom_term(embeddings(model.train(), tokens([first for first, _ in halves()]))[1])
    gradients = torch.autograd.grad(term, model.atom_heads.parameters())
    for (name, _), expected in zip(model.atom_heads.named_parameters(), gradients, strict=True):
        (found,) = (value for key, value in runs[1].steps[0].items() if key.endswith("atom_heads." + name))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.CachedMultipleNegativesRankingLoss,
        lambda model: losses.MatryoshkaLoss(model, losses.CachedMultipleNegativesRankingLoss(model), [32, 16]),
    ],
    ids=["cached", "inside another"],
)
def test_losses_with_a_gradient_cache_are_rejected(loss, folder, tmp_path):
    with pytest.raises(AtomError, match=r"loss: CachedMultipleNegativesRankingLoss runs each batch"):
        make(folder, tmp_path, loss, atom=True)
    assert not isinstance(make(folder, tmp_path, loss).model[0].auto_model, AtomMixin)


def test_arguments_of_another_trainer_and_models_of_another_kind_are_rejected(folder, tmp_path):
    model = sentences(folder)
    with pytest.raises(AtomError, match=r"args: \w+ takes SentenceTransformerTrainingArguments.*class Args"):
        AtomSentenceTransformerTrainer(model=model, args=arguments(tmp_path, atom=True), train_dataset=pairs())
    with pytest.raises(AtomError, match=r"begins with a Normalize.*first module is a Transformer"):
        attach_atoms(SentenceTransformer(modules=[Normalize()], device="cpu"))


def test_what_is_saved_loads_plainly_and_with_its_heads(folder, tmp_path, library_log):
    trainer = make(folder, tmp_path / "run", atom=True)
    trainer.train()
    trainer.save_model(tmp_path / "final")
    texts = [first for first, _ in halves(4)]
    expected = trainer.model.encode(texts, convert_to_tensor=True)
    library_log.clear()
    plain = SentenceTransformer(str(tmp_path / "final"), device="cpu")
    assert not library_log and not isinstance(plain[0].auto_model, AtomMixin)
    torch.testing.assert_close(plain.encode(texts, convert_to_tensor=True), expected)
    AutoModel.from_pretrained(tmp_path / "final")

    inner = trainer.model[0].auto_model
    loaded = load_atom_model(tmp_path / "final")
    assert equal(loaded.state_dict(), inner.state_dict())
    assert restore_heads(plain[0].auto_model, tmp_path / "final")
    batch = tokens(texts)
    importance = plain[0].auto_model.atom_importance(**batch)
    assert torch.equal(importance.nan_to_num(9), inner.atom_importance(**batch).nan_to_num(9))


def test_a_checkpoint_goes_on_as_if_left_alone(folder, tmp_path):
    options = {"atom": True, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    alone = make(folder, tmp_path, **options)
    alone.train()
    other = sentences(folder)
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    again = make(folder, tmp_path / "again", model=other, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert equal(alone.model.state_dict(), again.model.state_dict())
    gates = [trainer.model[0].auto_model.atom_balancer.state() for trainer in (alone, again)]
    assert gates[0] == gates[1] and gates[0]["steps"] == 4


def test_detaching_leaves_no_hook_behind(folder, tmp_path):
    model = sentences(folder)
    before = dict(model._forward_hooks)
    make(folder, tmp_path, model=model, max_steps=1, atom=True).train()
    assert len(model._forward_hooks) == len(before) + 1
    detach_atoms(model)
    assert dict(model._forward_hooks) == before and not hasattr(model[0].auto_model, "atom_heads")


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.usefixtures("own_folder")
def test_the_example_runs(folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    sentences(folder).save("sentence-transformers/all-MiniLM-L6-v2")
    rows = [(row["anchor"], row["positive"]) for row in pairs()]
    write_table(Path("sentence-transformers/natural-questions/train.csv"), ("query", "answer"), rows)
    names = run_python(python_with("docs/trainers.md", "SentenceTransformerTrainer"))
    before, after = tiny("bert").bert.state_dict(), inner_model(names["model"]).state_dict()
    name = "encoder.layer.0.output.dense.weight"
    assert isinstance(inner_model(names["model"]), AtomMixin) and not torch.equal(before[name], after[name])
