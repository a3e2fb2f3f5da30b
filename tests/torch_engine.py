"""A stand-in for the engine: the same interface, computed by PyTorch in float32.

The oracle must accept it (honest float32) and must object as soon as `spoil` changes a tensor; so
the oracle is tested without the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from lanewise.bridge.oracle import noise_masks
from lanewise.bridge.torch_module import to_torch
from lanewise.bridge.updates import TWINS
from lanewise.native.optimizers import Optimizer
from lanewise.net.graph import Graph

Spoil = Callable[[str, np.ndarray], np.ndarray]


class TorchEngine:
    """A Program for one graph. `spoil(name, values)` may change any result on its way out."""

    def __init__(self, graph: Graph, spoil: Spoil = lambda name, values: values) -> None:
        self.graph, self.spoil, self.steps_done = graph, spoil, 0
        self.masks: dict[str, np.ndarray] = {}
        self.mean, self.std = np.zeros(1, "f4"), np.ones(1, "f4")
        self.optimizer: Any = None
        self.model = to_torch(graph)
        self.masked = to_torch(graph, dropout_mask=self._mask)
        self.parameters = {n: p.detach().numpy() for n, p in self.model.named_parameters()}
        self.buffers = {n: b.numpy() for n, b in self.model.named_buffers() if "running" in n}
        self.learned = self.parameters | self.buffers
        self.facts = SimpleNamespace(exact=True, precision="fp32")
        self.gradients: dict[str, np.ndarray] = {}
        self.input_gradient: np.ndarray | None = None

    def set_learned(self, values: Mapping[str, np.ndarray]) -> None:
        for name, array in self.learned.items():
            array[...] = values[name]

    def initialise(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.steps_done = 0
        for array in self.parameters.values():
            bound = np.prod(array.shape[1:]) ** -0.5
            array[...] = random.uniform(-bound, bound, array.shape)

    def set_normalisation(self, mean: np.ndarray, std: np.ndarray) -> None:
        self.mean, self.std = mean, std

    def forward(self, images: np.ndarray) -> np.ndarray:
        return self.spoil("logits", self.model.eval()(self._tensor(images)).detach().numpy())

    def gradients_only(
        self, images: np.ndarray, labels: np.ndarray, *, smoothing: float = 0.0, seed: int = 0
    ) -> tuple[float, int]:
        import torch

        self.masks = noise_masks(self.graph, seed, self.steps_done, len(images))
        self.masked.load_state_dict(self.model.state_dict())
        self.masked.train().zero_grad()
        x = self._tensor(images).requires_grad_()
        logits = self.masked(x).flatten(1)
        loss = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(labels), label_smoothing=smoothing
        )
        loss.backward()
        self.gradients = {
            name: self.spoil(f"{name}.grad", parameter.grad.numpy().copy())
            for name, parameter in self.masked.named_parameters()
        }
        self.input_gradient = self.spoil("input.grad", x.grad.numpy())
        correct = int((logits.argmax(1) == torch.from_numpy(labels)).sum())
        return float(self.spoil("loss", loss.detach().numpy())), correct

    def start(self, optimizer: Optimizer) -> None:
        """Use this optimizer in `step`, from a fresh state."""
        make, self.states, _ = TWINS[type(optimizer)]
        self.optimizer = make(optimizer, list(self.model.parameters()), 1.0)

    def step(
        self, images: np.ndarray, labels: np.ndarray, lr: float, seed: int = 0
    ) -> tuple[float, int]:
        import torch

        result = self.gradients_only(images, labels, seed=seed)
        for name, moved in self.masked.named_buffers():
            if name in self.buffers:
                self.buffers[name][...] = self.spoil(name, moved.numpy().copy())
        if self.optimizer is None:
            return result
        self.optimizer.param_groups[0]["lr"] = lr
        for name, parameter in self.model.named_parameters():
            parameter.grad = torch.from_numpy(self.gradients[name].copy())
        self.optimizer.step()
        self.steps_done += 1
        for name, values in self.parameters.items():
            values[...] = self.spoil(f"{name}.step", values.copy())
        return result

    @property
    def optimizer_state(self) -> dict[str, np.ndarray]:
        return {
            f"{name}.{ours}": self.spoil(f"{name}.{ours}", state[theirs].numpy())
            for name, parameter in self.model.named_parameters()
            for ours, theirs in self.states.items()
            if (state := self.optimizer.state[parameter]).get(theirs) is not None
        }

    def _mask(self, name: str) -> Any:
        import torch

        return torch.from_numpy(self.masks[name].astype("f4"))

    def _tensor(self, images: np.ndarray) -> Any:
        import torch

        if images.dtype == np.uint8:
            scaled = images.astype("f4") / np.float32(255)
            images = (scaled - self.mean[:, None, None]) / self.std[:, None, None]
        return torch.from_numpy(images)
