"""One network from several that have a beginning in common: the weighted mean of their weights.

Networks that went on from the same weights may lie in one valley of the loss, and their mean, which costs no more to
run than each, reads better than any of them (Izmailov et al. 2018; Wortsman et al., "Model soups", ICML 2022). The mean
of networks that were begun apart reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum

import torch
from torch import Tensor

from crnn.errors import CheckpointError, OptionError
from crnn.spec import ModelSpec
from crnn.training.folding import fold
from crnn.training.initial import initial_path, read_weights


def average(weights: Sequence[tuple[str, float]]) -> tuple[dict[str, Tensor], ModelSpec]:
    """(float32 weights without batch normalisation, their spec), the mean of ``weights``: (name, parts) pairs.

    A name is what ``crnn train --init`` takes. Batch normalisation is folded away first, for what is averaged has to
    be what is computed with. Sums are in float64. The licence is all of theirs, as SPDX writes it, or unknown if one
    is. The lineage says what was averaged after that of the first; the
    temperature is 1 again, as none of theirs suits the mean.

    Raises OptionError if there are fewer than two or a part is not above 0, CheckpointError if they are not of one
    network: another charset, preparation of pictures, trunk or number of units.
    """
    if len(weights) < 2:
        raise OptionError("an average needs the weights of two networks or more")
    if not all(parts > 0 for _, parts in weights):
        raise OptionError("an average needs parts above 0 of each of its weights")
    whole = fsum(parts for _, parts in weights)
    sums: dict[str, Tensor] = {}
    specs: list[ModelSpec] = []
    for name, parts in weights:
        path = initial_path(name)
        state_dict, spec = read_weights(path)
        specs.append(spec)
        _check_same(weights[0][0], specs[0], name, spec)
        for key, tensor in fold(state_dict).items():
            share = tensor.double() * (parts / whole)
            if sums.setdefault(key, torch.zeros_like(share)).shape != share.shape:
                raise CheckpointError(f"{name} has LSTMs of another size than {weights[0][0]}: they have no mean")
            sums[key] += share
    made_of = ", ".join(f"{parts / whole:.0%} {initial_path(name).name}" for name, parts in weights)
    licences = list(dict.fromkeys(spec.licence for spec in specs))
    several = [f"({licence})" if " " in licence else licence for licence in licences]
    licence = "" if "" in licences else licences[0] if len(licences) == 1 else " AND ".join(several)
    first = specs[0]
    spec = replace(first, temperature=1.0, licence=licence, lineage=(*first.lineage, f"averaged: {made_of}"))
    return {key: value.float() for key, value in sums.items()}, spec


def _check_same(first: str, expected: ModelSpec, name: str, spec: ModelSpec) -> None:
    for what in ("charset", "width", "channels", "resampling", "mean", "std", "trunk"):
        if getattr(spec, what) != getattr(expected, what):
            raise CheckpointError(f"{name} has another {what} than {first}: networks that differ in it have no mean")
