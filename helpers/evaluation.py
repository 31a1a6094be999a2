"""From predictions to numbers: tables in, tables out. Nothing here knows a network or a clip.

Every model ends in `predictions/<model>.csv`, a row a frame, with `COLUMNS`; so any model can be compared with any
other. `note` says in a few words what a reader must know of every number that comes of the file ("random trunk",
"SIMULATED"); it is empty for an honest measurement with nothing to add.
"""

import json

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score

from helpers.ravdess import CLASSES, SPLITS
from helpers.workspace import REPOSITORY, SEED, UserError, replacing, shown

PROBABILITIES = [f"p_{name}" for name in CLASSES]
NO_CLASS = "no class"  # predicted where a model named none of the five: always a miss
COLUMNS = ["path", "clip", "actor", "split", "label", "predicted", *PROBABILITIES, "note"]


def write_predictions(path, frames, probabilities, note=""):
    """Write a model's predictions and return them as a table.

    Parameters
    ----------
    frames : DataFrame (n rows) of `frames.csv`
    probabilities : array (n, 5), columns in the order of `CLASSES`; a row of zeros is no answer, and so a miss
    note : what every number that comes of these must be read with
    """
    table = frames[["path", "clip", "actor", "split", "label"]].reset_index(drop=True)
    table["predicted"] = _named(probabilities)
    table[PROBABILITIES] = np.round(probabilities, 6)
    table["note"] = note
    with replacing(path) as file:
        table.to_csv(file, index=False)
    return table


def read_predictions(path):
    """Read one model's predictions; UserError if it is no such table."""
    table = pd.read_csv(path, keep_default_na=False)
    if missing := [column for column in COLUMNS if column not in table]:
        raise UserError(f"{shown(path)} lacks the columns {', '.join(missing)}: write it with write_predictions.")
    if unknown := sorted((set(table["label"]) | set(table["predicted"]) - {NO_CLASS}) - set(CLASSES)):
        raise UserError(f"{shown(path)} has classes that are not ours: {', '.join(map(str, unknown))}.")
    sums = table[PROBABILITIES].sum(axis=1)
    if wrong := int((~np.isclose(sums, (table["predicted"] != NO_CLASS).astype(float), atol=1e-4)).sum()):
        raise UserError(
            f"{shown(path)} has {wrong} frames whose probabilities do not add up to 1 (to 0 for “{NO_CLASS}”): "
            "write it with write_predictions."
        )
    if twice := int(table["path"].duplicated().sum()):
        raise UserError(f"{shown(path)} has {twice} frames more than once: each frame may stand there once.")
    return table


def _named(probabilities):
    return np.where(np.any(probabilities, axis=1), np.array(CLASSES)[np.argmax(probabilities, axis=1)], NO_CLASS)


def read_all_predictions(folder):
    """Every `<model>.csv` in a folder: {model: table}, in alphabetical order."""
    return {path.stem: read_predictions(path) for path in sorted(folder.glob("*.csv"))}


def scores(table):
    """A row a split: split, frames, accuracy, macro_recall (the mean of the classes' recalls, 0.2 by chance), note."""
    rows = []
    for split in SPLITS:
        part = table[table["split"] == split]
        if len(part):
            truth, predicted = part["label"], part["predicted"]
            recall = recall_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)
            rows.append([split, len(part), accuracy_score(truth, predicted), recall, part["note"].iloc[0]])
    return pd.DataFrame(rows, columns=["split", "frames", "accuracy", "macro_recall", "note"])


def clip_accuracy(table, split):
    """The share of a split's clips that are named right by the mean of their frames' probabilities."""
    part = table[table["split"] == split]
    clips = part.groupby("clip").agg({"label": "first", **dict.fromkeys(PROBABILITIES, "mean")})
    return float((_named(clips[PROBABILITIES].to_numpy()) == clips["label"]).mean())


def intervals(table, split):
    """95 % intervals of a model's scores on a split: {"accuracy": (low, high), "macro_recall": (low, high)}.

    The middle 95 % of resamples of the actors, not of the frames: a face's frames are alike, so actors are what there
    are few of (the bootstrap, Efron, 1979). With five actors such an interval is rather too narrow than too wide.
    """
    part = table[table["split"] == split]
    total = pd.crosstab(part["actor"], part["label"])
    right = part[part["predicted"] == part["label"]]
    right = pd.crosstab(right["actor"], right["label"]).reindex_like(total).fillna(0)
    drawn = _resamples(len(total))
    right, total = right.to_numpy()[drawn].sum(axis=1), total.to_numpy()[drawn].sum(axis=1)  # resamples x classes
    recall = np.divide(right, total, out=np.full(right.shape, np.nan), where=total > 0)
    shares = {"accuracy": right.sum(axis=1) / total.sum(axis=1), "macro_recall": np.nanmean(recall, axis=1)}
    return {name: tuple(np.quantile(values, [0.025, 0.975])) for name, values in shares.items()}


def by_actor(predictions, split="test"):
    """Accuracy of each model on each actor of a split: a DataFrame, actors as rows, models as columns."""
    parts = {model: table[table["split"] == split] for model, table in predictions.items()}
    return pd.DataFrame({
        model: (part["predicted"] == part["label"]).groupby(part["actor"]).mean() for model, part in parts.items()
    })  # fmt: skip


def by_group(table, columns, split="test"):
    """Accuracy on the parts of a split: DataFrame, a row a value of each column: what, value, frames, actors, accuracy,
    low, high (as in `intervals`). `table` holds predictions, with those columns joined to them.
    """
    rows, part = [], table[table["split"] == split]
    for what in columns:
        for value, group in part.groupby(what, observed=True):
            low, high = intervals(group, split)["accuracy"]
            share = (group["predicted"] == group["label"]).mean()
            rows.append([what, str(value), len(group), group["actor"].nunique(), share, low, high])
    return pd.DataFrame(rows, columns=["what", "value", "frames", "actors", "accuracy", "low", "high"])


def gain(first, second, split="test"):
    """How much more of a split's frames `second` names right than `first`; both are predictions, on frames both have.

    Returns a dict: frames and actors, how many both have; difference, a share of the frames, and low and high, its
    interval as in `intervals`; p, how often a difference as large comes of swapping the two models at random, actor by
    actor (the sign-flip test, exact up to 12 actors). With five actors p is never less than 2 / 32.
    """
    first, second = (table[table["split"] == split].set_index("path") for table in (first, second))
    both = first.index.intersection(second.index)
    if not len(both):
        raise UserError(f"The two models have no {SPLITS[split]} frames in common: run their notebooks again.")
    first, second = first.loc[both], second.loc[both]
    better = (second["predicted"] == second["label"]).astype(int) - (first["predicted"] == first["label"])
    actors = better.groupby(first["actor"]).agg(["sum", "size"]).to_numpy()
    sums = actors[_resamples(len(actors))].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    n = len(actors)
    if n <= 12:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(SEED).choice([-1, 1], (10_000, n))
    p = np.mean(np.abs(signs @ actors[:, 0]) >= abs(actors[:, 0].sum()))
    return {"frames": len(both), "actors": n, "difference": better.mean(), "low": low, "high": high, "p": float(p)}


def _resamples(actors, repeats=2000):
    return np.random.default_rng(SEED).integers(0, actors, (repeats, actors))


def verdict(found):
    """What a `gain` says, in words: only an interval that leaves out 0 says that a model is better or worse."""
    if found["low"] > 0:
        return "it is better"
    return "it is worse" if found["high"] < 0 else f"{found['actors']} actors cannot tell them apart"


def comparisons(predictions, base, split="test"):
    """Each model against `base` on the frames that both have: a row a model, shares in percent; for Markdown."""
    rows = []
    for model, table in predictions.items():
        if model != base and (table["split"] == split).any():
            found = gain(predictions[base], table, split)
            low, high = (f"{100 * found[end]:+.1f}" for end in ("low", "high"))
            row = [f"{100 * found['difference']:+.1f}", f"{low} to {high}", f"{found['p']:.2f}", verdict(found)]
            rows.append([model, f"{found['frames']:,}", *row, table["note"].iloc[0]])
    names = ["Model", "Frames of both", f"Points more than {base}", "95 % interval", "p (sign flip)", "So", "Note"]
    return pd.DataFrame(rows, columns=names)


def confusion(table, split):
    """Counts of frames, rows the true class, columns the predicted one, as in the report's tables (without totals).

    A sixth column, "no class", is there where the model named none of the five at least once.
    """
    part = table[table["split"] == split]
    counts = pd.crosstab(part["label"].to_numpy(), part["predicted"].to_numpy())
    names = [*CLASSES, NO_CLASS] if NO_CLASS in counts else list(CLASSES)
    return pd.DataFrame(counts, list(CLASSES), names).fillna(0).astype(int).rename_axis(index=None, columns=None)


def most_confident(table, group, order=None, of=PROBABILITIES):
    """Of each value of a column, the frame whose predicted class has the highest probability: DataFrame, a row each.

    No actor stands there twice while another is left for that value. `order` is the values' order, else sorted; `of`
    are the columns whose highest counts. The column `confidence` is added.
    """
    table = table.assign(confidence=table[of].max(axis=1))
    table, chosen = table.sort_values(["confidence", "path"], ascending=[False, True]), []
    for value in sorted(set(table[group])) if order is None else order:
        rows = table[table[group] == value]
        fresh = rows[~rows["actor"].isin([row.actor for row in chosen])]
        chosen += list((fresh if len(fresh) else rows).head(1).itertuples())
    return table.loc[[row.Index for row in chosen]]


def examples(table, split="val"):
    """Table 2 of the report: (right, wrong), of each class the most confident right frame and the most confident wrong.

    Both are DataFrames in the report's order of classes, as `most_confident` chooses; a class may be lacking.
    """
    part, order = table[table["split"] == split], list(report_2020()["examples"])
    right = part["predicted"] == part["label"]
    return tuple(most_confident(rows, "label", order).set_index("label") for rows in (part[right], part[~right]))


def examples_markdown(right, wrong):
    """`examples` as Markdown, the pictures as q1.png to q10.png in imgs/, beside what the report's examples were."""
    rows, theirs = [], report_2020()["examples"]
    for i, label in enumerate(theirs):
        cells = [label]
        for chosen, name in ((right, f"q{2 * i + 1}"), (wrong, f"q{2 * i + 2}")):
            there = label in chosen.index
            answer = chosen.loc[label, "predicted"] if there else "none"
            cells += [f"![{label}, taken for {answer}](imgs/{name}.png)" if there else "", answer]
        rows.append([*cells, f"{label}, {theirs[label]}"])
    return markdown(
        pd.DataFrame(rows, columns=["Class", "Right", "Predicted", "Wrong", "Predicted", "The report's two"])
    )


def with_totals(counts):
    """A confusion matrix with the report's Total row and column."""
    table = counts.copy()
    table["Total"] = table.sum(axis=1)
    table.loc["Total"] = table.sum()
    return table


def report_2020():
    """What the 2020 report published: {"frames": {split: Series}, "confusion": {split: DataFrame}, "accuracy": …}."""
    published = json.loads((REPOSITORY / "data" / "report_2020.json").read_text("utf-8"))
    classes = published["classes"]
    published["frames"] = {split: pd.Series(n, classes) for split, n in published["frames"].items()}
    published["confusion"] = {split: pd.DataFrame(m, classes, classes) for split, m in published["confusion"].items()}
    return published


def right_of_all(counts):
    """(right, all) of a confusion matrix."""
    return int(np.trace(counts.to_numpy())), int(counts.to_numpy().sum())


def in_words(model, table, data):
    """What the test actors say about a model, as a paragraph of Markdown."""
    note = table["note"].iloc[0]
    where = f"the {data}, {note}" if note else f"the {data}"
    counts = confusion(table, "test")
    if not counts.to_numpy().sum():
        return f"**{model}**: there are no predictions for test frames of the {where[4:]}."
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    recall = pd.Series(np.diag(share), CLASSES)
    mistakes = share.mask(np.eye(*share.shape, dtype=bool)).stack()
    (played, said), how_often = mistakes.idxmax(), mistakes.max()
    mistake = f"find none of the five in {played}" if said == NO_CLASS else f"take {played} for {said}"
    right, n = right_of_all(counts)
    clips = clip_accuracy(table, "test")
    return (
        f"On {where}, **{model}** names {right / n:.1%} of {n:,} test frames correctly, and {clips:.1%} of test clips "
        f"by the mean probability over a clip's frames. It finds {recall.idxmax()} best ({recall.max():.0%} of its "
        f"frames) and {recall.idxmin()} worst ({recall.min():.0%}). Its most frequent mistake is to {mistake} "
        f"({how_often:.0%} of {played} frames)."
    )


def gain_in_words(predictions, first, second, split="test"):
    """What `gain` says of two of the models in `predictions`, as a sentence of Markdown."""
    found = gain(predictions[first], predictions[second], split)
    mean, low, high = (100 * found[what] for what in ("difference", "low", "high"))
    return (
        f"On the {found['frames']:,} {SPLITS[split]} frames that both have, **{second}** against **{first}**: "
        f"{mean:+.1f} points of accuracy, 95 % interval {low:+.1f} to {high:+.1f} over the actors: {verdict(found)}."
    )


def each_frame_once():
    """The report's accuracy as it counted and on each frame once, from its matrices and counts: a DataFrame.

    Each frame once is the mean of its classes' recalls, weighed by the numbers of frames that it says it had. It takes
    for granted that a frame which was counted twice was predicted twice alike.
    """
    rows, published = [], report_2020()
    for split, counts in published["confusion"].items():
        (right, n), frames = right_of_all(counts), published["frames"][split]
        once = float((np.diag(counts) / counts.sum(axis=1) * frames).sum() / frames.sum())
        rows.append([SPLITS[split], n, right / n, int(frames.sum()), once])
    return pd.DataFrame(rows, columns=["split", "counted", "accuracy", "frames", "accuracy_once"])


def counted_as_in_the_report(table, split):
    """A model's accuracy if its classes were counted as often as the report counted its own."""
    published, counts = report_2020(), confusion(table, split)
    times = published["confusion"][split].sum(axis=1) / published["frames"][split]
    return float((np.diag(counts) * times).sum() / (counts.sum(axis=1) * times).sum())


def results(predictions, data):
    """The results table: a row a model and split, what always giving one answer scores, the report's figures."""
    parts = [_with_intervals(table).assign(model=model, data=data) for model, table in predictions.items()]
    table = next(iter(predictions.values()))
    usual = table.loc[table["split"] == "train", "label"].mode()
    if len(usual):
        always = _with_intervals(table.assign(predicted=usual[0], note=""))
        always = always.assign(model=f"always {usual[0]}", data=data)
        parts.append(always[always["split"] == "test"])
    published = report_2020()
    for split, counts in published["confusion"].items():
        (right, n), recalls = right_of_all(counts), np.diag(counts) / counts.sum(axis=1)
        row = {
            "model": "report: AlexNet",
            "split": split,
            "frames": n,
            "accuracy": right / n,
            "macro_recall": recalls.mean(),
        }
        parts.append(pd.DataFrame([{**row, "note": "published; some classes counted twice"}]))
    row = {"model": "report: Rekognition", "split": "test", "accuracy": published["rekognition_accuracy"]["test"]}
    parts.append(pd.DataFrame([{**row, "note": "published; top prediction"}]))
    table = pd.concat(parts, ignore_index=True).fillna({"data": "RAVDESS"})
    ends = [f"{name}_{end}" for name in ("accuracy", "macro_recall") for end in ("low", "high")]
    return table[["model", "data", "split", "frames", "accuracy", "macro_recall", *ends, "note"]]


def _with_intervals(table):
    found = scores(table)
    for i, split in enumerate(found["split"]):
        for name, (low, high) in intervals(table, split).items():
            found.loc[i, [f"{name}_low", f"{name}_high"]] = low, high
    return found


def results_markdown(table):
    """The results table as Markdown, shares in percent with their 95 % intervals over the actors."""

    def ends(low, high):
        return "" if np.isnan(low) else f" ({100 * low:.1f} to {100 * high:.1f})"

    def shares(name):
        columns = table[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        return ["" if np.isnan(share) else f"{share:.1%}{ends(low, high)}" for share, low, high in columns]

    return markdown(
        pd.DataFrame({
            "Model": table["model"], "Data": table["data"], "Split": table["split"].map(SPLITS),
            "Frames": ["" if pd.isna(n) else f"{n:,.0f}" for n in table["frames"]],
            "Accuracy": shares("accuracy"), "Macro recall": shares("macro_recall"), "Note": table["note"],
        })
    )  # fmt: skip


def markdown(table, index=False):
    """A DataFrame as a Markdown table."""
    table = table.reset_index(names="") if index else table
    lines = [table.columns, ["-"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def difference_in_words(table, data):
    """Whether the report's 50.63 % against 48 % is a difference, by how far five actors spread here; as Markdown."""
    published, (low, high) = report_2020(), intervals(table, "test")["accuracy"]
    apart = published["accuracy"]["test"] - published["rekognition_accuracy"]["test"]
    actors = table.loc[table["split"] == "test", "actor"].nunique()
    half = (high - low) / 2
    says = "could as well be chance" if apart < half else "is more than that"
    return (
        f"The report's two models lie {100 * apart:.1f} points apart. How its accuracies differ from actor to actor is "
        f"not in it; here, on the {data} with {actors} test actors, the interval of one model's accuracy is "
        f"{100 * low:.1f} to {100 * high:.1f} %, that is {100 * half:.1f} points to either side. Beside that, a "
        f"difference of {100 * apart:.1f} points {says}. It would take both models' answers on the same actors to know."
    )


def confusion_markdown(predictions, data):
    """Tables 1 and 3 of the report for each model, and the report's own after them, as Markdown."""
    parts = []
    for split, number in (("val", 1), ("test", 3)):
        matrices = {
            ", ".join(filter(None, (model, data, table["note"].iloc[0]))): confusion(table, split)
            for model, table in predictions.items()
        }
        matrices["the report's AlexNet, RAVDESS"] = report_2020()["confusion"][split]
        for name, counts in matrices.items():
            parts.append(f"**Table {number}, {SPLITS[split]} actors: {name}**")
            parts.append(markdown(with_totals(counts), index=True))
    return "\n\n".join(parts)


def write_results(root, data, table, parts, figures):
    """Write what `make report` and `make publish` read: `metrics.json`, and `report.md` with each part between markers.

    Parameters
    ----------
    root : Path, the run's folder
    data : str, the data by name
    table : DataFrame, as `results` gives it
    parts : {name: Markdown}, the parts of `report.md` that a README may show between markers of the same name
    figures : names of files in imgs/, each shown under its own title; those that are not there are left out
    """
    ours = table[~table["note"].str.startswith("published")].drop(columns="data").astype({"frames": int})
    with replacing(root / "metrics.json") as file:
        json.dump({"data": data, "scores": ours.to_dict("records")}, file, indent=1)
    text = [f"# Reading emotion off faces: results on the {data}"]
    text += [f"<!-- begin {name} -->\n{part.strip()}\n<!-- end {name} -->" for name, part in parts.items()]
    for path in (root / "imgs" / name for name in figures):
        if path.exists():
            with Image.open(path) as picture:
                title = picture.info.get("Title", path.stem)
            text.append(f"## {title}\n\n![{title}](imgs/{path.name})")
    with replacing(root / "report.md") as file:
        file.write("\n\n".join(text) + "\n")
