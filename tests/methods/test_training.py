"""Recipes: what they set, what overrides them, and the schedule of the learning rate."""

import math
from itertools import islice

import pytest
import torch
from pydantic import ValidationError

from icis.methods import Icis, Mlp, SubReg, Wdae
from icis.methods.encoders import one_cycle
from icis.methods.training import FAITHFUL, FAST, RECIPES
from icis.schema import canonical_hash
from icis.slugs import variant_slug
from tests.methods.slow import HIDDEN, make_problem, slow_one_cycle

TRAINED = (Icis, Mlp, SubReg)


def settings_of(method):
    return {key: getattr(method, key) for key in FAITHFUL}


@pytest.mark.parametrize("kind", TRAINED)
def test_a_recipe_gives_the_settings_that_are_not_given(kind):
    assert kind().recipe == "faithful"
    assert settings_of(kind()) == settings_of(kind(recipe="faithful")) == FAITHFUL
    assert settings_of(kind(recipe="fast")) == FAST
    assert settings_of(kind(recipe="fast", learning_rate=3e-4)) == FAST | {"learning_rate": 3e-4}
    assert settings_of(kind.model_validate({"recipe": "fast", "learning_rate": "1e-4"})) == (
        FAST | {"learning_rate": 1e-4}
    )
    assert RECIPES.keys() == {"faithful", "fast"}
    assert all(FAST[key] != FAITHFUL[key] for key in ("learning_rate", "max_epochs", "schedule"))


@pytest.mark.parametrize("kind", TRAINED)
def test_the_identity_tells_recipes_and_overrides_apart(kind):
    methods = [
        kind(),
        kind(recipe="fast"),
        kind(recipe="fast", learning_rate=FAITHFUL["learning_rate"]),
        kind(recipe="fast", max_epochs=FAITHFUL["max_epochs"]),
        kind(**FAST),
    ]
    resolved = [method.resolve(batch_size=16) for method in methods]
    assert len({canonical_hash(method.identity()) for method in resolved}) == len(methods)
    slugs = [variant_slug(method, ignore=("method",)) for method in methods]
    assert len(set(slugs)) == len(slugs)
    assert slugs[:3] == ["default", "recipe-fast", "recipe-fast_learning-rate-1e-05"]


def test_what_is_recorded_comes_back_as_it_was():
    method = Icis(recipe="fast", hidden=8).resolve(batch_size=16)
    assert Icis.model_validate(method.model_dump()) == method


def test_results_say_the_recipe():
    assert Icis().selection == (
        "faithful recipe: slope of the training loss below 0.002, at most 1000 epochs"
    )
    fast = Icis(recipe="fast", max_epochs=7).resolve(batch_size=16)
    assert fast.selection == "fast recipe, but for max_epochs: 7 epochs of a one-cycle schedule"
    assert Wdae(mlp=Mlp(recipe="fast")).selection.startswith("mlp: fast recipe: ")
    assert "but for" not in Icis().resolve(batch_size=20).selection
    assert "but for" not in Icis(recipe="fast").resolve(batch_size=20).selection


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"recipe": "quick"}, "'faithful' or 'fast'"),
        ({"recipe": ["fast"]}, "'faithful' or 'fast'"),
        ({"schedule": "linear"}, "'constant' or 'one-cycle'"),
        ({"recipe": "fast", "slope_threshold": 1e-3}, "slope_threshold has no effect"),
        ({"recipe": "fast", "max_epochs": 0}, "greater than 0"),
    ],
)
def test_settings_that_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        Icis(**settings)


def test_a_slope_threshold_goes_with_a_constant_rate():
    assert Icis(recipe="fast", schedule="constant").threshold == 2e-3
    assert Icis(recipe="fast", schedule="constant", slope_threshold=0.5).threshold == 0.5
    assert Icis(recipe="fast").threshold == -math.inf


# --- the schedule -----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 325])
def test_the_rates_are_torchs_and_those_of_the_formula(steps):
    plain = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    other = torch.optim.lr_scheduler.OneCycleLR(
        plain, max_lr=2e-4, total_steps=max(steps, 2), cycle_momentum=False
    )
    found, expected = [*islice(one_cycle(2e-4, steps), steps)], []
    for _ in range(steps):
        expected.append(plain.param_groups[0]["lr"])
        plain.step()
        other.step()
    assert found == expected
    assert found == pytest.approx(slow_one_cycle(2e-4, steps), rel=1e-9)


def test_after_a_cycle_the_rate_stays():
    assert len({*islice(one_cycle(0.5, 10), 9, 30)}) == 1


def test_a_cycle_is_trained_to_its_end():
    """Where the loss hardly falls the slope stop ends a training without a cycle."""
    problem, flat = make_problem(), {"hidden": HIDDEN, "batch_size": 5, "learning_rate": 1e-12}
    cycle = Icis(recipe="fast", max_epochs=40, **flat).fit(problem, seed=0, device="cpu")
    constant = Icis(max_epochs=40, **flat).fit(problem, seed=0, device="cpu")
    assert cycle.epochs == 40
    assert constant.epochs < 40


def test_a_cycle_of_a_single_step():
    method = Icis(recipe="fast", hidden=HIDDEN, batch_size=99, max_epochs=1)
    injection = method.fit(make_problem(), seed=0, device="cpu")
    assert injection.epochs == 1
    assert injection.joint.joined().isfinite().all()
