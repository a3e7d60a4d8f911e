"""Many trainings as one program: the numbers of each alone, whoever ends when."""

import dataclasses
import gc
import itertools
import math
import weakref

import numpy as np
import pytest
import torch

from icis.errors import IcisError
from icis.heads import Head
from icis.holdout import hold_out
from icis.methods import Icis, InjectionProblem, Mlp, SubReg
from icis.methods import ensemble as module
from icis.methods.base import Injection, Task
from icis.methods.ensemble import split, train_together, training
from icis.methods.program import Program
from icis.methods.training import TrainedMethod
from tests.devices import Watched
from tests.methods.slow import BATCH, HIDDEN, RATE, SEEN, icis, make_problem

COMMON = {"hidden": HIDDEN, "learning_rate": RATE, "batch_size": BATCH, "max_epochs": 40}
A2W_ALONE = {"a2a": 0.0, "w2w": 0.0, "w2a": 0.0}
LADDER = {
    "mlp": Mlp(**COMMON),
    "cosine": Mlp(**COMMON, distance="cosine"),
    "single-modal": icis(losses={"w2a": 0.0}, unseen_descriptors=False),
    "cross-modal": icis(unseen_descriptors=False),
    "full": icis(),
}
OTHERS = {
    "without a2a": icis(losses={"a2a": 0.0}, unseen_descriptors=False),
    "without w2w": icis(losses={"w2w": 0.0}),
    "a2w alone": icis(losses=A2W_ALONE, unseen_descriptors=False),
    "unequal, l2": icis(losses={"a2a": 4.0, "w2w": 0.5, "w2a": 0.0}, distance="l2"),
    # unsquared: where the distance nears 0, rounding is amplified, so it must not get there
    "subreg": SubReg(**COMMON, weight=0.02),
    "subreg, rank 3": SubReg(**COMMON, weight=0.3, rank=3, distance="cosine"),
    "with subspace": icis(subspace=0.2),
    "rescaled": icis(rescale="gzsl"),
    "early stop": icis(slope_threshold=0.03, max_epochs=45),
    "early stop, mlp": Mlp(**COMMON, slope_threshold=0.05),
    "few epochs": icis(max_epochs=3),
    "few epochs, mlp": Mlp(**COMMON | {"max_epochs": 7}),
}


def tasks_of(methods, seeds=(0,), problem=make_problem):
    return [
        Task(method, problem(seed), seed, f"{name}, seed {seed}")
        for name, method in methods.items()
        for seed in seeds
    ]


def together(tasks, **settings):
    """Return what became of each task, in their order."""
    found = {}

    def done(task, result):
        assert task.label not in found, "handed over twice"
        found[task.label] = result

    train_together(tasks, device="cpu", done=done, **settings)
    return [found[task.label] for task in tasks]


def assert_as_alone(task, found, *, tolerance=1e-6):
    alone = task.method.inject(task.problem, seed=task.seed, device="cpu")
    assert isinstance(found, Injection), found
    assert found.epochs == alone.epochs, "another number of epochs"
    assert found.history.keys() == alone.history.keys()
    for term, values in alone.history.items():
        np.testing.assert_allclose(
            found.history[term], values, rtol=0, atol=tolerance, err_msg=term
        )
    assert found.joint.classes == alone.joint.classes
    assert (found.joint.joined() - alone.joint.joined()).abs().max() < 1e-6
    assert (found.seen_predictions - alone.seen_predictions).abs().max() < 1e-6
    assert found.seen_predictions.std() > 1e-3, "training moved nothing: this says nothing"


def test_the_ladder_over_seeds_is_each_of_its_trainings():
    tasks = tasks_of(LADDER, seeds=(0, 1))
    for task, found in zip(tasks, together(tasks), strict=True):
        assert_as_alone(task, found)


def test_every_setting_that_a_program_holds_is_as_alone():
    tasks = tasks_of(LADDER | OTHERS, seeds=(4,))
    found = together(tasks)
    assert len({injection.epochs for injection in found}) >= 5, "members end at different epochs"
    for task, injection in zip(tasks, found, strict=True):
        assert_as_alone(task, injection)


def test_held_out_classes_and_fewer_pairs_go_along():
    """Problems of several sizes in one program, and what is watched after each epoch."""
    whole = make_problem()
    few = dataclasses.replace(whole, pairs=(0, 2, 3, 5, 8))
    held = hold_out(whole, (1, 4))
    tasks = [
        Task(method, problem, 1, f"{name}, {size}")
        for name, method in LADDER.items()
        for size, problem in {"whole": whole, "few": few, "held out": held}.items()
    ]
    found = together(tasks)
    for task, injection in zip(tasks, found, strict=True):
        assert_as_alone(task, injection)
    assert "held_out_w2a" in found[-1].history


@pytest.mark.parametrize("depth", [3, 4])
def test_deeper_networks(depth):
    methods = {
        "full": icis(depth=depth, learning_rate=1e-4, max_epochs=10),
        "single-modal": icis(depth=depth, learning_rate=1e-4, max_epochs=6, losses={"w2a": 0.0},
                             unseen_descriptors=False),
    }  # fmt: skip
    tasks = tasks_of(methods, seeds=(0, 1))
    for task, found in zip(tasks, together(tasks), strict=True):
        assert_as_alone(task, found, tolerance=1e-5)  # depth amplifies float32's rounding


def test_settings_that_change_the_step_make_programs_of_their_own(monkeypatch):
    sizes = []
    whole = Program.run

    def counted(self, *args):
        sizes.append(len(self.members))
        whole(self, *args)

    monkeypatch.setattr(Program, "run", counted)
    methods = {
        "full": icis(max_epochs=2),
        "mlp": Mlp(**COMMON | {"max_epochs": 3}),
        "slower": icis(max_epochs=2, learning_rate=1e-4),
        "narrow": icis(max_epochs=2, hidden=8),
        "larger batches": icis(max_epochs=2, batch_size=6),
    }
    tasks = tasks_of(methods, seeds=(0, 1))
    found = together(tasks)
    assert sizes == [4, 2, 2, 2]
    for task, injection in zip(tasks, found, strict=True):
        assert_as_alone(task, injection)


# --- failures and memory ----------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_its_training_alone(capsys):
    tasks = tasks_of({"full": icis(max_epochs=5), "mlp": LADDER["mlp"]}, seeds=(0, 1))
    head = tasks[0].problem.seen_head
    poisoned = dataclasses.replace(head, weight=head.weight.clone().fill_(math.nan))
    problem = dataclasses.replace(tasks[0].problem, seen_head=poisoned)
    tasks[0] = dataclasses.replace(tasks[0], problem=problem)
    broken, *others = together(tasks)
    assert isinstance(broken, IcisError)
    assert str(broken) == "the loss became nan in epoch 1: lower the learning rate"
    assert "full, seed 0: the loss became nan in epoch 1" in capsys.readouterr().err
    for task, injection in zip(tasks[1:], others, strict=True):
        assert_as_alone(task, injection)


def test_a_loss_that_explodes_later_names_its_epoch():
    """No number but in the third epoch: what ran before counts, and the epoch is that one."""
    wild = icis(distance="l2", learning_rate=RATE, max_epochs=30)
    tasks = tasks_of({"wild": wild, "mlp": LADDER["mlp"]})
    course = module.Member.end_epoch

    def broken(self, sums):
        epoch = len(self.course.history["loss"]) + 1
        is_wild = self.task.label.startswith("wild")
        return course(self, [math.inf, *sums[1:]] if is_wild and epoch == 3 else sums)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Member, "end_epoch", broken)
        error, mlp = together(tasks)
    assert str(error) == "the loss became inf in epoch 3: lower the learning rate"
    assert_as_alone(tasks[1], mlp)


def test_a_problem_that_cannot_be_trained_on_costs_its_own_task_only():
    tasks = tasks_of({"too many": SubReg(**COMMON, rank=SEEN + 1), "mlp": LADDER["mlp"]})
    error, mlp = together(tasks)
    assert isinstance(error, IcisError)
    assert f"rank is {SEEN + 1}" in str(error)
    assert_as_alone(tasks[1], mlp)


def test_rows_that_cannot_be_rescaled_cost_their_own_task_only(monkeypatch):
    tasks = tasks_of({"rescaled": icis(rescale="gzsl", max_epochs=3), "mlp": LADDER["mlp"]})

    def nothing(*_):
        raise IcisError("the predicted rows are all zero")

    monkeypatch.setattr("icis.rescaling.rescaled", nothing)
    error, mlp = together(tasks)
    assert str(error) == "the predicted rows are all zero"
    assert_as_alone(tasks[1], mlp)


def test_a_program_that_breaks_is_the_error_of_those_that_had_not_ended(monkeypatch):
    tasks = tasks_of({"short": icis(max_epochs=1), "long": icis(max_epochs=9)})
    step = Program.step

    def breaking(self, rows, present):
        if len(self.members) == 1:
            raise torch.OutOfMemoryError("out of memory")
        step(self, rows, present)

    monkeypatch.setattr(Program, "step", breaking)
    short, long = together(tasks)
    assert isinstance(short, Injection)
    assert isinstance(long, torch.OutOfMemoryError)


def test_what_the_memory_does_not_hold_is_split_and_said(capsys):
    tasks = tasks_of(LADDER, seeds=(0, 1))
    sizes = [training(task).bytes() for task in tasks]
    budget = sum(sizes[:4])
    found = together(tasks, memory=budget)
    for task, injection in zip(tasks, found, strict=True):
        assert_as_alone(task, injection)
    told = capsys.readouterr().err
    count = len(split([training(task) for task in tasks], budget))
    assert count >= 3
    assert f"10 trainings need about {sum(sizes) / 2**20:,.0f} MiB" in told
    assert f"in {count} programs, one after the other" in told


def test_parts_keep_the_order_and_the_budget():
    trainings = [training(task) for task in tasks_of(LADDER, seeds=(0, 1, 2))]
    for budget in (0, trainings[-1].bytes(), 5 * trainings[-1].bytes(), 10**12):
        parts = split(trainings, budget)
        assert [each for part in parts for each in part] == trainings
        for part in parts:
            assert len(part) == 1 or sum(each.bytes() for each in part) <= budget
        for part, after in itertools.pairwise(parts):
            assert sum(each.bytes() for each in [*part, after[0]]) > budget, "room was left"


def test_the_estimate_is_what_is_stacked_at_the_papers_size():
    """CUB's shapes: of 9.7 million parameters each is there four times; rows in work are little."""
    head = Head(torch.zeros(150, 2048), torch.zeros(150), tuple(f"s{i}" for i in range(150)))
    unseen = tuple(f"u{i}" for i in range(50))
    problem = InjectionProblem(head, torch.zeros(150, 312), torch.zeros(50, 312), unseen)
    parameters = 2 * 2048 * (312 + 2049) + 2 * 2048 + 312 + 2049
    bytes_ = training(Task(Icis(batch_size=16), problem, 0)).bytes()
    assert 4 * 4 * parameters < bytes_ < 1.2 * 4 * 4 * parameters
    of_mlp = training(Task(Mlp(batch_size=16), problem, 0)).bytes()
    assert 0.5 < of_mlp / bytes_ < 0.65, "half the networks, and the largest one's copy"


def test_the_estimate_counts_every_parameter_stacked(monkeypatch):
    tasks = tasks_of(LADDER | {"deep": icis(depth=4, max_epochs=1)})
    stacked = []
    whole = Program.run

    def counted(self, *args):
        parameters = [each for net in self.networks.values() for each in net.parameters()]
        stacked.append(sum(each.value.numel() for each in parameters))
        whole(self, *args)

    monkeypatch.setattr(Program, "run", counted)
    together(tasks)
    *ladder, deep = (training(task).bytes() for task in tasks)
    for count, estimate in zip(stacked, (sum(ladder), deep), strict=True):
        assert 4 * 4 * count < estimate


def test_a_program_gives_its_memory_back_when_it_is_over():
    """At once, not when Python looks for cycles: the next one's memory is estimated then."""
    [task] = tasks_of({"few epochs": icis(max_epochs=2)})
    own = training(task)
    program = Program([module.Member(task, own.objective, own.start(0), "cpu")], "cpu")
    program.run(lambda *_: None)
    left = weakref.ref(program)
    gc.disable()
    try:
        del program
        assert left() is None
    finally:
        gc.enable()


def test_progress_hears_the_longest_training():
    heard = []
    together(
        tasks_of({"short": icis(max_epochs=3), "long": Mlp(**COMMON | {"max_epochs": 6})}),
        progress=lambda epoch, loss: heard.append(epoch),
    )
    assert heard == sorted(heard)
    assert heard[-1] == 6


# --- a device other than the CPU --------------------------------------------------------------


def test_a_step_stays_on_its_device_and_never_waits_for_it():
    """What a CUDA graph can hold, checked on torch's device without memory."""
    methods = LADDER | {"subspace": icis(subspace=0.2), "subreg": SubReg(**COMMON)}
    trainings = [training(task) for task in tasks_of(methods)]
    members = [module.Member(each.task, each.objective, each.start(0), "meta")
               for each in trainings]  # fmt: skip
    program = Program(members, "meta")
    rows = torch.zeros(len(members), BATCH, dtype=torch.long, device="meta")
    with Watched():
        program.step(rows, rows.bool())
        program.step(rows, rows.bool())
    with pytest.raises(AssertionError, match="another device"), Watched():
        program.terms(torch.zeros_like(rows, device="cpu"), rows.bool())


def test_every_setting_of_a_training_is_known_here():
    """One that is new must be in a program's steps, in what groups them, or make it not batched."""
    in_members = {"max_epochs", "slope_threshold", "distance"}
    in_groups = {"hidden", "learning_rate", "batch_size"}
    elsewhere = {"name", "rescale", "recipe", "schedule"}
    assert {*TrainedMethod.model_fields} == in_members | in_groups | elsewhere | {"method"}
