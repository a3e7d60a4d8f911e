"""The slope stop, initial weights and batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.methods.encoders import SlopeStop, shuffled_epochs
from icis.methods.networks import build_networks
from tests.methods.slow import slow_stop_epoch

# --- the slope stop ---------------------------------------------------------------------------


def stop_epoch(losses, threshold):
    stop, so_far = SlopeStop(threshold), []
    for epoch, loss in enumerate(losses, start=1):
        so_far.append(loss)
        if stop(so_far):
            return epoch
    return None


# multiples of 2⁻¹⁰ have exact sums, so that both sides round alike
noise = st.lists(st.integers(0, 4096), max_size=90).map(lambda ks: [k / 1024 for k in ks])
steps = st.lists(st.sampled_from([-64, -16, -2, 0, 0, 0, 1, 40]), max_size=90).map(
    lambda ks: [4 + float(s) / 1024 for s in np.cumsum(ks)] if ks else []
)


@settings(max_examples=400, deadline=None)
@given(losses=noise | steps, threshold=st.sampled_from([2e-3, 2e-6, 0.0, 0.05]))
def test_slope_stop_is_the_literal_rule(losses, threshold):
    assert stop_epoch(losses, threshold) == slow_stop_epoch(losses, threshold)


def test_first_possible_stop_is_epoch_26():
    assert stop_epoch([1.0] * 60, 2e-3) == 26
    assert stop_epoch([1.0] * 25, 2e-3) is None


def test_a_slope_equal_to_the_threshold_goes_on():
    assert stop_epoch([1.0] * 60, 0.0) is None


def test_falling_loss_never_stops():
    assert stop_epoch([10 - 0.01 * epoch for epoch in range(500)], 2e-3) is None


def test_the_counter_starts_anew_after_one_steep_epoch():
    flat = [1.0] * 25  # epochs 22 to 25 are flat: four in a row
    steep = [*flat, 0.5]  # slope 0.005 from here until the step leaves both windows
    assert stop_epoch(flat, 2e-3) is None
    assert stop_epoch(steep, 2e-3) is None
    long = [*steep, *[0.5] * 40]
    found = stop_epoch(long, 2e-3)
    assert found == slow_stop_epoch(long, 2e-3)
    assert found > 40


# --- initial weights and batches --------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_initial_weights(depth):
    networks = build_networks({"a": 300, "w": 500}, hidden=400, depth=depth, seed=1)
    linear = [m for m in networks.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == {2: 4, 3: 6, 4: 8}[depth]
    for layer in linear:
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(0.02, rel=0.02)
        assert abs(float(weight.mean())) < 3e-4
        assert float(weight.abs().max()) > 0.07, "not cut off: a normal, not a truncated one"
        assert not layer.bias.detach().any()


@pytest.mark.parametrize(
    ("depth", "shapes"),
    [
        (2, {"encode_a": [(8, 3)], "decode_w": [(5, 8)]}),
        (3, {"encode_a": [(8, 3)], "decode_w": [(1000, 8), (5, 1000)]}),
        (4, {"encode_a": [(8, 3), (8, 8)], "decode_w": [(1000, 8), (5, 1000)]}),
    ],
)
def test_layers_of_each_depth(depth, shapes):
    networks = build_networks({"a": 3, "w": 5}, hidden=8, depth=depth, seed=0)
    for name, expected in shapes.items():
        found = [tuple(m.weight.shape) for m in networks[name] if hasattr(m, "weight")]
        assert found == expected


def test_variants_that_share_networks_start_alike():
    both = build_networks({"a": 3, "w": 5}, hidden=8, depth=2, seed=4).state_dict()
    alone = build_networks({"a": 3}, hidden=8, depth=2, seed=4).state_dict()
    deep = build_networks({"a": 3, "w": 5}, hidden=8, depth=3, seed=4).state_dict()
    assert all(torch.equal(both[key], value) for key, value in alone.items())
    for key in ("encode_a.0.weight", "encode_w.0.weight"):
        assert torch.equal(both[key], deep[key])
    other = build_networks({"a": 3, "w": 5}, hidden=8, depth=2, seed=5).state_dict()
    assert not torch.equal(both["encode_a.0.weight"], other["encode_a.0.weight"])


def test_networks_of_one_shape_start_apart():
    state = build_networks({"a": 6, "w": 6}, hidden=6, depth=2, seed=0).state_dict()
    weights = [value for key, value in state.items() if key.endswith("weight")]
    for number, weight in enumerate(weights):
        assert not any(torch.equal(weight, other) for other in weights[:number])


@settings(deadline=None)
@given(rows=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 3))
def test_every_epoch_holds_every_row_once(rows, batch, seed):
    epochs = shuffled_epochs(rows, batch, seed)
    for _ in range(3):
        batches = next(epochs)
        assert sorted(torch.cat(batches).tolist()) == list(range(rows))
        assert [len(each) for each in batches[:-1]] == [batch] * (len(batches) - 1)
        assert len(batches) == math.ceil(rows / batch)


def test_epochs_are_reshuffled():
    epochs = shuffled_epochs(30, 7, 0)
    orders = [torch.cat(next(epochs)).tolist() for _ in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert torch.cat(next(shuffled_epochs(30, 7, 0))).tolist() == orders[0]
    assert torch.cat(next(shuffled_epochs(30, 7, 1))).tolist() != orders[0]
