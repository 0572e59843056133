"""The card of a trainer of one's own script."""

import datasets
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from transformers import Trainer

from atom_hf import AtomError, AtomTrainer, AtomTrainerMixin, AtomTrainingArguments
from atom_hf.finetune.arguments import RunArguments, load_run_data
from atom_hf.finetune.card_facts import run_facts
from atom_hf.finetune.flags import parse_flags
from atom_hf.hub.card import CardFacts, is_own, model_card, write_card
from atom_hf.hub.card_facts import facts_of_trainer
from helpers.cards import check, make_trainer, section


def test_a_trainer_of_ones_own_script_says_what_it_knows(tmp_path):
    trainer = make_trainer(tmp_path / "mine", hub_model_id="org/mine", atom_softening=0.5)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(tmp_path / "final"))
    card = (tmp_path / "final" / "README.md").read_text()
    check(card)
    assert f"| loss | {loss:.4f} |" in section(card, "Results") and "at step 3 of one run:" in section(card, "Results")
    assert "Training: 16 samples." in section(card, "Data") and "Data set" not in card
    assert 'load_atom_model("org/mine")' in card and "\n# mine\n" in card
    assert (
        "`, trained with the atom loss" in card and "nothing" not in card.split("##")[0]
    )  # of its base nothing is known
    last = [line for line in trainer.state.log_history if "atom_importance" in line][-1]
    assert f"mean |importance| {last['atom_importance']:.4f}" in section(card, "Reading importances")
    data = metadata_load(tmp_path / "final" / "README.md")
    assert not {"base_model", "datasets", "model-index", "license", "metrics"} & set(data)

    # Trained from what lies where it is pushed to.
    trainer.card_facts["base_model"] = "org/mine"
    again = model_card(facts_of_trainer(trainer))
    assert again.data.base_model is None and "from `org/mine` (an earlier state of this repository)" in again.text
    del trainer.card_facts["base_model"]

    trainer.card_facts |= {"dataset": "my reviews", "metrics": {"accuracy": 0.5}}
    trainer.save_model(str(tmp_path / "final"))
    result = ModelCard.load(tmp_path / "final" / "README.md").data.eval_results[0]
    assert (result.dataset_name, result.metric_value, result.dataset_split) == ("my reviews", 0.5, None)


def test_facts_that_no_card_knows_are_rejected_before_training(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.card_facts["datset"] = "my reviews"
    with pytest.raises(AtomError, match="card_facts has datset, which no card has; it may have name, repo_id"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_metrics_are_those_of_the_weights_that_were_saved(tmp_path):
    class Scripted(AtomTrainer):
        losses = iter([3.0, 1.0, 2.0])

        def evaluate(self, *args, **kwargs):
            value = next(self.losses, 9.0)
            self.log({"eval_loss": value})
            return {"eval_loss": value}

    options = dict(eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1)
    trainer = make_trainer(tmp_path, cls=Scripted, load_best_model_at_end=True, save_total_limit=1, **options)
    trainer.train()
    assert trainer.state.best_global_step == 2
    facts = facts_of_trainer(trainer)
    shown = "with the weights of step 2 of one run; training went on to step 3. That checkpoint was chosen by `loss` on this"
    assert facts.metrics == {"loss": 1.0} and shown in facts.metrics_of
    trainer.evaluate()
    again = facts_of_trainer(trainer)
    assert (
        again.metrics == {"loss": 9.0} and again.metrics_of == facts.metrics_of
    )  # the weights are those of step 2 still
    # While training goes on, a push brings the weights as they are.
    del trainer.state.log_history[-3:]
    assert "train_runtime" not in str(trainer.state.log_history)
    during = facts_of_trainer(trainer)
    assert during.metrics == {"loss": 2.0} and during.metrics_of.endswith("at step 3 of one run:")
    assert not list(tmp_path.glob("checkpoint-*/README.md"))


def test_arguments_of_the_push_go_into_the_card(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    trainer.create_model_card(
        "en", license="mit", tags=["mine"], model_name="named", finetuned_from="org/base", dataset_tags="org/data"
    )
    card = (tmp_path / "README.md").read_text()
    check(card)
    data = metadata_load(tmp_path / "README.md")
    assert (data["language"], data["license"], data["base_model"], data["datasets"]) == (
        "en",
        "mit",
        "org/base",
        ["org/data"],
    )
    assert {"mine", "generated_from_trainer"} <= set(data["tags"]) and "\n# named\n" in card

    class Other(Trainer):
        _tag_names = ("other-trainer",)
        _paper = {"citation": "@article{other2024}"}

        def create_model_card(self, model_name=None, dataset_name=None, tags=None):
            raise AssertionError("the mixin writes it")

    trainer = make_trainer(tmp_path / "other", cls=type("Mine", (AtomTrainerMixin, Other), {}))
    trainer.save_model()
    trainer.create_model_card("short", "reviews", tags="x")
    card = ModelCard.load(tmp_path / "other" / "README.md")
    assert {"other-trainer", "x"} <= set(card.data.tags) and "\n# short\n" in card.text
    assert "`reviews`" in card.text or "reviews" in section(card.text, "Data")
    assert "@article{other2024}" in card.text


def test_with_the_flag_off_the_card_is_trainers_own(tmp_path):
    cards = []
    for cls, name in ((AtomTrainer, "ours"), (Trainer, "theirs")):
        trainer = make_trainer(tmp_path / name / "run", cls=cls, atom=False)
        trainer.train()
        trainer.save_model()
        assert not (tmp_path / name / "run" / "README.md").exists()
        trainer.create_model_card(language="en", tags="t")
        cards.append((tmp_path / name / "run" / "README.md").read_bytes())
    assert cards[0] == cards[1] and b"atom" not in cards[0]


def test_a_card_of_the_users_own_is_never_written_over(tmp_path):
    own = "---\nlicense: mit\n---\n# Mine\n"
    trainer = make_trainer(tmp_path / "run")
    for folder in ("run", "saved", "model"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "README.md").write_text(own)
    trainer.save_model()
    trainer.create_model_card()
    trainer.save_model(str(tmp_path / "saved"))
    trainer.model.save_pretrained(tmp_path / "model")
    assert {(tmp_path / folder / "README.md").read_text() for folder in ("run", "saved", "model")} == {own}
    (tmp_path / "model" / "README.md").write_bytes(b"\xff\xfe")  # no text, and still somebody's
    trainer.model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_bytes() == b"\xff\xfe"
    # One of ours is written anew: it would tell of another model.
    write_card(CardFacts(name="of-another-model"), tmp_path / "model")
    trainer.model.save_pretrained(tmp_path / "model")
    assert "of-another-model" not in (tmp_path / "model" / "README.md").read_text()
    assert not is_own(tmp_path / "model") and sorted(p.name for p in (tmp_path / "model").glob(".*")) == []


def test_the_data_that_was_evaluated_on_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("a", 20), ("b", 8)):
        rows = "".join(f"the sea is cold {i},{i % 2}\n" for i in range(count))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)

    def facts(*more):
        flags = ["--model_type", "bert", "--dataset", "a.csv", *more]
        given = parse_flags("train", flags, [RunArguments, AtomTrainingArguments])[0]
        return run_facts(given, load_run_data(given), "BertForSequenceClassification")

    def card(*more):
        tag = "text-classification"
        return model_card(CardFacts(**facts(*more), pipeline_tag=tag, metrics={"accuracy": 0.5}, metrics_of="Here:"))

    other = card("--eval_dataset", "b.csv")
    check(str(other))
    assert other.data.eval_results[0].dataset_name == "b" and other.data.eval_results[0].metric_name == "accuracy"
    assert "of another data set, `b`." in other.text and "Data set: `a`." in other.text
    part = card("--eval_dataset", "b.csv", "--max_eval_samples", "6").data.eval_results[0]
    assert (part.dataset_split, part.metric_name) == (None, "accuracy on 6 samples of train")
    held_out = card("--max_train_samples", "6").data.eval_results[0]
    assert (held_out.dataset_name, held_out.dataset_split, held_out.metric_name) == ("a", None, "accuracy")
    # More than there are is all of them.
    assert not facts("--max_eval_samples", "60")["eval_is_part"]
    drawn = "Samples were drawn in proportion to the classes, with seed 3."
    assert drawn in facts("--max_train_samples", "6", "--sample_seed", "3")["data_notes"]
    lines = facts("--max_train_samples", "6", "--sample_seed", "3", "--task", "causal-lm")["data_notes"]
    assert "Samples were drawn with seed 3." in lines


@pytest.mark.parametrize("other", [False, True])
def test_rows_of_the_hub_tell_what_part_of_which_split_they_are(tmp_path, other):
    def rows(name, split, count):
        info = datasets.DatasetInfo(download_checksums={f"hf://datasets/org/{name}@main/x": {}}, config_name="default")
        info.splits = datasets.SplitDict.from_split_dict({s: {"name": s, "num_examples": 8} for s in ("train", "test")})
        return datasets.Dataset.from_dict({"labels": [0, 1] * 4}, info=info, split=split).select(range(count))

    trainer = make_trainer(tmp_path)
    trainer.train_dataset = rows("lines", "train", 8)
    for count, part in ((8, False), (6, True)):
        trainer.eval_dataset = rows("others" if other else "lines", "test", count)
        facts = facts_of_trainer(trainer)
        assert (facts.dataset_id, facts.eval_split, facts.eval_is_part) == ("org/lines", "test", part)
        assert facts.eval_dataset_id == ("org/others" if other else None)
