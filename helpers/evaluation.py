"""What 05 puts on show: tables as Markdown, sentences written from numbers, the report's own numbers beside ours."""

import json

import numpy as np
import pandas as pd
from PIL import Image

from helpers.ravdess import CLASSES, SPLITS
from helpers.scoring import (
    NO_CLASS,
    PROBABILITIES,
    by_clip,
    clip_accuracy,
    confusion,
    data_of,
    right_of_all,
    scores,
    with_totals,
)
from helpers.uncertainty import FEWEST, actors_needed, by_class, gain, intervals, share_interval, verdict
from helpers.workspace import REPOSITORY, replacing


def comparisons(predictions, base, split="test"):
    """Each model against `base` on the frames that both have: a row a model, shares in percent; for Markdown."""
    rows = []
    for model, table in predictions.items():
        both = predictions[base].merge(table, on=["path", "split"])["split"]
        if model != base and (both == split).any():
            found = gain(predictions[base], table, split)
            low, high = (f"{100 * found[end]:+.1f}" for end in ("low", "high"))
            row = [f"{100 * found['difference']:+.1f}", f"{low} to {high}", _chance(found["p"]), verdict(found)]
            rows.append([model, f"{found['frames']:,}", *row, table["note"].iloc[0]])
    names = ["Model", "Frames of both", f"Points more than {base}", "95 % interval", "p (sign flip)", "So", "Note"]
    return pd.DataFrame(rows, columns=names)


def most_confident(table, group, order=None, of=PROBABILITIES):
    """Of each value of a column, the frame whose predicted class has the highest probability: DataFrame, a row each.

    No actor stands there twice while another is left for that value. `order` is the values' order, else sorted; `of`
    are the columns whose highest counts. The column `confidence` is added.
    """
    table = table.assign(confidence=table[of].max(axis=1))
    table = table.sort_values(["confidence", "path"], ascending=[False, True])
    chosen: list[int] = []  # of the index
    for value in sorted(set(table[group])) if order is None else order:
        rows = table[table[group] == value]
        fresh = rows[~rows["actor"].isin(table.loc[chosen, "actor"])]
        chosen += list((fresh if len(fresh) else rows).index[:1])
    return table.loc[chosen]


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


def report_2020():
    """What the 2020 report published: {"frames": {split: Series}, "confusion": {split: DataFrame}, "accuracy": …}."""
    published = json.loads((REPOSITORY / "data" / "report_2020.json").read_text("utf-8"))
    classes = published["classes"]
    published["frames"] = {split: pd.Series(n, classes) for split, n in published["frames"].items()}
    published["confusion"] = {split: pd.DataFrame(m, classes, classes) for split, m in published["confusion"].items()}
    return published


def in_words(model, table, data):
    """What the test actors say about a model, as a paragraph of Markdown."""
    where = f"the {data_of(data, table)}"
    counts = confusion(table, "test")
    if not counts.to_numpy().sum():
        return f"**{model}**: there are no predictions for test frames of the {where[4:]}."
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    recall = pd.Series(np.diag(share), CLASSES)
    mistakes = share.mask(np.eye(len(share), len(share.columns), dtype=bool)).stack()
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

    def shares(name):
        return [_with_ends(*ends) for ends in table[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)]

    return markdown(
        pd.DataFrame({
            "Model": table["model"], "Data": table["data"], "Split": table["split"].map(SPLITS),
            "Frames": ["" if pd.isna(n) else f"{n:,.0f}" for n in table["frames"]],
            "Accuracy": shares("accuracy"), "Macro recall": shares("macro_recall"), "Note": table["note"],
        })
    )  # fmt: skip


def _with_ends(share, low, high):
    """A share and its interval in percent, as text; either may be lacking (NaN)."""
    ends = "" if np.isnan(low) else f" ({100 * low:.1f} to {100 * high:.1f})"
    return "" if np.isnan(share) else f"{share:.1%}{ends}"


def _chance(p):
    return f"{p:.2f}" if p >= 0.005 else "below 0.01"


def markdown(table, index=False):
    """A DataFrame as a Markdown table."""
    table = table.reset_index(names="") if index else table
    plain = str.maketrans({"|": r"\|", "<": "&lt;", "\n": " ", "\r": " "})  # names of files can hold anything
    lines = [table.columns, ["-"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell).translate(plain) for cell in line) + " |" for line in lines)


def difference_in_words(table, data):
    """Whether the report's 50.63 % against 48 % is a difference, by how far five actors spread here; as Markdown."""
    published, (low, high) = report_2020(), intervals(table, "test")["accuracy"]
    apart = published["accuracy"]["test"] - published["rekognition_accuracy"]["test"]
    actors = table.loc[table["split"] == "test", "actor"].nunique()
    half = (high - low) / 2
    if actors < FEWEST:
        return f"The report's two models lie {100 * apart:.1f} points apart; {actors} actors are too few to say more."
    says = "could as well be chance" if apart < half else "is more than that"
    return (
        f"The report's two models lie {100 * apart:.1f} points apart. How its accuracies differ from actor to actor is "
        f"not in it; here, on the {data} with {actors} test actors, the interval of one model's accuracy is "
        f"{100 * low:.1f} to {100 * high:.1f} %, that is {100 * half:.1f} points to either side. Beside that, a "
        f"difference of {100 * apart:.1f} points {says}. It would take both models' answers on the same actors to know."
    )


def actors_needed_in_words(in_turn, first, data):
    """How many actors it would take to tell the report's two models apart, by how far two models differ here."""
    published = report_2020()
    apart = published["accuracy"]["test"] - published["rekognition_accuracy"]["test"]
    second = next((name for name in ("alexnet", *in_turn) if name in in_turn and name != first), None)
    if first not in in_turn or second is None or np.isnan(n := actors_needed(in_turn[first], in_turn[second], apart)):
        return ""
    return (
        f"How many actors would it take to find a difference of {100 * apart:.1f} points, as between the report's two "
        f"models? If two models differ from actor to actor as {first} and {second} do on the "
        f"{data_of(data, in_turn[second])}: about {n:,.0f}, to find it four times in five."
    )


def all_actors_markdown(counts, base="alexnet_2020"):
    """Cross-validation as Markdown, a row a data set and model, from `counts_by_actor`; intervals over the actors.

    How many more points than `base` stands where that was tested on as many frames of the same actors of the same data.
    """
    rows, models = [], dict(list(counts.groupby(["data", "model"], sort=False)))
    for (data, model), part in models.items():
        cells = [model, data, len(part), f"{part['frames'].sum():,}"]
        for right, of in (("right", "frames"), ("clips_right", "clips")):
            cells.append(_with_ends(part[right].sum() / part[of].sum(), *share_interval(part[right], part[of])))
        both = part.merge(models.get((data, base), part[:0]), on=["actor", "frames"], suffixes=("", "_base"))
        more = both["right"] - both.get("right_base", 0)
        if len(both) == len(part) and model != base:
            low, high = share_interval(more, both["frames"])
            cells.append(f"{100 * more.sum() / both['frames'].sum():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
        else:
            cells.append("")
        rows.append([*cells, part["note"].iloc[0]])
    names = ["Model", "Data", "Actors", "Frames", "Accuracy, frames", "Accuracy, clips", f"Points more than {base}"]
    return markdown(pd.DataFrame(rows, columns=[*names, "Note"]))


def in_turn_in_words(in_turn, data):
    """What cross-validation says of each model, as paragraphs of Markdown."""
    lines = []
    for model, table in in_turn.items():
        clips, (low, high) = clip_accuracy(table, "test"), intervals(table, "test")["accuracy"]
        lines.append(
            f"**{model}** ({data_of(data, table)}): of {table['actor'].nunique()} actors, each tested once, "
            f"{(table['predicted'] == table['label']).mean():.1%} of frames (95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %), {clips:.1%} of clips."
        )
    return "\n\n".join(lines) or "There is no cross-validation."


def clips_markdown(predictions, split="test"):
    """Each model's accuracy on a split's frames and on its clips, by the mean probability over a clip's frames."""
    rows = []
    for model, table in predictions.items():
        if (table["split"] == split).any():
            cells = [model]
            for version in (table, by_clip(table)):
                score = scores(version).set_index("split").loc[split]
                found = intervals(version, split)
                cells.append(f"{score['frames']:,}")
                cells += [_with_ends(score[name], *found[name]) for name in ("accuracy", "macro_recall")]
            rows.append([*cells, table["note"].iloc[0]])
    names = ["Frames", "Accuracy", "Macro recall", "Clips", "Accuracy of clips", "Macro recall of clips"]
    return markdown(pd.DataFrame(rows, columns=["Model", *names, "Note"]))


def classes_markdown(table, split="test"):
    """Recall, with its interval, and precision of each class, as Markdown; from `by_class`."""
    found = by_class(table, split)
    found["recall"] = [_with_ends(*ends) for ends in found[["recall", "low", "high"]].to_numpy()]
    found["precision"] = ["" if np.isnan(share) else f"{share:.1%}" for share in found["precision"]]
    return markdown(found[["class", "frames", "recall", "precision"]].rename(columns=str.capitalize))


def confusion_markdown(predictions, data):
    """Tables 1 and 3 of the report for each model, and the report's own after them, as Markdown."""
    parts = []
    for split, number in (("val", 1), ("test", 3)):
        matrices = {f"{model}, {data_of(data, table)}": confusion(table, split) for model, table in predictions.items()}
        matrices["the report's AlexNet, RAVDESS"] = report_2020()["confusion"][split]
        for name, counts in matrices.items():
            parts.append(f"**Table {number}, {SPLITS[split]} actors: {name}**")
            parts.append(markdown(with_totals(counts), index=True))
    return "\n\n".join(parts)


def clear(root):
    """Remove what an earlier run of 05 left of its own in a run's folder, so that nothing old is taken for new."""
    names = (
        "accuracy_by_* crossval_* confusion_* q* misslabeled_actors* test_set_actors* reliability* gradcam_* new_faces*"
    )
    for name in ["metrics.json", "report.md", *(f"imgs/{name}.png" for name in names.split())]:
        for path in root.glob(name):
            path.unlink()


def write_results(root, data, table, parts, figures, private=0):
    """Write what `make report` and `make publish` read: `metrics.json`, and `report.md` with each part between markers.

    Parameters
    ----------
    root : Path, the run's folder
    data : str, the data by name
    table : DataFrame, as `results` gives it
    parts : {name: Markdown}, the parts of `report.md` that a README may show between markers of the same name
    figures : names of files in imgs/, each shown under its own title; those that are not there are left out
    private : how many of the user's own files the figures show; `make publish` refuses a run with any
    """
    ours = table[~table["note"].str.startswith("published")].drop(columns="data").astype({"frames": int})
    with replacing(root / "metrics.json") as file:
        json.dump({"data": data, "private": private, "scores": ours.to_dict("records")}, file, indent=1)
    text = [f"# Reading emotion off faces: results on the {data}"]
    text += [f"<!-- begin {name} -->\n{part.strip()}\n<!-- end {name} -->" for name, part in parts.items()]
    for path in (root / "imgs" / name for name in figures):
        if path.exists():
            with Image.open(path) as picture:
                title = picture.info.get("Title", path.stem)
            text.append(f"## {title}\n\n![{title}](imgs/{path.name})")
    with replacing(root / "report.md") as file:
        file.write("\n\n".join(text) + "\n")
