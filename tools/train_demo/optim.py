"""What the stages train with: Muon for matrices, averages of weights, learning rates, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are made orthogonal by Newton and Schulz's iteration (Jordan et al. 2024).

    Weights of equal shape are done together; convolutions count as matrices (out, rest).
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("m", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(average, group["momentum"]).reshape(p.shape[0], -1)
                alike.setdefault(tuple(update.shape), []).append((p, update))
            for (rows, columns), items in alike.items():
                updates = _orthogonal(torch.stack([update for _, update in items]))
                scale = 0.2 * math.sqrt(max(rows, columns))
                for (p, _), update in zip(items, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                        update.view(p.shape), alpha=-group["lr"] * scale
                    )


def _orthogonal(x: torch.Tensor) -> torch.Tensor:
    """(n, rows, columns) with singular values near 1."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


class Average:
    """Exponential moving average of weights, which is what is kept."""

    def __init__(self, params: Iterable[nn.Parameter], most: float) -> None:
        self.params, self.most = list(params), most
        self.values = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step`, from 0 on."""
        torch._foreach_lerp_(self.values, self.params, 1 - min(self.most, (step + 1) / (step + 20)))

    @torch.no_grad()
    def during(self, compute: Callable[[], T]) -> T:
        """What `compute` gives with the averages in place of the weights."""
        current = [p.detach().clone() for p in self.params]
        torch._foreach_copy_(self.params, self.values)
        result = compute()
        torch._foreach_copy_(self.params, current)
        return result


def cosine(step: int, steps: int, warm_up: int) -> float:
    """Factor of the learning rate: up, then down along a cosine to 2 %."""
    return min(1, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Factor of the rates with which they were made."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("base", group["lr"])
            group["lr"] = group["base"] * factor


def update(
    optimizers: list[torch.optim.Optimizer], params: list[nn.Parameter], loss: torch.Tensor, clip: float
) -> None:
    """One step down the gradient of the loss."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(params, clip)
    for optimizer in optimizers:
        optimizer.step()


def copied(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its state, which stays as it is."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def save(state: dict[str, Any], path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.replace(path)
