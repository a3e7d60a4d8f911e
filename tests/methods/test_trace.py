"""ICIS against three epochs written out by the published algorithm."""

import json

import numpy as np
import pytest
import torch

from icis.methods.encoders import Reconstruction, train
from icis.methods.networks import build_networks
from icis.methods.steps import PairSteps

LAYERS = {
    "encode_a": "att_enc", "decode_a": "att_dec", "encode_w": "w_enc", "decode_w": "w_dec"
}  # fmt: skip
TERMS = {
    "a2a": "att_from_att",
    "w2a": "att_from_weight",
    "w2w": "weight_from_weight",
    "a2w": "weight_from_att",
}


@pytest.fixture(scope="module")
def trace(real_data):
    with np.load(real_data / "trace/icis_3_epochs.npz", allow_pickle=False) as file:
        return dict(file)


def replay(trace):
    """Run the traced epochs with the traced initial weights and batch order."""
    tensor = {
        key: torch.from_numpy(value) for key, value in trace.items() if value.dtype.kind == "f"
    }
    settings = json.loads(str(trace["hparams"]))
    seen, unseen = trace["seenclasses"], trace["unseenclasses"]
    targets = torch.cat([tensor["base_weight"], tensor["base_bias"][:, None]], dim=1)
    attributes = tensor["attribute"]
    descriptors = attributes[torch.from_numpy(np.concatenate([seen, unseen]))]
    networks = build_networks(
        {"a": descriptors.shape[1], "w": targets.shape[1]},
        hidden=settings["embed_dim"], depth=2, seed=0,
    )  # fmt: skip
    for ours, theirs in LAYERS.items():
        with torch.no_grad():
            networks[ours][0].weight.copy_(tensor[f"init_{theirs}_weight"])
            networks[ours][0].bias.copy_(tensor[f"init_{theirs}_bias"])
    model = Reconstruction(
        networks, descriptors, targets, dict.fromkeys(TERMS, 1.0), distance="cosine"
    )
    epochs = []
    for epoch in range(3):
        steps = np.flatnonzero(trace["step_epoch"] == epoch)
        epochs.append(
            [torch.from_numpy(trace["step_rows"][s, : trace["step_size"][s]].astype(np.int64))
             for s in steps]
        )  # fmt: skip
    return model, epochs, settings, tensor


def test_rows_index_seen_then_unseen(trace):
    rows, classes = trace["step_rows"], trace["step_classes"]
    order = np.concatenate([trace["seenclasses"], trace["unseenclasses"]])
    used = rows >= 0
    assert (order[rows[used]] == classes[used]).all()


def test_loss_terms_and_predictions_meet_the_trace(trace):
    model, epochs, settings, tensor = replay(trace)
    steps: list[dict[str, float]] = []
    original = PairSteps.__call__

    def recording(self, batches, rates):
        found = original(self, batches, rates)
        steps.extend(dict(zip(model.losses, terms, strict=True)) for terms in found.tolist())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairSteps, "__call__", recording)
        history = train(model, epochs, learning_rate=settings["lr"], max_epochs=3,
                        stop=lambda losses: False)  # fmt: skip

    names = [str(name) for name in trace["step_term_names"]]
    assert len(steps) == 9
    for step, found in enumerate(steps):
        for ours, theirs in TERMS.items():
            expected = trace["step_terms"][step, names.index(theirs)]
            assert found[ours] == pytest.approx(expected, abs=1e-6), (step, ours)
    for epoch in range(3):
        expected = trace["step_loss"][trace["step_epoch"] == epoch].mean()
        assert history["loss"][epoch] == pytest.approx(expected, abs=4e-6)

    unseen = tensor["attribute"][torch.from_numpy(trace["unseenclasses"].astype(np.int64))]
    predicted = model.predict(unseen)
    assert (predicted - tensor["pred_unseen_after_3"]).abs().max() < 1e-6
