"""How sure a score is: intervals over the actors, and two models compared on the frames that both have.

A face's frames are alike, so what a few hundred of them say hangs on a few actors: it is those that are resampled.
Tables as in `helpers.scoring`.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_score, recall_score

from helpers.ravdess import SPLITS
from helpers.workspace import SEED, UserError

FEWEST = 5  # actors, for a word on which of two models is better


def intervals(table, split, over="actor"):
    """95 % intervals of a model's scores on a split: {"accuracy": (low, high), "macro_recall": (low, high)}.

    The middle 95 % of resamples of the actors, not of the frames: a face's frames are alike, so actors are what there
    are few of (the bootstrap, Efron, 1979). With five actors such an interval is rather too narrow than too wide.
    `over` the clips, it is about one actor, or about these actors and no others.
    """
    right, total = _resampled_counts(table[table["split"] == split], over)
    shares = {
        "accuracy": right.sum(axis=1) / total.sum(axis=1),
        "macro_recall": np.nanmean(_share(right, total), axis=1),
    }
    return {name: tuple(np.quantile(values, [0.025, 0.975])) for name, values in shares.items()}


def by_class(table, split="test"):
    """Of each class that a split holds: DataFrame with class, frames, recall, low, high (as in `intervals`), precision.

    Recall is the share of its frames that were found; precision the share of those named so that were it (NaN: none).
    """
    part = table[table["split"] == split]
    classes = sorted(set(part["label"]))
    low, high = np.nanquantile(_share(*_resampled_counts(part)), [0.025, 0.975], axis=0)
    measured = {"labels": classes, "average": None, "zero_division": np.nan}
    return pd.DataFrame({
        "class": classes, "frames": part["label"].value_counts()[classes].to_numpy(),
        "recall": recall_score(part["label"], part["predicted"], **measured), "low": low, "high": high,
        "precision": precision_score(part["label"], part["predicted"], **measured),
    })  # fmt: skip


def _resampled_counts(part, over="actor"):
    """Frames named right and all frames, in each resample of the actors: two int arrays (resamples, classes)."""
    total = pd.crosstab(part[over], part["label"])
    right = part[part["predicted"] == part["label"]]
    right = pd.crosstab(right[over], right["label"]).reindex_like(total).fillna(0)
    drawn = _resamples(len(total))
    return right.to_numpy()[drawn].sum(axis=1), total.to_numpy()[drawn].sum(axis=1)


def _share(right, total):
    return np.divide(right, total, out=np.full(right.shape, np.nan), where=total > 0)


def by_actor(predictions, split="test"):
    """Accuracy of each model on each actor of a split: a DataFrame, actors as rows, models as columns."""
    parts = {model: table[table["split"] == split] for model, table in predictions.items()}
    return pd.DataFrame({
        model: (part["predicted"] == part["label"]).groupby(part["actor"]).mean() for model, part in parts.items()
    })  # fmt: skip


def by_group(table, columns, split="test"):
    """Accuracy on the parts of a split: DataFrame, a row a value of each column: what, value, frames, actors, accuracy,
    low, high. `table` holds predictions, with those columns joined to them. The interval is as in `intervals`, of each
    "actor" over the actor's clips.
    """
    rows, part = [], table[table["split"] == split]
    for what in columns:
        for value, group in part.groupby(what, observed=True):
            low, high = intervals(group, split, "clip" if what == "actor" else "actor")["accuracy"]
            share = (group["predicted"] == group["label"]).mean()
            rows.append([what, str(value), len(group), group["actor"].nunique(), share, low, high])
    return pd.DataFrame(rows, columns=["what", "value", "frames", "actors", "accuracy", "low", "high"])


def gain(first, second, split="test"):
    """How much more of a split's frames `second` names right than `first`; both are predictions, on frames both have.

    Returns a dict: frames and actors, how many both have; difference, a share of the frames, and low and high, its
    interval as in `intervals`; p, how often a difference as large comes of swapping the two models at random, actor by
    actor (the sign-flip test, exact up to 12 actors). With five actors p is never less than 2 / 32.
    """
    found = _better(first, second, split)
    if not len(found):
        raise UserError(f"The two models have no {SPLITS[split]} frames in common: run their notebooks again.")
    actors = found.to_numpy()
    low, high = share_interval(actors[:, 0], actors[:, 1])
    n = len(actors)
    if n <= 12:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(SEED).choice([-1, 1], (10_000, n))
    as_large = np.abs(signs @ actors[:, 0]) >= abs(actors[:, 0].sum())
    p = as_large.mean() if n <= 12 else (as_large.sum() + 1) / (len(signs) + 1)
    frames, difference = int(actors[:, 1].sum()), actors[:, 0].sum() / actors[:, 1].sum()
    return {"frames": frames, "actors": n, "difference": difference, "low": low, "high": high, "p": float(p)}


def _better(first, second, split):
    """Of each actor, on the frames that both have: how many more the second names right (sum), and how many (size)."""
    first, second = (table[table["split"] == split].set_index("path") for table in (first, second))
    both = first.index.intersection(second.index)
    first, second = first.loc[both], second.loc[both]
    better = (second["predicted"] == second["label"]).astype(int) - (first["predicted"] == first["label"])
    return better.groupby(first["actor"]).agg(["sum", "size"])


def verdict(found):
    """What a `gain` says, in words: only an interval that leaves out 0 says that a model is better or worse.

    Of fewer than `FEWEST` actors nothing is said: resamples of so few hardly differ from each other.
    """
    if found["actors"] < FEWEST:
        return f"{found['actors']} actors are too few to tell"
    if found["low"] > 0:
        return "it is better"
    return "it is worse" if found["high"] < 0 else f"{found['actors']} actors cannot tell them apart"


def gain_in_words(predictions, first, second, split="test"):
    """What `gain` says of two of the models in `predictions`, as a sentence of Markdown."""
    found = gain(predictions[first], predictions[second], split)
    mean, low, high = (100 * found[what] for what in ("difference", "low", "high"))
    return (
        f"On the {found['frames']:,} {SPLITS[split]} frames that both have, **{second}** against **{first}**: "
        f"{mean:+.1f} points of accuracy, 95 % interval {low:+.1f} to {high:+.1f} over the actors: {verdict(found)}."
    )


def actors_needed(first, second, difference, split="test"):
    """How many actors it takes to find a difference between two models, as surely as studies are commonly planned.

    That is a two-sided test at 5 % with a power of 80 %: (2.8 s / difference)², where s is the standard deviation, from
    actor to actor, of how much better the second is on the frames that both have. NaN with fewer than `FEWEST` actors.
    """
    actors = _better(first, second, split)
    if len(actors) < FEWEST:
        return np.nan
    return max(FEWEST, float(np.ceil((2.8 * (actors["sum"] / actors["size"]).std() / difference) ** 2)))


def share_interval(right, total):
    """The 95 % interval, as in `intervals`, of a share from counts an actor: (low, high)."""
    drawn = _resamples(len(total))
    return tuple(np.quantile(np.asarray(right)[drawn].sum(1) / np.asarray(total)[drawn].sum(1), [0.025, 0.975]))


def _resamples(actors, repeats=2000):
    return np.random.default_rng(SEED).integers(0, actors, (repeats, actors))
