"""wDAE as a method: its base, what is refined, what is refused (the network: test_graph.py)."""

import pytest
import torch
from pydantic import ValidationError

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import METHODS, Icis, InjectionProblem, Mlp, Wdae
from icis.methods.encoders import SlopeStop
from icis.methods.graph import (
    DenoisingGraph,
    train_graph,
)
from tests.methods.test_graph import refine

D_DESCRIPTOR, D_FEATURE, SEEN, UNSEEN = 6, 7, 11, 4
WIDTH = D_FEATURE + 1
RATE = 1e-2
BASE = {"hidden": 16, "batch_size": 5, "max_epochs": 20, "learning_rate": 1e-3}
GRAPH = {"neighbours": 3, "max_epochs": 3, "learning_rate": 1e-3}


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_problem(pairs=None):
    head = Head(normal(SEEN, D_FEATURE), normal(SEEN, seed=1), tuple(f"s{i}" for i in range(SEEN)))
    return InjectionProblem(
        head,
        normal(SEEN, D_DESCRIPTOR, seed=2),
        normal(UNSEEN, D_DESCRIPTOR, seed=3),
        tuple(f"new{i}" for i in range(UNSEEN)),
        pairs=pairs,
    )


def make_wdae(**changes):
    return Wdae(**{"mlp": Mlp(**BASE), **GRAPH, **changes})


def test_all_rows_are_refined_and_keep_their_places():
    problem, method = make_problem(), make_wdae()
    heard = []
    injection = method.fit(problem, seed=0, device="cpu", progress=lambda *each: heard.append(each))
    base = method.mlp.fit(problem, seed=0, device="cpu")
    assert injection.joint.classes == problem.seen_head.classes + problem.unseen_classes
    assert injection.joint.weight.shape == (SEEN + UNSEEN, D_FEATURE)
    moved = (injection.joint.joined() - base.joint.joined()).abs().amax(dim=1)
    assert (moved > 1e-4).all(), "the seen rows are replaced as well"
    assert not injection.joint.weight.requires_grad
    assert injection.unseen is None
    assert {"loss", "base_loss", "base_a2w"} == injection.history.keys()
    assert injection.history["base_loss"] == base.history["loss"]
    assert len(injection.history["loss"]) == 3
    assert injection.epochs == base.epochs == 20
    assert heard == list(
        enumerate(injection.history["base_loss"] + injection.history["loss"], start=1)
    )


@pytest.mark.parametrize(
    ("base", "method"),
    [
        (Mlp(**BASE), make_wdae()),
        (Icis(**BASE), Wdae(base="icis", icis=Icis(**BASE), **GRAPH)),
    ],
)
def test_fit_refines_the_predictions_of_its_base(base, method):
    """By the network trained on what the base predicts for the seen classes."""
    problem = make_problem()
    trained = base.fit(problem, seed=2, device="cpu")
    seen, joint = trained.seen_predictions, trained.joint.joined()
    network = DenoisingGraph(WIDTH, layers=2, factor=3, dropout=0.7, seed=2, device="cpu")
    losses = train_graph(
        network, problem.seen_head.joined(), seen, refine=method.refine, noise=0.08,
        target="published", learning_rate=1e-3, max_epochs=3, stop=SlopeStop(2e-6), seed=2,
    )  # fmt: skip
    with torch.no_grad():
        expected = refine(network.eval(), joint[None], 3, 5.0)[0]
    injection = method.fit(problem, seed=2, device="cpu")
    assert injection.history["loss"] == losses
    assert torch.equal(injection.joint.joined(), expected)
    if method.base == "icis":
        assert {"base_a2a", "base_w2w", "base_w2a"} < injection.history.keys()


@pytest.mark.parametrize("pairs", [None, (7, 2, 3, 9, 0)])
def test_seen_predictions_are_those_of_the_known_classes(pairs):
    """A class with an unseen class's descriptor is predicted alike."""
    problem = make_problem(pairs)
    twins = InjectionProblem(
        problem.seen_head, problem.seen_descriptors, problem.known_descriptors.clone(),
        tuple(f"twin{i}" for i in range(len(problem.known_descriptors))), pairs=pairs,
    )  # fmt: skip
    injection = Mlp(**BASE).fit(twins, seed=0, device="cpu")
    torch.testing.assert_close(
        injection.seen_predictions, injection.joint.joined()[SEEN:], rtol=0, atol=1e-6
    )


def test_with_fewer_pairs_the_network_learns_from_them_and_refines_all(monkeypatch):
    trained_on = []

    def spy(self, clean, predicted, *rest):
        trained_on.append((clean, predicted))
        return original(self, clean, predicted, *rest)

    original = Wdae._train
    monkeypatch.setattr(Wdae, "_train", spy)
    problem = make_problem(pairs=(7, 2, 3, 9, 0))
    injection = make_wdae().fit(problem, seed=0, device="cpu")
    ((clean, predicted),) = trained_on
    assert torch.equal(clean, problem.seen_head.joined()[[7, 2, 3, 9, 0]])
    assert predicted.shape == clean.shape
    assert injection.joint.classes == problem.seen_head.classes + problem.unseen_classes
    base = Mlp(**BASE).fit(problem, seed=0, device="cpu").joint.joined()
    assert ((injection.joint.joined() - base).abs().amax(dim=1) > 1e-4).all()


def test_same_seed_same_bits_and_the_global_generator_is_left_alone():
    problem = make_problem()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_wdae().fit(problem, seed=3, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = make_wdae().fit(problem, seed=3, device="cpu")
    third = make_wdae().fit(problem, seed=4, device="cpu")
    assert first.history == second.history
    assert first.joint.digest() == second.joint.digest()
    assert first.joint.digest() != third.joint.digest()


@pytest.mark.parametrize("change", [{"target": "clean"}, {"noise": 0.0}, {"dropout": 0.0},
                                    {"temperature": 0.1}, {"hidden_factor": 2}, {"layers": 3},
                                    {"neighbours": 5}])  # fmt: skip
def test_every_setting_has_an_effect(change):
    problem = make_problem()
    plain = make_wdae().fit(problem, seed=0, device="cpu")
    changed = make_wdae(**change).fit(problem, seed=0, device="cpu")
    assert plain.joint.digest() != changed.joint.digest()


def test_the_slope_stop_ends_the_graphs_training():
    injection = make_wdae(max_epochs=60, slope_threshold=1e6).fit(
        make_problem(), seed=0, device="cpu"
    )
    assert len(injection.history["loss"]) == 26, "the first epoch at which the rule can stop"


def test_training_lowers_the_loss_and_clean_targets_denoise():
    """With the true rows as the target, predicted rows move towards them."""
    clean = normal(20, WIDTH)
    predicted = clean + 0.5 * normal(20, WIDTH, seed=9)
    method = make_wdae(target="clean", dropout=0.0, max_epochs=300, slope_threshold=0.0)
    network, losses = method._train(clean, predicted, 0, "cpu", None)
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        refined = method.refine(network.eval(), predicted[None])[0]
    assert (refined - clean).square().mean() < 0.8 * (predicted - clean).square().mean()


# --- refusals and configuration ---------------------------------------------------------------


def no_training(*_, **__):
    raise AssertionError("refused only after training")


@pytest.mark.parametrize(("pairs", "known"), [(None, SEEN), ((0, 1, 2), 3), ((4,), 1)])
def test_too_many_neighbours_are_refused_before_training(pairs, known, monkeypatch):
    monkeypatch.setattr(Mlp, "fit", no_training)
    with pytest.raises(IcisError, match=f"wdae: {known} known.*at least {known + 1}"):
        make_wdae(neighbours=known).fit(make_problem(pairs), seed=0, device="cpu")


def test_all_others_as_neighbours_are_fine():
    injection = make_wdae(neighbours=SEEN - 1).fit(make_problem(), seed=0, device="cpu")
    assert injection.joint.weight.isfinite().all()


def test_a_loss_that_is_no_number_names_the_epoch():
    with pytest.raises(IcisError, match=r"graph network's loss .* in epoch \d+: lower"):
        make_wdae(learning_rate=1e30, max_epochs=20).fit(make_problem(), seed=0, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbours": 0}, "neighbours"),
        ({"layers": 0}, "layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"noise": -0.1}, "noise"),
        ({"temperature": 0.0}, "temperature"),
        ({"target": "noisy"}, "target"),
        ({"base": "conse"}, "base"),
        ({"neighbors": 10}, "did you mean 'neighbours'"),
        ({"icis": Icis(depth=3)}, "icis.depth has no effect with base: mlp.*set base: icis"),
        ({"mlp": Mlp(rescale="gzsl")}, "mlp.rescale has no effect, set rescale of wdae"),
        ({"base": "icis", "mlp": Mlp(hidden=9)}, "mlp.hidden has no effect with base: icis"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Wdae(**changes)


def test_defaults_are_the_papers():
    method = Wdae()
    assert (method.base, method.target) == ("mlp", "published")
    assert (method.layers, method.hidden_factor, method.neighbours) == (2, 3, 10)
    assert (method.temperature, method.dropout, method.noise) == (5, 0.7, 0.08)
    assert (method.learning_rate, method.max_epochs) == (1e-5, 1000)
    assert method.slope_threshold == 2e-6
    assert METHODS["wdae"] is Wdae


def test_the_data_sets_batch_size_reaches_the_bases():
    resolved = Wdae().resolve(batch_size=20)
    assert (resolved.mlp.batch_size, resolved.icis.batch_size) == (20, 20)
    assert Wdae.model_validate(resolved.model_dump()) == resolved
    assert Wdae(mlp=Mlp(batch_size=3)).resolve(batch_size=20).mlp.batch_size == 3


def test_selection_speaks_of_base_and_graph():
    said = Wdae().selection
    assert said.startswith(f"mlp: {Mlp().selection}; graph: ")
    assert "at most 1000 epochs" in said
    assert "capped" not in said
    assert "capped at 30 epochs" in Wdae(max_epochs=30).selection
    assert Wdae(base="icis").selection.startswith(f"icis: {Icis().selection}")
