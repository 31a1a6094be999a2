"""What a face does over a clip: its landmarks on one mean face, what came before, and whose face it is.

A clip is described by a row of numbers, and logistic regression tells its class. What stands in the way is identity:
a mouth may hang because its owner is sad, or because it always does. Two remedies: clips of one actor are put on other
actors' faces while it learns, or the mean of an actor's own clips, whose classes nobody needs to know, is taken off.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers import landmarks
from helpers.features import device, digest
from helpers.ravdess import CLASSES
from helpers.workspace import SEED, UserError, replacing, shown

ONSET = 0.5  # seconds: as long a clip is taken to be calm at its start
# scikit-learn's C, 1 / the penalty, chosen on the actors 1 to 19 of the moving stills
STRENGTH, STRENGTH_ON_FACES = 0.01, 0.002  # a clip on 14 faces counts 14 times
COORDINATES = 2 * landmarks.POINTS
CALIBRATED = "with the person's other clips"  # unlabelled: the note of such predictions


@dataclass(frozen=True)
class Movement:
    """A clip in numbers: `times` (n,) in seconds; `shape` (n, 136), the landmarks on the mean face, all x and then all
    y, eyes one apart; `head` (n, 4), where it is (x, y, in mean faces), the logarithm of its size, its tilt (radians).
    """

    times: np.ndarray
    shape: np.ndarray
    head: np.ndarray

    def until(self, time_s):
        """The part of it up to a time, at least its first picture."""
        n = max(1, int(np.searchsorted(self.times, time_s, side="right")))
        return Movement(self.times[:n], self.shape[:n], self.head[:n])

    def some(self, count):
        """`count` of its pictures, evenly taken; all, if it has no more."""
        rows = np.unique(np.linspace(0, len(self.times) - 1, count + 2).round().astype(int)[1:-1])
        return Movement(self.times[rows], self.shape[rows], self.head[rows])

    @property
    def calm(self):
        """(shape, head) of its first `ONSET` seconds: medians."""
        early = self.times <= max(ONSET, self.times[0])
        return np.median(self.shape[early], axis=0), np.median(self.head[early], axis=0)

    @property
    def since_calm(self):
        """How far each picture's shape is from the calm one: array (n, 136)."""
        return self.shape - self.calm[0]


def mean_face(tracks):
    """The mean of many clips' landmarks, array (68, 2): the nose in the middle, the eyes one apart.

    Each is moved, turned and scaled onto the mean of all by the points that an expression moves least (generalised
    Procrustes analysis: Gower, 1975, doi:10.1007/BF02291478). `tracks` are those of training clips.
    """
    points = np.concatenate([track.points[::4] for track in tracks]).astype(float)
    face = points[0]
    for _ in range(3):
        placed = _placed(points, face)[0].mean(axis=0)
        face = np.stack([placed.real, placed.imag], axis=1)
        eyes = [face[eye].mean(axis=0) for eye in (slice(36, 42), slice(42, 48))]
        face = (face - face[landmarks.NOSE].mean(axis=0)) / np.hypot(*(eyes[1] - eyes[0]))
    return face


def movement(track, face):
    """The `Movement` of one clip's `Track`, on a mean face."""
    placed, turn = _placed(track.points.astype(float), face)
    size = 1 / np.abs(turn)
    middle = track.points[:, landmarks.STEADY].mean(axis=1) / np.median(size)
    head = np.column_stack([middle, np.log(size), -np.angle(turn)])
    return Movement(track.times, np.hstack([placed.real, placed.imag]), head)


def _placed(points, face):
    """Landmarks (n, 68, 2) on a face (68, 2) by moving, turning and scaling: complex (n, 68); and the turn, (n,)."""
    whole, onto = points[..., 0] + 1j * points[..., 1], face[landmarks.STEADY] @ [1, 1j]
    steady = whole[:, landmarks.STEADY]
    middle, onto_middle = steady.mean(axis=1, keepdims=True), onto.mean()
    turn = ((steady - middle).conj() * (onto - onto_middle)).sum(axis=1) / (np.abs(steady - middle) ** 2).sum(axis=1)
    return (whole - middle) * turn[:, None] + onto_middle, turn


def summary(moves):
    """What each clip does, in numbers: DataFrame (clips, features). `moves` is {clip: Movement}.

    Of the shape and of the head's movement since the calm start: mean, the 10 and 90 % quantiles (low and high) and the
    range between them, spread, and speed (the mean step between pictures). Of the shape's change since the calm start
    the mean, and where the head is.
    """
    rows = {}
    for clip, move in moves.items():
        steps = {"shape": move.shape, "head": move.head - move.calm[1]}
        row = []
        for x in steps.values():
            speed = np.abs(np.diff(x, axis=0)).mean(axis=0) if len(x) > 1 else np.zeros(x.shape[1])
            low, high = np.quantile(x, [0.1, 0.9], axis=0)
            row += [x.mean(axis=0), low, high, high - low, x.std(axis=0), speed]
        rows[clip] = np.concatenate([*row, move.since_calm.mean(axis=0), move.head.mean(axis=0)])
    kinds = "mean", "low", "high", "range", "spread", "speed"
    names = [
        f"{kind}_{what}_{i}" for what, n in (("shape", COORDINATES), ("head", 4)) for kind in kinds for i in range(n)
    ]
    names += [f"change_{i}" for i in range(COORDINATES)] + [f"place_{i}" for i in range(4)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def plain(numbers):
    """Of a `summary` what is used of a person never seen: how far a landmark goes, and not how low and how high."""
    return numbers.filter(regex="^(?!low_|high_)")


def calibrated(numbers, actors):
    """Of a `summary` all but the ranges, less the mean of each actor's clips: it needs the person's other clips."""
    numbers = numbers.filter(regex="^(?!range_)")
    return numbers - numbers.groupby(np.asarray(actors)).transform("mean")


def on_every_face(numbers, actors):
    """Clips as they are and as they would be on every other actor's face: (DataFrame, rows they are of, int array).

    Of where the landmarks are in the mean, the actor's own mean goes and that of another of these actors comes.
    """
    where = np.flatnonzero(numbers.columns.str.startswith("mean_shape_"))
    means = numbers.iloc[:, where].groupby(np.asarray(actors)).mean()
    bare = numbers.iloc[:, where].to_numpy() - means.loc[actors].to_numpy()
    parts = [numbers.to_numpy(copy=True) for _ in means.index]
    for part, mean in zip(parts, means.to_numpy(), strict=True):
        part[:, where] = bare + mean
    return pd.DataFrame(np.concatenate(parts), columns=numbers.columns), np.tile(np.arange(len(numbers)), len(means))


def regression(strength=STRENGTH):
    """Logistic regression on features of mean 0 and spread 1: scikit-learn's, unfitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))


def fit_clips(numbers, labels, actors=None):
    """A regression on clips; with `actors` it learns each clip on every actor's face.

    Parameters
    ----------
    numbers : DataFrame (n, f) of training clips, as `plain` gives it (or `calibrated`, which needs no actors)
    labels : int array (n,), places in `CLASSES`
    actors : array (n,), or None
    """
    labels = np.asarray(labels)
    if len(set(labels)) < 2:
        raise UserError("There are no clips of training actors (1-14) in two classes: DATA needs some.")
    if actors is None:
        return regression().fit(numbers.to_numpy(), labels)
    numbers, rows = on_every_face(numbers, np.asarray(actors))
    return regression(STRENGTH_ON_FACES).fit(numbers.to_numpy(), labels[rows])


def answers(model, numbers):
    """A regression's class probabilities: float array (n, 5), in the order of `CLASSES` (0 for one it never saw)."""
    p = np.zeros((len(numbers), len(CLASSES)))
    p[:, model.classes_] = model.predict_proba(np.asarray(numbers))
    return p


# --- networks over time -----------------------------------------------------------------------------------------------


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


# --- a new clip -------------------------------------------------------------------------------------------------------


def save(model, face, file):
    """Keep a regression and its mean face as numbers, from which nothing can be executed."""
    scaler, logistic = (model.named_steps[name] for name in ("standardscaler", "logisticregression"))
    with replacing(file, "wb") as target:
        np.savez(
            target, face=face, mean=scaler.mean_, scale=scaler.scale_, weights=logistic.coef_,
            bias=logistic.intercept_, classes=logistic.classes_,
        )  # fmt: skip


def predict(clip, file):
    """What a clip shows from its start up to each moment: DataFrame with time_s, found, predicted and `p_<class>`.

    Parameters
    ----------
    clip : Path of any clip of one face that ffmpeg can read
    file : Path of a model that `save` kept

    A row a picture, `landmarks.FPS` a second; `found` is False where no face was. UserError if the clip can't be read.
    """
    try:
        with np.load(file, allow_pickle=False) as kept:
            model = {name: kept[name] for name in ("face", "mean", "scale", "weights", "bias", "classes")}
    except (OSError, ValueError, KeyError, EOFError):
        raise UserError(f"{shown(file)} is no model of ours: run 06_beyond_the_report, and it is made.") from None
    with tempfile.TemporaryDirectory() as folder:
        track = landmarks.of_clip(Path(clip), Path(folder))
    if track is None:
        raise UserError(f"{shown(clip)} is damaged, too long or no clip: see that it plays.")
    move = movement(track, model["face"])
    numbers = plain(summary({time_s: move.until(time_s) for time_s in move.times})).to_numpy()
    logits = (numbers - model["mean"]) / model["scale"] @ model["weights"].T + model["bias"]
    p = np.zeros((len(numbers), len(CLASSES)))
    p[:, model["classes"]] = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    table = pd.DataFrame(p, columns=[f"p_{name}" for name in CLASSES])
    table.insert(0, "predicted", np.array(CLASSES)[p.argmax(axis=1)])
    table.insert(0, "found", track.found)
    table.insert(0, "time_s", np.round(track.times, 4))
    return table
