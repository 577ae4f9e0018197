"""What a word adds to the gradient."""

from __future__ import annotations

import pytest
import torch

from crnn.training.trainer import HOPELESS, bounded


def test_losses_below_the_bound_are_left() -> None:
    losses = torch.linspace(0, HOPELESS, 50)
    assert torch.equal(bounded(losses), losses)


def test_above_it_they_keep_their_order_and_no_gradient_is_longer_than_at_the_bound() -> None:
    losses = torch.tensor([0.5, HOPELESS, 1.5, 4.0, 40.0], requires_grad=True)
    values = bounded(losses)
    assert (values.diff() > 0).all()
    values.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    # A loss is so many times as long a gradient as its word's probability falls: what is left of it is the bound.
    assert (losses * losses.grad).detach()[2:].tolist() == pytest.approx([HOPELESS] * 3)
    assert losses.grad[:2].tolist() == [1, 1]


def test_a_loss_of_nothing_has_a_gradient() -> None:
    nothing = torch.zeros(1, requires_grad=True)
    bounded(nothing).sum().backward()  # type: ignore[no-untyped-call]
    assert nothing.grad is not None and nothing.grad.item() == 1
