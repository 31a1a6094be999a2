"""What a face does over a clip: its landmarks on one mean face, what came before, and whose face it is.

A clip is described by a row of numbers, and logistic regression tells its class. What stands in the way is identity:
a mouth may hang because its owner is sad, or because it always does. Three remedies: clips of one actor are put on
other actors' faces while it learns (`on_every_face`); a clip is described by its course around its own middle, in
measures that an expression moves more than a face's build does (`course`); or the mean of an actor's own clips, whose
classes nobody needs to know, is taken off (`calibrated`).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import landmarks
from helpers.ravdess import CLASSES
from helpers.workspace import UserError, replacing, shown

ONSET = 0.5  # seconds: as long a clip is taken to be calm at its start
# scikit-learn's C, 1 / the penalty, chosen on the actors 1 to 19 of the moving stills
STRENGTH, STRENGTH_ON_FACES = 0.01, 0.002  # a clip on 14 faces counts 14 times
COORDINATES = 2 * landmarks.POINTS
PARTS = 10  # of a clip, equally long, in `course`
MEASURES = {  # name: (coordinate, the mean of these points, less that of these); y runs downwards from the nose
    "inner brow, right": ("y", [20, 21], []),
    "inner brow, left": ("y", [22, 23], []),
    "outer brow, right": ("y", [17, 18], []),
    "outer brow, left": ("y", [25, 26], []),
    "between the brows": ("x", [22], [21]),
    "eye, right": ("y", [40, 41], [37, 38]),
    "eye, left": ("y", [46, 47], [43, 44]),
    "width of the nose": ("x", [35], [31]),
    "wings of the nose": ("y", [31, 35], []),
    "corner of the mouth, right": ("y", [48], []),
    "corner of the mouth, left": ("y", [54], []),
    "width of the mouth": ("x", [54], [48]),
    "between the lips": ("y", [65, 66, 67], [61, 62, 63]),
    "upper lip": ("y", [50, 51, 52], []),
    "lower lip": ("y", [56, 57, 58], []),
    "chin": ("y", [7, 8, 9], []),
    "width of the jaw": ("x", [13], [3]),
}
HEAD = ["head, x", "head, y", "head, size", "head, tilt"]
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


def measures(move):
    """What is measured of each picture: array (n, 21), in the order of `MEASURES` and `HEAD`; in eye distances."""
    x, y = move.shape[:, : landmarks.POINTS], move.shape[:, landmarks.POINTS :]
    taken = [({"x": x, "y": y}[coordinate], points, less) for coordinate, points, less in MEASURES.values()]
    means = [at[:, points].mean(axis=1) - (at[:, less].mean(axis=1) if less else 0) for at, points, less in taken]
    return np.column_stack([*means, move.head])


def course(moves):
    """How each clip goes, in numbers: DataFrame (clips, features). `moves` is {clip: Movement}.

    Its length in seconds and, of each of `MEASURES` and `HEAD`, the mean over the clip. All else is relative to the
    median over the clip, so that it says little of whose face it is: the 5 and 95 % quantiles (low and high), the
    logarithms of the spread and of the speed (the mean step between pictures), and the mean in each of `PARTS` parts.
    """
    rows = {}
    for clip, move in moves.items():
        x = measures(move)
        around = x - np.median(x, axis=0)
        speed = np.abs(np.diff(around, axis=0)).mean(axis=0) if len(x) > 1 else np.zeros(x.shape[1])
        low, high = np.quantile(around, [0.05, 0.95], axis=0)
        moments = np.linspace(move.times[0], move.times[-1], 4 * PARTS)
        between = np.column_stack([np.interp(moments, move.times, one) for one in around.T])
        kinds = {"mean": x.mean(axis=0), "low": low, "high": high}
        kinds |= {"spread": np.log(around.std(axis=0) + 1e-3), "speed": np.log(speed + 1e-3)}
        kinds |= {f"part {k}": part for k, part in enumerate(between.reshape(PARTS, 4, -1).mean(axis=1), 1)}
        rows[clip] = np.concatenate([[move.times[-1]], *kinds.values()])
    names = ["length", *(f"{kind} of {name}" for kind in kinds for name in (*MEASURES, *HEAD))]
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
    """A regression on clips; with `actors` it learns each clip on every actor's face (`on_every_face`).

    Parameters
    ----------
    numbers : DataFrame (n, f) of training clips: a `course`; or `plain` of a `summary`, which may have actors
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
    numbers = course({time_s: move.until(time_s) for time_s in move.times}).to_numpy()
    logits = (numbers - model["mean"]) / model["scale"] @ model["weights"].T + model["bias"]
    p = np.zeros((len(numbers), len(CLASSES)))
    p[:, model["classes"]] = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    table = pd.DataFrame(p, columns=[f"p_{name}" for name in CLASSES])
    table.insert(0, "predicted", np.array(CLASSES)[p.argmax(axis=1)])
    table.insert(0, "found", track.found)
    table.insert(0, "time_s", np.round(track.times, 4))
    return table
