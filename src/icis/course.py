"""The course of a backbone's training: all that an epoch changes, and how to take it up again."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader

from icis.config import Training
from icis.extraction import batches
from icis.metrics import per_class_accuracy

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def forward_precision(precision: str, device: str) -> str:
    """Return the precision of the forward pass that ``auto`` means on a device."""
    if precision != "auto":
        return precision
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"


class Course:
    """A model in training with its optimizer, schedule, history and best epoch so far."""

    def __init__(self, model: Any, recipe: Training, steps: int, device: str) -> None:
        """Begin; ``steps`` are the batches of an epoch."""
        self.model, self.recipe, self.device = model, recipe, device
        self.kind = torch.device(device).type
        self.dtype = DTYPES[forward_precision(recipe.precision, device)]
        self.learning = [each for each in model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,  # one operation instead of hundreds
        )
        total = max(recipe.epochs * steps, 2)  # a cycle of one step would be its end: no rate
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, total_steps=total
        )
        # float16 has no room for small gradients
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.dtype == torch.float16)
        self.criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.history: list[dict[str, float | None]] = []
        self.best, self.best_epoch = -math.inf, 0
        self.best_state: dict[str, torch.Tensor] = {}

    def train_epoch(self, images: DataLoader[Any], *, frozen: bool) -> float:
        """Train on all batches and return the mean loss; ``frozen`` trains the classifier alone."""
        self._freeze(frozen)
        losses = []
        for pixels, target in batches(images):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                scores = self.model(self._to_device(pixels))
            loss = self.criterion(scores.float(), target.to(self.device, non_blocking=True))
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            losses.append(loss.detach())
        return float(sum(torch.stack(losses).tolist())) / len(images)

    def accuracy(self, images: DataLoader[Any]) -> float:
        """Return the per-class accuracy in percent."""
        self.model.eval()
        predicted, target = [], []
        for pixels, labels in batches(images):
            with torch.inference_mode(), self._autocast():
                predicted.append(self.model(self._to_device(pixels)).argmax(1))
            target.append(torch.as_tensor(labels))
        return per_class_accuracy(torch.cat(predicted).cpu(), torch.cat(target))

    def record(self, loss: float, accuracy: float | None) -> None:
        """Close an epoch; its weights are kept if its held-out accuracy is the best so far."""
        epoch = len(self.history) + 1
        self.history.append({"epoch": epoch, "loss": loss, "holdout_accuracy": accuracy})
        if accuracy is not None and accuracy > self.best:
            self.best, self.best_epoch = accuracy, epoch
            self.best_state = {key: value.clone() for key, value in self.model.state_dict().items()}

    def keep_selected(self) -> int:
        """Give the model the weights of the epoch selected, and return which it is."""
        if not self.best_state:
            return len(self.history)
        self.model.load_state_dict(self.best_state)
        return self.best_epoch

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the state by name."""
        found = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        found |= {f"best.{key}": value for key, value in self.best_state.items()}
        for number, parameter in enumerate(self.model.parameters()):
            state = self.optimizer.state.get(parameter, {})
            found |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
        return found

    def facts(self) -> dict[str, Any]:
        """Return the rest of the state as plain data; numbers pass through JSON unchanged."""
        return {
            "history": self.history,
            "best": self.best if self.best_epoch else None,
            "best_epoch": self.best_epoch,
            "groups": [
                {key: value for key, value in group.items() if key != "params"}
                for group in self.optimizer.param_groups
            ],
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Take up the state that ``tensors`` and ``facts`` once returned."""
        self.model.load_state_dict(_below(tensors, "model."))
        self.best_state = _below(tensors, "best.")
        for number, parameter in enumerate(self.model.parameters()):
            # moments are laid out in memory as the weights are: the same kernels, the same bits
            state = _below(tensors, f"optimizer.{number}.")
            if state:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else torch.empty_like(parameter).copy_(value)
                    for key, value in state.items()
                }
        for group, saved in zip(self.optimizer.param_groups, facts["groups"], strict=True):
            group.update(saved)
        self.schedule.load_state_dict(facts["schedule"])
        self.scaler.load_state_dict(facts["scaler"])
        self.history = facts["history"]
        self.best_epoch = facts["best_epoch"]
        self.best = facts["best"] if self.best_epoch else -math.inf

    def _freeze(self, frozen: bool) -> None:
        """Let the classifier alone learn; the rest keeps its weights and its statistics too."""
        classifier = self.model.get_classifier()
        self.model.train(not frozen)
        classifier.train()
        own = set(classifier.parameters())
        for parameter in self.learning:
            parameter.requires_grad_(not frozen or parameter in own)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.kind, dtype=self.dtype) if self.dtype else nullcontext()

    def _to_device(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(self.device, memory_format=torch.channels_last, non_blocking=True)


def _below(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin so, without that beginning."""
    return {
        key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)
    }
