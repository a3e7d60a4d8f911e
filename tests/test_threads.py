"""Work side by side gives what it gives one after the other."""

import threading

import pytest
import torch

from icis.errors import IcisError
from icis.stages.common import denormals_flushed
from icis.threads import in_threads, one_thread
from tests.methods.slow import icis, make_problem


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_run_at_a_time_and_their_order_stays():
    both = threading.Barrier(2, timeout=20)  # one after the other would never pass it

    def work(item):
        both.wait()
        return item, torch.get_num_threads()

    assert in_threads(work, range(4), device="cpu") == [(n, 1) for n in range(4)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("device", "items"), [("cuda", [1, 2, 3]), ("cpu", [1])])
def test_on_a_gpu_and_for_a_single_item_nothing_is_shared_out(device, items):
    found = in_threads(
        lambda item: (item, threading.get_ident(), torch.get_num_threads()), items, device=device
    )
    assert found == [(item, threading.get_ident(), 2) for item in items]


def test_within_a_piece_nothing_is_shared_out_again():
    def inner(_):
        return threading.get_ident()

    def work(_):
        return {threading.get_ident(), *in_threads(inner, range(3), device="cpu")}

    assert [len(idents) for idents in in_threads(work, range(2), device="cpu")] == [1, 1]


def test_an_error_is_raised_and_the_threads_come_back():
    def work(item):
        if item == 1:
            raise IcisError("no")
        return item

    with pytest.raises(IcisError, match="no"):
        in_threads(work, range(3), device="cpu")
    assert torch.get_num_threads() == 2


def test_threads_flush_denormals_as_their_parent_does():
    def tiny(_):
        return float(torch.tensor([1e-30]) * torch.tensor([1e-12]))

    assert all(value > 0 for value in in_threads(tiny, range(2), device="cpu"))
    with denormals_flushed():
        assert in_threads(tiny, range(2), device="cpu") == [0, 0]


def test_seeds_trained_side_by_side_have_the_bits_of_seeds_trained_alone():
    problem = make_problem()

    def train(seed):
        return icis(max_epochs=8).fit(problem, seed=seed, device="cpu")

    together = in_threads(train, range(4), device="cpu")
    for seed, found in enumerate(together):
        alone = train(seed)
        assert found.history == alone.history
        assert found.joint.digest() == alone.joint.digest()


def test_one_thread_for_a_while():
    with pytest.raises(IcisError), one_thread():
        assert torch.get_num_threads() == 1
        raise IcisError("no")
    assert torch.get_num_threads() == 2
