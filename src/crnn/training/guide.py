"""An attention branch that guides the convolutions during training and is thrown away after it.

CTC alone tells a network what a word says and leaves it to find out where. A decoder that writes the word letter by
letter, and looks for each in the columns that the LSTMs read, tells it more; its loss is added to CTC's (Hu et al.,
"GTC: Guided Training of CTC Towards Efficient and Accurate Scene Text Recognition", AAAI 2020; there the CTC loss does
not reach the convolutions, here both do). What is exported has no part of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.spec import ModelSpec
from crnn.training.network import CRNN

WIDTH, HEADS, LAYERS, DROPOUT = 256, 4, 2, 0.1
ALONE = 250  # steps in which only the branch learns: at first it has nothing to tell
HIDDEN = 0.25  # share of the letters before that it does not see, so that it looks instead of guessing words
SMOOTHING = 0.05  # of the labels
TIMES = 2.0  # its learning rate, in those of the network
CLIP = 1.0  # the largest norm of its gradient


class Guide(nn.Module):
    """A transformer decoder (Vaswani et al. 2017) over the columns of ``network``, 1.6 million parameters.

    It sees the columns of each forward pass of ``network``, the latest of which :meth:`losses` is about. Class 0, CTC's
    blank, stands for the beginning and the end of a word.
    """

    steps: Tensor

    def __init__(self, network: CRNN, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        classes = spec.charset.classes
        with torch.random.fork_rng(devices=[]):  # the same in all processes, and the network's values stay as they are
            torch.manual_seed(seed)
            self.memory = nn.Linear(512, WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            self.column = nn.Parameter(0.02 * torch.randn(spec.steps, 1, WIDTH))
            self.letter = nn.Embedding(classes + 1, WIDTH)  # the last one stands for a letter that is not seen
            self.place = nn.Parameter(0.02 * torch.randn(spec.steps + 1, 1, WIDTH))
            layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 2 * WIDTH, DROPOUT, norm_first=True)
            self.decoder = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(WIDTH))
            self.scores = nn.Linear(WIDTH, classes)
        self.register_buffer("steps", torch.tensor(0))
        self._seed = seed
        self._columns: Tensor | None = None
        network.rnn.register_forward_pre_hook(self._look)

    def _look(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._columns = inputs[0]

    def losses(self, targets: Tensor, lengths: Tensor, first: int) -> Tensor:
        """Cross-entropy per letter of the words just seen: float32[N].

        ``targets`` int64, the labels joined, and ``lengths`` int64[N] are as in :class:`crnn.training.data.Batch`;
        ``first`` is the first sample's number. What is hidden and dropped depends on it and the seed alone, so that a
        run that was stopped goes on as it would have.
        """
        columns, self._columns = self._columns, None
        assert columns is not None
        if self.steps < ALONE:
            columns = columns.detach()
        device = columns.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed + first)
            given, wanted = (each.to(device) for each in _written(targets, lengths, self.letter.num_embeddings - 1))
            memory = self.norm(self.memory(columns.float()) + self.column)
            query = self.letter(given) + self.place[: len(given)]
            later = torch.full((len(given),) * 2, float("-inf"), device=device).triu(1)
            scores = self.scores(self.decoder(query, memory, tgt_mask=later))
        each = F.cross_entropy(
            scores.flatten(0, 1), wanted.flatten(), reduction="none", ignore_index=-1, label_smoothing=SMOOTHING
        )
        return each.view_as(wanted).sum(0) / (lengths.to(device) + 1)

    def group(self, rate: float) -> dict[str, Any]:
        """Its parameters, for the network's optimiser."""
        return {"params": list(self.parameters()), "lr": TIMES * rate, "times": TIMES}


def _written(targets: Tensor, lengths: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """(what the decoder is given, what it is to write) at each place: int64[longest + 1, N]; -1: nothing."""
    given = torch.zeros(int(lengths.max()) + 1, len(lengths), dtype=torch.long)
    wanted = torch.full_like(given, -1)
    for n, word in enumerate(torch.split(targets, lengths.tolist())):
        given[1 : len(word) + 1, n] = word
        wanted[: len(word), n] = word
        wanted[len(word), n] = 0
    given[(torch.rand(given.shape) < HIDDEN) & (given > 0)] = hidden
    return given, wanted
