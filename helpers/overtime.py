"""Small networks that see a clip's landmarks step by step: pooling, a recurrent layer, a convolution over time."""

import numpy as np
import torch
from torch import nn

from helpers.features import device, digest
from helpers.ravdess import CLASSES
from helpers.workspace import SEED


class Sequences:
    """Clips as one array for `training.fit`: `sequences[indices]` is a float tensor (m, longest, features + 1).

    The last number of each step is 1 where the clip has a picture and 0 after its end.
    """

    def __init__(self, moves, scale_by):
        """`scale_by`: which clips, by place, mean and spread are taken from."""
        steps = [np.hstack([m.shape, m.since_calm, m.head - m.calm[1]]) for m in moves]
        known = np.concatenate([steps[i] for i in scale_by])
        mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
        self.table = np.zeros((len(steps), max(map(len, steps)), steps[0].shape[1] + 1), np.float32)
        for row, step in zip(self.table, steps, strict=True):
            row[: len(step), :-1], row[: len(step), -1] = (step - mean) / spread, 1
        self.key = digest(self.table.tobytes())

    def __len__(self):
        return len(self.table)

    def __getitem__(self, indices):
        return torch.from_numpy(self.table[indices]).to(device())


class OverTime(nn.Module):
    """A clip's steps (n, t, features + 1) to logits (n, 5). `kind` is what happens between the steps.

    `"pooling"` nothing; `"gru"` a recurrent layer, both ways (Cho et al., 2014, arXiv:1406.1078); `"convolution"` three
    layers of convolution over time (Bai et al., 2018, arXiv:1803.01271). Then the mean and the spread over the steps,
    each weighed by how much it shows, which is learned too (attention: Bahdanau et al., 2015, arXiv:1409.0473).
    """

    def __init__(self, kind, features, hidden=64, dropout=0.3, seed=SEED):
        super().__init__()
        self.kind = kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.step = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout))
            width = 2 * hidden if kind == "gru" else hidden
            if kind == "gru":
                self.recurrent = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
            elif kind == "convolution":
                layers = [nn.Conv1d(hidden, hidden, 3, padding=d, dilation=d) for d in (1, 2, 4)]
                self.layers = nn.ModuleList(layers)
            self.shows = nn.Linear(width, 1)
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, len(CLASSES)))

    def forward(self, x):
        x, there = x[..., :-1], x[..., -1:]
        h = self.step(x)
        if self.kind == "gru":
            lengths = there.sum((1, 2)).long().cpu()
            packed = nn.utils.rnn.pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
            out, _ = self.recurrent(packed)
            h, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        elif self.kind == "convolution":
            for layer in self.layers:
                h = h + nn.functional.gelu(layer((h * there).transpose(1, 2)).transpose(1, 2))
        weight = self.shows(h).masked_fill(there == 0, -1e9).softmax(1)
        mean = (weight * h).sum(1)
        spread = ((weight * (h - mean[:, None]) ** 2).sum(1) + 1e-4).sqrt()
        return self.head(torch.cat([mean, spread], 1))
