"""What the package is measured against: the same training and evaluation, written the plain way.

One seed at a time; a DataLoader over (descriptor, weight) pairs or (feature, label) pairs;
nn.Linear, autograd and Adam one operation at a time; the loss fetched after every batch; images
scored batch by batch, once a metric. Written from the paper's facts alone, it shares no code with
the package, and tests/test_plain.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

Progress = Callable[[int, float], None]
Scores = Callable[[torch.Tensor], torch.Tensor]
ALL_TERMS = ("a2a", "w2w", "a2w", "w2a")


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam as it was before it could take all parameters at once."""
    return torch.optim.Adam(parameters, lr=learning_rate, foreach=False, fused=False)


# --- injection --------------------------------------------------------------------------------


class Pairs(Dataset):
    """Descriptor, [weight, bias] and whether there is one: zeros stand for an unseen class's."""

    def __init__(self, seen: torch.Tensor, targets: torch.Tensor, unseen: torch.Tensor) -> None:
        self.descriptors = torch.cat([seen, unseen])
        self.targets = torch.cat([targets, torch.zeros(len(unseen), targets.shape[1])])
        self.is_seen = torch.arange(len(self.descriptors)) < len(seen)

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.descriptors)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return one class."""
        return self.descriptors[row], self.targets[row], self.is_seen[row]


class Networks(nn.ModuleDict):
    """Encoders and decoders of depth 2 between descriptors (a), weights (w) and latents."""

    def __init__(self, components: int, width: int, hidden: int, spaces: str = "aw") -> None:
        super().__init__()
        for space in spaces:
            dim = {"a": components, "w": width}[space]
            self[f"encode_{space}"] = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU())
            self[f"decode_{space}"] = nn.Sequential(nn.Linear(hidden, dim))
        for name, values in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(values, std=0.02)
            else:
                nn.init.zeros_(values)


class Mlp(Networks):
    """Only what leads from descriptors to weights."""

    def __init__(self, components: int, width: int, hidden: int) -> None:
        super().__init__(components, width, hidden)
        del self["decode_a"], self["encode_w"]


def cosine(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine of each row."""
    return 1 - functional.cosine_similarity(found, target, dim=1)


def squared(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of each row."""
    return ((found - target) ** 2).mean(dim=1)


class Objective:
    """The sum of some of the four terms, and 1e-3 × the distance to the seen weights' span."""

    def __init__(
        self,
        terms: tuple[str, ...] = ALL_TERMS,
        distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cosine,
        spanned: torch.Tensor | None = None,
    ) -> None:
        self.terms, self.distance = terms, distance
        self.basis = None if spanned is None else torch.linalg.qr(spanned.T).Q

    def __call__(
        self, nets: Networks, a: torch.Tensor, w: torch.Tensor, is_seen: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch: a2a over all rows, the others over those with a target."""
        seen, w = a[is_seen], w[is_seen]
        count = max(len(w), 1)
        loss = torch.zeros(())
        if "a2a" in self.terms:
            loss = loss + self.distance(nets["decode_a"](nets["encode_a"](a)), a).mean()
        if "w2w" in self.terms:
            loss = loss + self.distance(nets["decode_w"](nets["encode_w"](w)), w).sum() / count
        if "a2w" in self.terms:
            found = nets["decode_w"](nets["encode_a"](seen))
            loss = loss + self.distance(found, w).sum() / count
            if self.basis is not None:
                away = found - found @ self.basis @ self.basis.T
                loss = loss + 1e-3 * away.norm(dim=1).mean()
        if "w2a" in self.terms:
            loss = loss + self.distance(nets["decode_a"](nets["encode_w"](w)), seen).sum() / count
        return loss


def train_networks(
    nets: Networks,
    loader: DataLoader,
    objective: Objective,
    *,
    epochs: int,
    learning_rate: float = 1e-5,
    progress: Progress | None = None,
) -> list[float]:
    """Train for a number of epochs; return their losses."""
    optimizer = adam(nets.parameters(), learning_rate)
    losses = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for a, w, is_seen in loader:
            optimizer.zero_grad()
            loss = objective(nets, a, w, is_seen)
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(loader))
        if progress:
            progress(epoch, losses[-1])
    return losses


def predict(nets: Networks, descriptors: torch.Tensor) -> torch.Tensor:
    """Return [weight, bias] for each descriptor."""
    with torch.no_grad():
        return nets["decode_w"](nets["encode_a"](descriptors))


def descend_simplex(
    corners: torch.Tensor, point: torch.Tensor, start: torch.Tensor, max_steps: int = 100_000
) -> torch.Tensor:
    """Return SMO's weights [S] of one unseen class: SGD over a softmax, until 11 idle steps."""
    r = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([r], lr=1000)
    best, last, idle = float("inf"), float("inf"), 0
    for _ in range(max_steps):
        optimizer.zero_grad()
        loss = functional.mse_loss(r.softmax(0) @ corners, point)
        loss.backward()
        optimizer.step()
        value = loss.item()
        idle += abs(last - value) < 1e-7 or value >= best
        last, best = value, min(best, value)
        if idle == 11:
            break
    return r.detach().softmax(0)


# --- seen head --------------------------------------------------------------------------------


class FullBatches:
    """Batches of row numbers, always full: one is filled from the next epoch's order."""

    def __init__(self, rows: int, batch_size: int) -> None:
        self.rows, self.batch_size, self.left = rows, batch_size, []

    def __len__(self) -> int:
        """Return how many batches are an epoch."""
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield an epoch's batches."""
        for _ in range(len(self)):
            if len(self.left) < self.batch_size:
                self.left = self.left + torch.randperm(self.rows).tolist()
            yield self.left[: self.batch_size]
            self.left = self.left[self.batch_size :]


def seen_head(dim: int, classes: int) -> nn.Linear:
    """Return a head as it is before training."""
    head = nn.Linear(dim, classes)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def train_head(
    head: nn.Linear, loader: DataLoader, *, epochs: int, progress: Progress | None = None
) -> list[float]:
    """Train a head by cross-entropy; return each epoch's loss."""
    optimizer = adam(head.parameters(), 1e-4)
    losses = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(head(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(loader))
        if progress:
            progress(epoch, losses[-1])
    return losses


# --- evaluation -------------------------------------------------------------------------------


def per_class_accuracy(
    scores: Scores, x: torch.Tensor, y: torch.Tensor, *, batch_size: int = 64
) -> float:
    """Score images batch by batch; return the mean over classes of their accuracy, percent."""
    predicted = []
    with torch.no_grad():
        for images, _ in DataLoader(TensorDataset(x, y), batch_size=batch_size):
            predicted.append(scores(images).argmax(dim=1))
    found = torch.cat(predicted)
    each = [(found[y == label] == label).float().mean() for label in y.unique()]
    return 100 * torch.stack(each).mean().item()


def evaluate(
    joint: Scores,
    unseen: Scores,
    seen_classes: int,
    test_seen: tuple[torch.Tensor, torch.Tensor],
    test_unseen: tuple[torch.Tensor, torch.Tensor],
) -> dict[str, float]:
    """Return T1, U, S and H; labels are columns of the joint scorer, the seen classes first."""
    x, y = test_unseen
    s, u = per_class_accuracy(joint, *test_seen), per_class_accuracy(joint, x, y)
    t1 = per_class_accuracy(unseen, x, y - seen_classes)
    return {"T1": t1, "U": u, "S": s, "H": 2 * s * u / (s + u) if s + u else 0.0}


def linear(rows: torch.Tensor) -> Scores:
    """Return the scores of a head [weight, bias]."""
    return lambda x: functional.linear(x, rows[:, :-1], rows[:, -1])


def conse(seen: torch.Tensor, known: torch.Tensor, descriptors: torch.Tensor) -> Scores:
    """Return ConSE's scores: the seen head's rows, their descriptors, those of all classes."""

    def scores(x: torch.Tensor) -> torch.Tensor:
        expected = linear(seen)(x).softmax(dim=1) @ known
        return functional.cosine_similarity(expected[:, None], descriptors[None], dim=2)

    return scores
