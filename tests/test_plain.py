"""The plain implementation that benchmarks measure against, held against the package."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import plain, plain_graph
from benchmarks.cases import evaluate_plainly
from benchmarks.shapes import Shape, World
from icis.base_classifier import INITIAL_STD, full_batches, train_seen_head
from icis.config import SeenHead
from icis.evaluation import evaluate
from icis.methods import Conse, Costa, Icis, Mlp, SubReg, Wavg, Wdae
from icis.methods.encoders import shuffled_epochs
from icis.methods.graph import DenoisingGraph, train_graph
from icis.methods.networks import build_networks
from icis.methods.smo import descend
from icis.seeding import derive_seed

SMALL = Shape("small", 17, 6, 9, 130, 40, 50, batch_size=5, dim=11, hidden=16)
WORLD = World(SMALL)
RATE, EPOCHS, SEED = 1e-3, 12, 3


class Epochs:
    """The package's batches, epoch after epoch, for a DataLoader."""

    def __init__(self, epochs, length):
        self.epochs, self.length = epochs, length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter([batch.tolist() for batch in next(self.epochs)])


def train_plainly(problem, objective, *, single, use_unseen):
    """Train from the package's initial weights in the package's order."""
    width = SMALL.dim + 1
    nets = (plain.Mlp if single else plain.Networks)(SMALL.components, width, SMALL.hidden)
    theirs = build_networks(
        {"a": SMALL.components, "w": width}, hidden=SMALL.hidden, depth=2, seed=SEED
    )
    nets.load_state_dict({key: theirs.state_dict()[key].clone() for key in nets.state_dict()})
    unseen = problem.unseen_descriptors if use_unseen else problem.unseen_descriptors[:0]
    pairs = plain.Pairs(problem.seen_descriptors, problem.seen_head.joined(), unseen)
    order = Epochs(
        shuffled_epochs(len(pairs), SMALL.batch_size, SEED), -(-len(pairs) // SMALL.batch_size)
    )
    loader = DataLoader(pairs, batch_sampler=order)
    losses = plain.train_networks(nets, loader, objective, epochs=EPOCHS, learning_rate=RATE)
    return losses, plain.predict(nets, problem.unseen_descriptors)


SETTINGS = {
    "icis": (Icis(), plain.Objective(), False, True),
    "icis-cross": (Icis(unseen_descriptors=False), plain.Objective(), False, False),
    "icis-single": (
        Icis(losses={"w2a": 0}, unseen_descriptors=False),
        plain.Objective(("a2a", "w2w", "a2w")), False, False,
    ),
    "mlp-cosine": (Mlp(distance="cosine"), plain.Objective(("a2w",)), True, False),
    "mlp": (Mlp(), plain.Objective(("a2w",), plain.squared), True, False),
}  # fmt: skip


def assert_trained_alike(method, objective, *, single, use_unseen, problem):
    settings = {
        "hidden": SMALL.hidden, "learning_rate": RATE, "max_epochs": EPOCHS,
        "slope_threshold": 0.0, "batch_size": SMALL.batch_size,
    }  # fmt: skip
    ours = method.model_copy(update=settings).inject(problem, seed=SEED, device="cpu")
    losses, predicted = train_plainly(problem, objective, single=single, use_unseen=use_unseen)
    found = ours.joint.restrict(problem.unseen_classes).joined()
    assert losses[-1] < losses[0]
    torch.testing.assert_close(torch.tensor(ours.history["loss"]), torch.tensor(losses),
                               rtol=0, atol=1e-5)  # fmt: skip
    torch.testing.assert_close(found, predicted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_the_same_as_the_packages(name):
    method, objective, single, use_unseen = SETTINGS[name]
    assert_trained_alike(
        method, objective, single=single, use_unseen=use_unseen, problem=WORLD.problem()
    )


def test_subspace_regularisation_is_the_same():
    # fewer seen classes than components of [weight, bias]: else they span everything
    shape = Shape("few", 8, SMALL.unseen, SMALL.components, dim=SMALL.dim)
    problem = World(shape).problem()
    spanned = problem.seen_head.joined()
    assert_trained_alike(
        SubReg(), plain.Objective(("a2w",), plain.squared, spanned), single=True,
        use_unseen=False, problem=problem,
    )  # fmt: skip


def test_seen_head_is_the_same():
    trainval = WORLD.images("trainval")
    recipe = SeenHead(epochs=4, batch_size=SMALL.batch_size)
    ours = train_seen_head(trainval, recipe, classes=SMALL.seen_classes, seed=SEED)

    head = plain.seen_head(SMALL.dim, SMALL.seen)
    draws = torch.Generator().manual_seed(derive_seed("seen head weights", SEED))
    with torch.no_grad():
        head.weight.normal_(0, INITIAL_STD, generator=draws)
    order = torch.Generator().manual_seed(derive_seed("seen head order", SEED))
    endless = full_batches(len(trainval.classes), SMALL.batch_size, order)
    steps = -(-len(trainval.classes) // SMALL.batch_size)
    epochs = iter(lambda: [next(endless) for _ in range(steps)], None)
    labels = torch.tensor([SMALL.seen_classes.index(name) for name in trainval.classes])
    loader = DataLoader(
        TensorDataset(trainval.vectors, labels), batch_sampler=Epochs(epochs, steps)
    )
    losses = plain.train_head(head, loader, epochs=4)

    torch.testing.assert_close(torch.tensor(ours.loss), torch.tensor(losses), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.head.weight, head.weight.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.head.bias, head.bias.detach(), rtol=0, atol=1e-5)


def test_full_batches_take_every_row_in_turn():
    batches = plain.FullBatches(7, 3)
    rows = [row for _ in range(7) for batch in batches for row in batch]
    assert len(batches) == 3
    assert len(rows) == 63
    assert all(sorted(rows[start : start + 7]) == list(range(7)) for start in range(0, 63, 7))


def test_descent_over_the_simplex_is_the_same():
    problem = WORLD.problem()
    seen, unseen = problem.seen_descriptors.double(), problem.unseen_descriptors.double()
    draws = torch.Generator().manual_seed(derive_seed("smo start", SEED))
    starts = torch.randn(len(unseen), len(seen), generator=draws, dtype=torch.float64)
    starts *= 2 / len(seen)
    ours = descend(seen, unseen, seed=SEED, max_steps=200)
    theirs = [
        plain.descend_simplex(seen, point, start, 200)
        for point, start in zip(unseen, starts, strict=True)
    ]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=1e-5)


def test_the_graph_network_is_the_same():
    """Without dropout, noise and other predictions than the truth: each side draws its own."""
    clean, width = WORLD.problem().known_head.joined(), SMALL.dim + 1
    theirs = plain_graph.Graph(width, dropout=0.0)
    ours = DenoisingGraph(width, layers=2, factor=3, dropout=0.0, seed=SEED, device="cpu")
    linear = {"first.linear": "messages.0.linear", "second.linear": "messages.1.linear",
              "update": "updates.0", "output": "output"}  # fmt: skip
    for name, own in linear.items():
        theirs.get_submodule(name).load_state_dict(ours.get_submodule(own).state_dict())
    method = Wdae(neighbours=4)
    settings = {"noise": 0.0, "learning_rate": RATE}
    found = train_graph(
        ours, clean, clean, refine=method.refine, target="published", max_epochs=EPOCHS,
        stop=lambda losses: False, seed=SEED, **settings,
    )  # fmt: skip
    losses = plain_graph.train_graph(theirs, clean, clean, epochs=EPOCHS, neighbours=4, **settings)
    assert losses[-1] < losses[0]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [Conse(), Costa(), Wavg()], ids=lambda each: each.method)
def test_metrics_are_the_same(method):
    images = {split: WORLD.images(split) for split in ("test_seen", "test_unseen")}
    injection = method.inject(WORLD.problem(), seed=0, device="cpu")
    novel = SMALL.unseen_classes
    ours = evaluate(injection.joint, injection.unseen or novel, **images)
    theirs = evaluate_plainly(injection, novel, **images)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-4)
    assert 0 < theirs["S"] < 100
    assert 0 < theirs["T1"] < 100
