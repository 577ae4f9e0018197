"""What moves the weights: AdamW, or Muon for the large matrices and AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crnn.training.config import TrainConfig

LEAST = 64  # input channels of a convolution that Muon moves; the first one has a column for each of its nine pixels
GATES = 4  # of an LSTM: their matrices are four, one above the other
MOMENTUM = 0.95
SIZE = 0.2  # root mean square of an update at rate 1, about that of AdamW's: so one rate serves both
STEPS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.AdamW):
    """AdamW, but a matrix moves by its gradient's momentum with all singular values made about equal.

    Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with Nesterov's momentum and
    the polynomial given there; size of the update and weight decay as in Liu et al., "Muon is Scalable for LLM
    Training" (2025). A convolution's matrix has a row for each output channel; each gate of an LSTM is a matrix of its
    own.

    ``torch.optim.Muon`` takes matrices alone, no convolutions, and always multiplies in bfloat16, which processors
    without such instructions emulate; nor does it keep its products as small as :func:`orthogonal` does.

    Args:
        matrices: those of ``parameters`` that move so, and in how many parts, one above the other, each is taken.
        orthogonal: what makes the singular values equal: :func:`orthogonal` or :func:`orthogonal_in_bf16`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rate: float,
        matrices: dict[Tensor, int],
        orthogonal: Callable[[Tensor], Tensor],
        **options: Any,
    ) -> None:
        super().__init__(parameters, rate, **options)
        self.matrices, self.orthogonal = matrices, orthogonal

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update. A closure is not taken."""
        assert closure is None
        moved = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in self.matrices and parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["weight_decay"])
                    moved.append((parameter, parameter.grad))
                    parameter.grad = None  # so AdamW leaves it alone
        super().step()
        for parameter, gradient in moved:
            parameter.grad = gradient
        return None

    def _move(self, parameter: nn.Parameter, gradient: Tensor, rate: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["step"] = torch.tensor(0.0)  # without which AdamW would not load it
        state["step"] += 1
        momentum = state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(momentum, MOMENTUM)
        if ahead.ndim == 4:  # rows as they lie in memory: channels last
            ahead = ahead.permute(0, 2, 3, 1)
        rows = ahead.reshape(self.matrices[parameter], -1, ahead[0].numel())
        update = self.orthogonal(rows).reshape(ahead.shape)
        if update.ndim == 4:
            update = update.permute(0, 3, 1, 2)
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(update, alpha=-rate * SIZE * max(rows.shape[1:]) ** 0.5)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of AdamW's state, too: its mean gradient is where the momentum begins."""
        super().load_state_dict(state_dict)
        for parameter in self.matrices:
            if parameter in self.state:
                self.state[parameter].pop("exp_avg_sq", None)


def orthogonal(matrices: Tensor) -> Tensor:
    """float32[K, M, N] -> float32[K, M, N]: U S V^T becomes U S' V^T with S' from 0.68 to 1.14, for S not tiny.

    Five steps of x -> (a + b x x^T + c (x x^T)^2) x. All of them are one polynomial in x x^T times x, so what is
    multiplied in each is square, of the shorter side alone: for 512 x 4608 less than half of the work.
    """
    a, b, c = COEFFICIENTS
    x, flip = _upright(matrices)
    gram = x @ x.mT
    whole: Tensor | None = None
    for step in range(STEPS):
        factor = (gram @ gram).mul_(c).add_(gram, alpha=b)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        whole = factor if whole is None else factor @ whole
        if step < STEPS - 1:
            gram = factor @ (gram @ factor)
            gram = (gram + gram.mT) / 2  # rounding would let it drift from symmetry, and grow
    assert whole is not None
    result: Tensor = whole @ x
    return result.mT if flip else result


def orthogonal_in_bf16(matrices: Tensor) -> Tensor:
    """The same to about 1 %, for hardware that multiplies faster in bfloat16.

    So on matrices of full rank, as a run's are. Where there is hardly any gradient, rounding says which way to go.
    Step by step, as published: bfloat16 is too coarse for the product of all factors, where what the small singular
    values are multiplied by would round away what the large ones are.
    """
    a, b, c = COEFFICIENTS
    x, flip = _upright(matrices)
    x = x.bfloat16()
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype).mT if flip else x.to(matrices.dtype)


def _upright(matrices: Tensor) -> tuple[Tensor, bool]:
    """(of norm 1, with no more rows than columns; whether rows and columns were exchanged for it)."""
    flip = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if flip else matrices
    # What is hardly there stays so: of less than 1e-23 each, float32 makes the norm 0.
    return x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-15), flip


def optimizer(network: nn.Module, config: TrainConfig, device: str, kind: str = "no") -> torch.optim.AdamW:
    """What ``config.optimizer`` names, for a network trained on a ``device`` of this type, in the precision ``kind``.

    Muon knows its matrices by their parameters: moving the network has to keep these, as torch does.
    """
    options: dict[str, Any] = {"betas": (0.9, 0.98), "weight_decay": config.weight_decay}
    if config.optimizer == "muon":  # never fused: fp16's scaler would leave overflows to the fused part alone
        products = orthogonal_in_bf16 if kind == "bf16" else orthogonal
        return Muon(network.parameters(), config.rate, _matrices(network), products, **options)
    return torch.optim.AdamW(network.parameters(), config.rate, fused=device in ("cpu", "cuda"), **options)


def _matrices(network: nn.Module) -> dict[Tensor, int]:
    found: dict[Tensor, int] = {}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels >= LEAST:
            found[module.weight] = 1
        elif isinstance(module, nn.LSTM):
            found |= {matrix: GATES for name, matrix in module.named_parameters() if name.startswith("weight")}
    return found


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Loads a saved state: of this kind of optimiser or of the other, with a guide's parameters or without.

    ``optimizer`` keeps its options. A parameter whose saved state it cannot use begins anew.

    Raises ValueError for a state of another network.
    """
    now = optimizer.state_dict()
    had, has = (len(state["param_groups"][0]["params"]) for state in (saved, now))
    if had != has:
        raise ValueError(f"its optimiser moves {had} parameters, not {has}")
    numbers = {number for group in now["param_groups"] for number in group["params"]}
    muon = isinstance(getattr(optimizer, "optimizer", optimizer), Muon)  # accelerate's wrapper has it inside
    state = {k: v for k, v in saved["state"].items() if k in numbers and (muon or "exp_avg_sq" in v)}
    optimizer.load_state_dict({"state": state, "param_groups": now["param_groups"]})
