"""The seen head against a literal training loop, its batches, and which epoch is kept."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from icis import base_classifier
from icis.base_classifier import full_batches, stratified_holdout, train_seen_head
from icis.config import SeenHead
from icis.errors import IcisError
from icis.evaluation import accuracy
from icis.metrics import LabelledFeatures
from icis.seeding import derive_seed

CLASSES = ("cow", "bat", "ape", "dog")
DIM = 7


def make_images(count=43, seed=0, spread=1.0, classes=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(classes), DIM, generator=torch.Generator().manual_seed(99))
    picked = torch.randint(len(classes), (count,), generator=generator)
    noise = spread * torch.randn(count, DIM, generator=generator)
    return LabelledFeatures(centres[picked] + noise, [classes[k] for k in picked.tolist()])


def recipe(**settings):
    return SeenHead(**{"batch_size": 5, "epochs": 6, "learning_rate": 1e-2, **settings})


# --- batches ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(rows=st.integers(1, 30), batch=st.integers(1, 40), seed=st.integers(0, 5))
def test_batches_are_full_and_orders_follow_without_a_gap(rows, batch, seed):
    batches = full_batches(rows, batch, torch.Generator().manual_seed(seed))
    orders = 4
    drawn = list(itertools.islice(batches, math.ceil(orders * rows / batch)))
    assert all(len(each) == batch for each in drawn)
    stream = torch.cat(drawn).tolist()
    for order in range(orders):
        assert sorted(stream[order * rows : (order + 1) * rows]) == list(range(rows))


def test_orders_differ_and_follow_the_generator():
    def stream(seed):
        batches = full_batches(20, 5, torch.Generator().manual_seed(seed))
        return torch.cat(list(itertools.islice(batches, 12))).tolist()

    first = stream(0)
    assert first == stream(0)
    assert first != stream(1)
    assert len({tuple(first[:20]), tuple(first[20:40]), tuple(first[40:])}) == 3


# --- one training run, literally --------------------------------------------------------------


def literal_training(images, settings, seed, batches, epochs):
    """Return weight, bias and epoch losses of the plain torch loop, fed the same batches."""
    generator = torch.Generator().manual_seed(derive_seed("seen head weights", seed))
    layer = torch.nn.Linear(images.vectors.shape[1], len(CLASSES))
    with torch.no_grad():
        layer.weight.normal_(0, 0.02, generator=generator)
        layer.bias.zero_()
    optimizer = torch.optim.Adam(
        layer.parameters(), lr=settings.learning_rate, foreach=False, fused=False
    )
    target = torch.tensor([CLASSES.index(name) for name in images.classes])
    per_epoch = math.ceil(len(target) / settings.batch_size)
    losses = []
    for epoch in range(epochs):
        total = 0.0
        for rows in batches[epoch * per_epoch : (epoch + 1) * per_epoch]:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(images.vectors[rows]), target[rows])
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / per_epoch)
    return layer.weight.detach(), layer.bias.detach(), losses


@pytest.fixture
def recorded(monkeypatch):
    """Record the batches that a training run draws."""
    drawn = []

    def recording(*args):
        for batch in full_batches(*args):
            drawn.append(batch)
            yield batch

    monkeypatch.setattr(base_classifier, "full_batches", recording)
    return drawn


@pytest.mark.parametrize("batch_size", [1, 5, 43, 50])
@pytest.mark.parametrize("rate", [1e-4, 1e-2])
@pytest.mark.parametrize("scale", [1, 1e-7])
def test_training_equals_the_literal_loop(recorded, batch_size, rate, scale):
    """Tiny features make gradients as small as Adam's epsilon: only then does their scale count."""
    images, settings = make_images(), recipe(batch_size=batch_size, learning_rate=rate)
    images = LabelledFeatures(images.vectors * scale, images.classes)
    trained = train_seen_head(images, settings, classes=CLASSES, seed=4)
    assert len(recorded) == 6 * math.ceil(43 / batch_size)
    weight, bias, losses = literal_training(images, settings, 4, recorded, 6)
    torch.testing.assert_close(trained.head.weight, weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(trained.head.bias, bias, rtol=0, atol=1e-5)
    assert trained.loss == pytest.approx(losses, abs=1e-5)
    assert trained.epoch == 6
    assert trained.head.classes == CLASSES
    assert not trained.head.weight.requires_grad


def test_initial_weights():
    """Nothing moves with a learning rate next to 0: the start can be seen."""
    classes = tuple(f"c{i}" for i in range(300))
    images = LabelledFeatures(torch.zeros(3, 200), ["c0", "c1", "c2"])
    trained = train_seen_head(
        images, recipe(learning_rate=1e-30, epochs=1), classes=classes, seed=0
    )
    assert float(trained.head.weight.std()) == pytest.approx(0.02, rel=0.02)
    assert abs(float(trained.head.weight.mean())) < 3e-4
    assert not (trained.head.bias.abs() > 1e-20).any()


def test_same_seed_same_bits():
    images = make_images()
    torch.manual_seed(1)
    first = train_seen_head(images, recipe(), classes=CLASSES, seed=0)
    torch.manual_seed(2)
    second = train_seen_head(images, recipe(), classes=CLASSES, seed=0)
    third = train_seen_head(images, recipe(), classes=CLASSES, seed=1)
    assert first.head.digest() == second.head.digest()
    assert first.loss == second.loss
    assert first.head.digest() != third.head.digest()


def test_the_order_of_batches_follows_the_seed(recorded):
    for seed in (0, 1, 0):
        train_seen_head(make_images(), recipe(epochs=1), classes=CLASSES, seed=seed)
    first, other, again = (torch.cat(recorded[k : k + 9]).tolist() for k in (0, 9, 18))
    assert first == again
    assert first != other


def test_a_seen_class_without_images_keeps_its_row():
    images = make_images(classes=CLASSES[:3])
    trained = train_seen_head(images, recipe(), classes=CLASSES, seed=0)
    assert trained.head.classes == CLASSES
    assert trained.head.bias[3] < 0


def test_long_training_reaches_logistic_regression():
    """Both minimise the same loss: accuracy and probabilities come close, without penalty."""
    images, test = make_images(400, 1, spread=2.0), make_images(2000, 2, spread=2.0)
    settings = recipe(batch_size=100, epochs=400, learning_rate=5e-3)
    head = train_seen_head(images, settings, classes=CLASSES, seed=0).head
    judge = LogisticRegression(C=1e6, max_iter=5000).fit(images.vectors.numpy(), images.classes)
    ours = accuracy(head, test)
    as_head = [judge.classes_.tolist().index(name) for name in CLASSES]
    theirs = judge.predict_proba(test.vectors.numpy())[:, as_head]
    found = head.scores(test.vectors).softmax(1).numpy()
    assert np.abs(found - theirs).mean() < 0.01
    right = judge.predict(test.vectors.numpy()) == np.array(test.classes)
    per_class = [right[np.array(test.classes) == name].mean() for name in CLASSES]
    assert ours == pytest.approx(100 * np.mean(per_class), abs=1.0)


# --- which epoch is kept ----------------------------------------------------------------------


def heads_after_each_epoch(images, epochs, **settings):
    """Return the heads after 1, 2, … epochs: training is the same up to there."""
    return [
        train_seen_head(images, recipe(epochs=n, **settings), classes=CLASSES, seed=3).head
        for n in range(1, epochs + 1)
    ]


def test_last_keeps_the_last_epoch():
    images = make_images()
    trained = train_seen_head(images, recipe(), classes=CLASSES, seed=3)
    assert trained.epoch == 6
    assert trained.selection_accuracy == []
    assert trained.head.digest() == heads_after_each_epoch(images, 6)[-1].digest()


def test_test_seen_keeps_the_best_epoch_on_it():
    images, test = make_images(60, spread=2.0), make_images(300, seed=5, spread=2.0)
    trained = train_seen_head(
        images, recipe(selection="test_seen", epochs=12, learning_rate=0.1),
        classes=CLASSES, seed=3, test_seen=test,
    )  # fmt: skip
    heads = heads_after_each_epoch(images, 12, learning_rate=0.1)
    accuracies = [accuracy(head, test) for head in heads]
    assert trained.selection_accuracy == pytest.approx(accuracies)
    best = max(range(12), key=lambda n: accuracies[n])
    assert best != 11, "the last epoch is the best: the test says nothing"
    assert trained.epoch == best + 1
    assert trained.head.digest() == heads[best].digest()
    assert len(trained.loss) == 12


def test_of_equal_epochs_the_first_is_kept():
    images = make_images(spread=0.01)
    test = make_images(20, seed=5, spread=0.01)
    trained = train_seen_head(
        images, recipe(selection="test_seen", learning_rate=0.1), classes=CLASSES, seed=3,
        test_seen=test,
    )  # fmt: skip
    best = max(trained.selection_accuracy)
    assert trained.selection_accuracy.count(best) > 1
    assert trained.epoch == trained.selection_accuracy.index(best) + 1
    kept = heads_after_each_epoch(images, trained.epoch, learning_rate=0.1)[-1]
    assert trained.head.digest() == kept.digest()


def test_test_seen_needs_the_images():
    with pytest.raises(IcisError, match="test_seen needs the test_seen images"):
        train_seen_head(make_images(), recipe(selection="test_seen"), classes=CLASSES, seed=0)


@pytest.mark.parametrize("selection", ["last", "holdout"])
def test_honest_selections_never_look_at_test_images(selection):
    """Test images that are there change nothing; so do none."""
    settings = recipe(selection=selection, holdout=0.2)
    one = train_seen_head(make_images(), settings, classes=CLASSES, seed=0, test_seen=None)
    poison = LabelledFeatures(torch.full((2, DIM), torch.nan), ["cow", "bat"])
    other = train_seen_head(make_images(), settings, classes=CLASSES, seed=0, test_seen=poison)
    assert one.head.digest() == other.head.digest()
    assert one.selection_accuracy == other.selection_accuracy


def test_holdout_trains_on_the_rest_and_keeps_the_best_epoch_on_it(recorded):
    images = make_images(60, spread=2.0)
    settings = recipe(selection="holdout", holdout=0.25, epochs=10, learning_rate=0.1)
    trained = train_seen_head(images, settings, classes=CLASSES, seed=3)
    target = torch.tensor([CLASSES.index(name) for name in images.classes])
    kept, held = stratified_holdout(target, 0.25, 3)
    names = np.array(images.classes)
    training = LabelledFeatures(images.vectors[kept], names[kept.numpy()].tolist())
    judge = LabelledFeatures(images.vectors[held], names[held.numpy()].tolist())
    assert int(torch.cat(recorded).max()) == len(kept) - 1
    heads = heads_after_each_epoch(training, 10, learning_rate=0.1)
    accuracies = [accuracy(head, judge) for head in heads]
    assert trained.selection_accuracy == pytest.approx(accuracies)
    best = accuracies.index(max(accuracies))
    assert trained.epoch == best + 1
    assert trained.head.digest() == heads[best].digest()


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    part=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
)
def test_holdout_is_disjoint_and_stratified(counts, part, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)) * 2, torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    sizes = [min(round(part * count), count - 1) for count in counts]
    if not sum(sizes):
        with pytest.raises(IcisError, match="leaves no image to select by"):
            stratified_holdout(labels, part, seed)
        return
    kept, held = stratified_holdout(labels, part, seed)
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    for number, size in enumerate(sizes):
        assert int((labels[held] == number * 2).sum()) == size
        assert int((labels[kept] == number * 2).sum()) >= 1


def test_holdout_follows_the_seed():
    labels = torch.arange(100) % 4
    first, again, other = (stratified_holdout(labels, 0.2, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


# --- errors -----------------------------------------------------------------------------------


def test_labels_of_unknown_classes_are_named():
    strange = LabelledFeatures(torch.zeros(2, DIM), ["cow", "unicorn"])
    with pytest.raises(IcisError, match="'unicorn'"):
        train_seen_head(strange, recipe(), classes=CLASSES, seed=0)
    with pytest.raises(IcisError, match="'unicorn'"):
        train_seen_head(make_images(), recipe(selection="test_seen"), classes=CLASSES, seed=0,
                        test_seen=strange)  # fmt: skip


def test_test_images_of_another_backbone_are_refused_before_training():
    strange = LabelledFeatures(torch.zeros(2, DIM + 1), ["cow", "bat"])
    with pytest.raises(IcisError, match=r"takes features \[N, 7\], these are \[2, 8\]"):
        train_seen_head(make_images(), recipe(selection="test_seen"), classes=CLASSES, seed=0,
                        test_seen=strange, progress=lambda *_: pytest.fail("trained"))  # fmt: skip


def test_no_images_are_refused():
    with pytest.raises(IcisError, match="there are none"):
        train_seen_head(LabelledFeatures(torch.zeros(0, DIM), []), recipe(), classes=CLASSES,
                        seed=0)  # fmt: skip


def test_a_loss_that_is_no_number_names_the_epoch():
    images = make_images()
    images.vectors[0, 0] = torch.nan
    with pytest.raises(IcisError, match="seen head: the loss became nan in epoch 1"):
        train_seen_head(images, recipe(), classes=CLASSES, seed=0)


def test_progress_hears_every_epoch():
    heard = []
    trained = train_seen_head(make_images(), recipe(), classes=CLASSES, seed=0,
                              progress=lambda *each: heard.append(each))  # fmt: skip
    assert heard == list(enumerate(trained.loss, start=1))
