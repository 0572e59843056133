"""Modules of `evaluate`, loaded from their folders without the Hub."""

import sys

import evaluate
import numpy as np
import pytest
from evaluate import EvaluationModule

from atom_hf import AtomError
from atom_hf.faithfulness import MODULES, load_metric, metrics

NAMES = sorted(path.name for path in MODULES.iterdir() if path.is_dir() and not path.name.startswith("_"))
RNG = np.random.default_rng(0)
CURVES = RNG.random((4, 6)).tolist()
FULL = RNG.random(4).tolist()
ATTRIBUTIONS = RNG.normal(size=(4, 3, 7))


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Where `evaluate` keeps the modules that it has loaded, whatever an earlier test had it load elsewhere."""
    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
            patch.delitem(sys.modules, name)
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder)
        patch.setattr(evaluate.loading, "HF_MODULES_CACHE", folder, raising=False)
        patch.setattr(sys, "path", [folder, *sys.path])  # before a cache of the machine, which may hold some too
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
            del sys.modules[name]


def mean_of(function, *columns):
    return np.mean([function(*row) for row in zip(*columns, strict=True)])


def expected(name):
    one, moved = ATTRIBUTIONS[:, 0].tolist(), ATTRIBUTIONS[:, 1].tolist()
    if name in ("comprehensiveness", "sufficiency"):
        return {"predictions": CURVES, "references": FULL}, {name: mean_of(getattr(metrics, name), FULL, CURVES)}
    if name in ("deletion", "insertion"):
        return {"predictions": CURVES}, {name: mean_of(metrics.area, CURVES)}
    if name == "infidelity":
        return {"predictions": one, "references": moved}, {
            name: np.mean((ATTRIBUTIONS[:, 0] - ATTRIBUTIONS[:, 1]) ** 2)
        }
    if name == "sensitivity_max":
        given = {"predictions": ATTRIBUTIONS[:, 1:].tolist(), "references": one}
        return given, {name: mean_of(metrics.sensitivity_of, given["predictions"], one)}
    if name == "seed_agreement":
        return {"predictions": ATTRIBUTIONS.tolist()}, {name: mean_of(metrics.agreement, ATTRIBUTIONS)}
    found = [metrics.randomization(a, b) for a, b in zip(one, moved, strict=True)]
    return {"predictions": moved, "references": one}, {
        k: np.mean([f[k] for f in found]) for k in ("signed", "absolute")
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_module_loads_from_its_folder_and_computes(name):
    module = evaluate.load(str(MODULES / name))
    assert isinstance(module, EvaluationModule) and module.module_type == "metric"
    given, result = expected(name)
    assert module.compute(**given) == pytest.approx(result)
    assert all(len(text) > 40 for text in (module.description, module.citation, module.inputs_description))
    assert set(module.features) == set(given)
    assert load_metric(name).compute(**given) == pytest.approx(result)


def test_samples_may_differ_in_length():
    module = load_metric("infidelity")
    given = {"predictions": [[1.0, 2.0], [0.5]], "references": [[0.5, 1.0], [0.5]]}
    assert module.compute(**given)["infidelity"] == pytest.approx((0.25 + 1) / 2 / 2)
    assert module.compute(**given, normalize=True)["infidelity"] == pytest.approx(0)


def test_all_are_there():
    names = "comprehensiveness deletion infidelity insertion parameter_randomization seed_agreement sensitivity_max sufficiency"
    assert names.split() == NAMES


def test_another_name_is_rejected():
    with pytest.raises(AtomError, match=r"name must be one of comprehensiveness, deletion, .*; got 'accuracy'"):
        load_metric("accuracy")


def test_a_number_that_is_missing_is_not_passed_over():
    curves = [[0.5, 0.25], [float("nan"), 0.25]]
    assert np.isnan(load_metric("deletion").compute(predictions=curves)["deletion"])
    alike = [[[1.0, 2.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 3.0]]]
    assert load_metric("seed_agreement").compute(predictions=alike)["seed_agreement"] == pytest.approx(1)
