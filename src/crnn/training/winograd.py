"""3 x 3 convolutions in fewer multiplications, for training in float32 on a processor.

Winograd's minimal filtering F(4 x 4, 3 x 3) as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
(2015): an output tile of 4 x 4 pixels takes 36 products for each pair of channels instead of 144. All three products of
training (output, gradient of the input, gradient of the weights) become batches of 36 matrix products, between
transforms that are small matrix products themselves, one a tile, so that each stays in the processor's cache. Rounding
errors are about ten times those of the direct sum (1e-5 of the largest value).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# The paper's B^T (input), G (filter) and A^T (output) for F(4, 3).
_Matrix = tuple[tuple[float, ...], ...]
_INPUT: _Matrix = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0))
_INPUT += ((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))
_FILTER: _Matrix = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6))
_FILTER += ((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))
_OUTPUT: _Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _both_ways(matrix: _Matrix) -> Tensor:
    """The transform of rows and columns of a tile at once: a matrix on the tile written as one column."""
    one_way = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one_way, one_way)


_OF_INPUT, _OF_FILTER, _OF_OUTPUT = _both_ways(_INPUT), _both_ways(_FILTER), _both_ways(_OUTPUT)


class _Size(NamedTuple):
    """``number`` pictures of ``channels`` x ``height`` x ``width``, cut into ``rows`` x ``columns`` tiles."""

    number: int
    channels: int
    height: int
    width: int

    @property
    def rows(self) -> int:
        return -(-self.height // 4)

    @property
    def columns(self) -> int:
        return -(-self.width // 4)

    @property
    def tiles(self) -> int:
        return self.number * self.rows * self.columns


class WinogradConv2d(nn.Conv2d):
    """``nn.Conv2d`` of 3 x 3, stride 1, padding 1: the same parameters, the same result but for rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """float[N, C, H, W] -> float[N, K, H, W]; fastest on ``torch.channels_last``."""
        output: Tensor = _Convolution.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return output


class _Convolution(torch.autograd.Function):
    """T tiles of 36 numbers (6 x 6) a channel: [T, 36, C] for the input, [K, 36, C] for the filters."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        size = _Size(*images.shape)
        tiles = _each(_OF_INPUT, _tiles(images, size))
        filters = _each(_OF_FILTER, weight.permute(0, 2, 3, 1).reshape(len(weight), 9, size.channels))
        products = torch.bmm(tiles.transpose(0, 1), filters.permute(1, 2, 0))  # [36, T, K]
        output = _joined(_each(_OF_OUTPUT, products.transpose(0, 1)), size)
        ctx.save_for_backward(tiles, filters)
        ctx.size = size
        return torch.add(output, bias).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        tiles, filters = ctx.saved_tensors
        size: _Size = ctx.size
        gradient = gradient.permute(0, 2, 3, 1)
        of_products = _each(_OF_OUTPUT.T, _cut(gradient, size))
        of_filters = torch.bmm(of_products.permute(1, 2, 0), tiles.transpose(0, 1))  # [36, K, C]
        of_weight = _each(_OF_FILTER.T, of_filters.transpose(0, 1)).view(len(filters), 3, 3, -1).permute(0, 3, 1, 2)
        of_images = None
        if ctx.needs_input_grad[0]:
            of_tiles = torch.bmm(of_products.transpose(0, 1), filters.transpose(0, 1))  # [36, T, C]
            of_images = _laid_over(_each(_OF_INPUT.T, of_tiles.transpose(0, 1)), size)
        return of_images, of_weight, gradient.sum((0, 1, 2))


def _each(transform: Tensor, values: Tensor) -> Tensor:
    """``transform`` of each matrix in ``values``, as one batch of products."""
    return torch.bmm(transform.to(values.dtype).expand(len(values), -1, -1), values)


def _tiles(images: Tensor, size: _Size) -> Tensor:
    """[N, C, H, W] -> [T, 36, C]: the 6 x 6 pixels under each tile, which overlap its neighbours' by two."""
    padded = images.new_empty(size.number, 4 * size.rows + 2, 4 * size.columns + 2, size.channels)
    padded[:, 1 : size.height + 1, 1 : size.width + 1] = images.permute(0, 2, 3, 1)
    for border in (padded[:, 0], padded[:, size.height + 1 :], padded[:, :, 0], padded[:, :, size.width + 1 :]):
        border.zero_()
    picture, row, column, _ = padded.stride()
    shape = (size.number, size.rows, size.columns, 6, 6, size.channels)
    tiles = padded.as_strided(shape, (picture, 4 * row, 4 * column, row, column, 1))
    return tiles.reshape(size.tiles, 36, size.channels)


def _laid_over(tiles: Tensor, size: _Size) -> Tensor:
    """[T, 36, C] -> [N, C, H, W], the transpose of :func:`_tiles`: overlapping pixels are added up."""
    rows, columns = size.rows, size.columns
    tiles = tiles.view(size.number, rows, columns, 6, 6, size.channels).transpose(2, 3)  # [N, rows, 6, columns, 6, C]
    padded = tiles.new_empty(size.number, 4 * rows + 4, 4 * columns + 4, size.channels)
    grid = padded.view(size.number, rows + 1, 4, columns + 1, 4, size.channels)
    grid[:, :rows, :, :columns] = tiles[:, :, :4, :, :4]
    grid[:, rows].zero_()
    grid[:, :, :, columns].zero_()
    grid[:, 1:, :2, :columns] += tiles[:, :, 4:, :, :4]
    grid[:, :rows, :, 1:, :2] += tiles[:, :, :4, :, 4:]
    grid[:, 1:, :2, 1:, :2] += tiles[:, :, 4:, :, 4:]
    return padded[:, 1 : size.height + 1, 1 : size.width + 1].permute(0, 3, 1, 2)


def _joined(tiles: Tensor, size: _Size) -> Tensor:
    """[T, 16, K] -> [N, H, W, K]: output tiles side by side, what sticks out cut off."""
    grid = tiles.view(size.number, size.rows, size.columns, 4, 4, -1).transpose(2, 3)
    whole = grid.reshape(size.number, 4 * size.rows, 4 * size.columns, -1)
    return whole[:, : size.height, : size.width]


def _cut(output: Tensor, size: _Size) -> Tensor:
    """[N, H, W, K] -> [T, 16, K], the transpose of :func:`_joined`."""
    count, channels = size.number, output.shape[3]
    if (size.height, size.width) != (4 * size.rows, 4 * size.columns):
        whole = output.new_zeros(count, 4 * size.rows, 4 * size.columns, channels)
        whole[:, : size.height, : size.width] = output
        output = whole
    grid = output.reshape(count, size.rows, 4, size.columns, 4, channels).transpose(2, 3)
    return grid.reshape(size.tiles, 16, channels)
