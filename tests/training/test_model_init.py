"""Models of `model_init`: one for each run, as in a hyperparameter search, which frees it after each trial."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import GradientState
from accelerate.utils import release_memory
from joblib import wrap_non_picklable_objects
from transformers import hyperparameter_search
from transformers.trainer_utils import BestRun, HPSearchBackend, default_compute_objective

from atom_hf import AtomConfig, AtomError, AtomMixin, attach_atoms
from helpers.error_messages import error_message
from helpers.models import make_tokenizer, tiny
from helpers.training import equal, make, train

pytestmark = pytest.mark.promise(
    "A hyperparameter search trains every trial with its own arguments.",
    "freed models, changed batches, layers and weights, heads that were given, the best arguments afterwards",
)


class Search(hyperparameter_search.OptunaBackend):
    """Tries what it is given, and frees the model of each trial, as Transformers does for Optuna."""

    name = "optuna"

    @staticmethod
    def is_available():
        return True

    def run(self, trainer, n_trials, direction, settings, seen=None):
        found = []
        for number in range(n_trials):
            trainer.objective = None
            trainer.train(trial=SimpleNamespace(number=number, params=settings[number]))
            found.append(default_compute_objective(trainer.evaluate()))
            if seen is not None:
                seen(trainer)
            trainer.model_wrapped, trainer.model = release_memory(trainer.model_wrapped, trainer.model)
            trainer.accelerator.clear()
        best = min(range(n_trials), key=found.__getitem__)
        return BestRun(str(best), found[best], settings[best])


@pytest.fixture(autouse=True)
def search(monkeypatch):
    monkeypatch.setitem(hyperparameter_search.ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, Search)
    # These two import Optuna.
    monkeypatch.setattr("transformers.trainer.Trainer._report_to_hp_search", lambda *_: None)
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: getattr(trial, "params", {}))


def try_out(folder, settings, *, model_init=None, seen=None, **options):
    pieces = {"model_init": model_init or (lambda: tiny("bert")), "eval_dataset": None}
    trainer = make("bert", folder, pieces=pieces, max_steps=2, **options)
    trainer.eval_dataset = trainer.train_dataset
    space = {"hp_space": lambda trial: trial.params, "backend": "optuna", "n_trials": len(settings)}
    return trainer, trainer.hyperparameter_search(**space, settings=settings, seen=seen)


@pytest.mark.parametrize("atom", [False, True])
def test_a_search_goes_on_after_its_first_trial(atom, tmp_path):
    trainer, best = try_out(tmp_path, [{"learning_rate": rate} for rate in (0.0, 1e-3, 1e-2)], atom=atom)
    assert best.run_id in ("1", "2") and trainer.model is None


def test_each_trial_trains_by_its_own_arguments(tmp_path):
    """A model is made before the trial's arguments are set: its heads must be those of these arguments all the same."""
    settings = [
        {"atom_weight": 0.5, "atom_importance_std": 0.5, "per_device_train_batch_size": 4},
        {"atom_weight": 0.0, "atom_importance_std": 0.01, "per_device_train_batch_size": 2},
        {"atom_layer": 1, "atom_neutrality": 2.0, "atom_weighting": "absolute"},
    ]
    models = []
    try_out(tmp_path, settings, atom=True, seen=lambda trainer: models.append(trainer.model))
    for model, given in zip(models, [settings[0], {**settings[0], **settings[1]}, settings[2]], strict=True):
        config = model.atom_config
        assert {name: getattr(config, name.removeprefix("atom_")) for name in given if "atom" in name} == {
            name: value for name, value in given.items() if "atom" in name
        }
    alone = train("bert", tmp_path, atom=True, max_steps=2, **settings[0], pieces={"model_init": lambda: tiny("bert")})
    assert equal(models[0].state_dict(), alone.model.state_dict())
    assert models[2].atom_balancer.ratio is None and models[0].atom_balancer.ratio == 0.5


def test_heads_that_model_init_gives_are_kept_in_every_trial(tmp_path):
    def with_heads():
        torch.manual_seed(3)
        return attach_atoms(tiny("bert"), AtomConfig(form="paper", layer=1), make_tokenizer())

    expected, seen = with_heads().atom_heads.state_dict(), []
    settings = [{"learning_rate": 0.0, "atom_head_learning_rate": 0.0, "atom_weight": weight} for weight in (0.1, 0.2)]
    try_out(tmp_path, settings, atom=True, model_init=with_heads, seen=lambda trainer: seen.append(trainer.model))
    for model, given in zip(seen, settings, strict=True):
        assert equal(model.atom_heads.state_dict(), expected)
        assert (model.atom_config.layer, model.atom_config.weight) == (1, given["atom_weight"])


def test_a_trial_with_another_model_is_checked_anew(tmp_path):
    """`model_init` may choose the model by the trial; what was found out about one says nothing of the next."""
    models = iter(["bert", "bert", "distilbert", "roberta"])
    seen = []
    settings = [{"learning_rate": 1e-3}] * 3
    options = {"atom": True, "gradient_accumulation_steps": 2, "seen": lambda trainer: seen.append(trainer)}
    try_out(tmp_path, settings, model_init=lambda trial: tiny(next(models), num_labels=2), **options)
    assert len(seen) == 3


def test_arguments_of_a_trial_that_cannot_work_are_rejected_before_it_trains(tmp_path):
    def run(**given):
        return lambda: try_out(tmp_path, [{"learning_rate": 1e-3}, given], atom=True)

    error_message(run(per_device_train_batch_size=1), "per_device_train_batch_size is 1")
    error_message(run(atom_weight=-1.0), "atom_weight", "-1.0")
    error_message(run(atom_layer=9), "layer 9 does not exist")


def test_a_trial_that_could_not_be_saved_does_not_begin(tmp_path):
    (tmp_path / "run-1" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run-1" / "checkpoint-2" / "adapter_config.json").write_text("{}")
    seen, settings = [], [{"learning_rate": 1e-3}] * 2
    error_message(lambda: try_out(tmp_path, settings, atom=True, seen=seen.append), "run-1", "holds an adapter")
    assert len(seen) == 1


@pytest.mark.parametrize("atom", [False, True])
def test_a_search_over_the_flag_itself_is_rejected(atom, tmp_path):
    error_message(lambda: try_out(tmp_path, [{"atom": not atom}], atom=atom), f"atom is {not atom} now", "atom_weight")


def test_after_a_search_the_best_arguments_train_a_model(tmp_path):
    trainer, best = try_out(tmp_path, [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}], atom=True)
    for call in (trainer.check_atoms, trainer.fit_explainer):
        error_message(call, "frees the model of each trial")
    for name, value in best.hyperparameters.items():
        setattr(trainer.args, name, value)
    trainer.train()
    assert isinstance(trainer.model, AtomMixin)
    alone = {"model_init": lambda: tiny("bert")}
    same = train("bert", tmp_path, atom=True, max_steps=2, pieces=alone, **best.hyperparameters)
    assert equal(trainer.model.state_dict(), same.model.state_dict())


def test_a_trainer_without_a_model_trains_in_another_process(tmp_path):
    """Ray takes the model from the trainer before the first trial, and sends copies of the trainer to processes."""
    GradientState._reset_state()  # shared by all trainers: it holds on to the data of earlier ones, which cannot be sent
    trainer = make("bert", tmp_path, atom=True, pieces={"model_init": lambda: tiny("bert")})
    trainer.model = None
    sent = pickle.loads(pickle.dumps(wrap_non_picklable_objects(trainer, keep_wrapper=False)))
    sent.train()
    same = train("bert", tmp_path, atom=True, pieces={"model_init": lambda: tiny("bert")})
    assert sent is not trainer and equal(sent.model.state_dict(), same.model.state_dict())


def test_a_width_that_the_configuration_does_not_tell_is_found_for_each_model(tmp_path):
    pieces = {"model_init": lambda: tiny("resnet")}
    trainer = train("resnet", tmp_path, atom=True, pieces={**pieces, "processing_class": None}, atom_layer=0)
    assert trainer.model.atom_config.hidden_size == 8


def test_a_model_init_that_makes_no_model_is_refused_as_trainer_does(tmp_path):
    with pytest.raises(RuntimeError, match="should not return None"):
        make("bert", tmp_path, atom=True, pieces={"model_init": lambda: None})
    with pytest.raises(AtomError, match="PreTrainedModel"):
        make("bert", tmp_path, atom=True, pieces={"model_init": lambda: torch.nn.Linear(2, 2)})
