"""The figures, all in one style. They take tables and pictures, never a network or a clip, and return a Figure.

Every title ends with the data it shows, so that a figure can't be taken for one of other data.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from PIL import ImageDraw

from helpers.ravdess import CLASSES, SPLITS
from helpers.workspace import replacing

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = {"train": "#0072B2", "val": "#E69F00", "report": "#999999"}
WIDTH = 7.2  # inches: a page's width


def set_style():
    """The one style of all figures: call it once in a notebook's set-up."""
    sns.set_theme(context="paper", style="whitegrid", font="DejaVu Sans", font_scale=1.15)
    plt.rcParams.update({
        "figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "figure.constrained_layout.use": True,
        "axes.titlesize": "medium", "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False,
        "text.parse_math": False,  # a folder's name in a title may hold a $
    })  # fmt: skip


def save(figure, path):
    """Write a figure as PNG, its title in the metadata too; returns it, so that a notebook shows it."""
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None, "Title": figure.get_suptitle()})
    return figure


def picture_grid(pictures, titles, heading, columns=4):
    """Pictures of one shape in a grid, a title under each."""
    pictures = [np.asarray(picture) for picture in pictures]
    rows, (height, width) = -(-len(pictures) // columns), pictures[0].shape[:2]
    lines, size = 1 + max(title.count("\n") for title in titles), "small" if columns < 5 else "x-small"
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * (WIDTH / columns * height / width + 0.25 * lines) + 0.3)
    )
    for ax in np.ravel(axes):
        ax.axis("off")
    for ax, picture, title in zip(np.ravel(axes), pictures, titles, strict=False):
        ax.imshow(picture)
        ax.text(0.5, -0.04, title, transform=ax.transAxes, ha="center", va="top", fontsize=size)
    return finished(figure, heading)


def class_counts(counts, report, heading):
    """Frames per class (rows) and split (columns), ours beside the report's; both are DataFrames of counts."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3))
    for ax, split in zip(axes, counts, strict=True):
        y = np.arange(len(CLASSES))
        ax.barh(y - 0.2, counts[split], 0.38, color=COLOURS["train"], label="here")
        ax.barh(y + 0.2, report[split], 0.38, color=COLOURS["report"], label="report, 2020 (RAVDESS)")
        ax.set(yticks=y, title=SPLITS[split], xlabel="frames")
        ax.set_yticklabels(CLASSES if ax is axes[0] else [])
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return finished(figure, heading)


def training_history(history, heading, kept="val_loss"):
    """Figure 7 of the report: accuracy and loss by epoch; the epoch of best validation loss or accuracy is marked."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    best = history.loc[history[kept].idxmin() if kept == "val_loss" else history[kept].idxmax(), "epoch"]
    for ax, what in zip(axes, ("accuracy", "loss"), strict=True):
        ax.plot(history["epoch"], history[f"train_{what}"], color=COLOURS["train"], label="training")
        ax.plot(history["epoch"], history[f"val_{what}"], color=COLOURS["val"], label="validation")
        ax.axvline(best, color="0.35", linestyle=":", label=f"kept: epoch {best}")
        ax.set(xlabel="epoch", ylabel=what if what == "accuracy" else "cross-entropy (nats)", title=what)
        ax.set_ylim(bottom=0, top=1 if what == "accuracy" else None)
        ax.legend(fontsize="x-small")
    return finished(figure, heading)


def confusion_pair(first, second, heading, names):
    """Two confusion matrices side by side: the share of each true class as colour, and the counts."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.7), sharey=True)
    for ax, counts, name in zip(axes, (first, second), names, strict=True):
        total, right = counts.to_numpy().sum(), counts.to_numpy().trace()
        share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False, "square": True, "linewidths": 0.5}
        sns.heatmap(share, ax=ax, annot=counts, fmt="d", **style)
        ax.set(
            xlabel="predicted class",
            ylabel="true class" if ax is axes[0] else "",
            title=f"{name}\n{right / total:.1%} of {total:,} frames",
        )
        ax.tick_params(axis="x", rotation=35, labelrotation=35)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return finished(figure, heading)


def leakage(table, heading):
    """Accuracy on frames not trained on, by what the split kept together: a dot a training, a bar their mean."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.4))
    kinds = list(dict.fromkeys(table["split_by"]))
    for y, kind in enumerate(kinds):
        shares = table.loc[table["split_by"] == kind, "accuracy"]
        ax.barh(y, shares.mean(), 0.6, color=COLOURS["val" if kind == "actor" else "report"])
        ax.plot(shares, [y] * len(shares), "o", color="0.2", markersize=4)
        ax.text(shares.max() + 0.015, y, f"{shares.mean():.1%}", va="center")
    ax.set(yticks=range(len(kinds)), yticklabels=[f"by {kind}" for kind in kinds], xlim=(0, 1.08))
    ax.set(xlabel="accuracy on the frames held out", xticks=np.arange(0, 1.01, 0.2))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return finished(figure, heading)


def actor_accuracy(shares, intervals, references, heading):
    """Accuracy of each model: a dot an actor, the 95 % interval over the actors as a bar, references as lines.

    `shares` is a DataFrame (actors, models), `intervals` {model: (low, high)}, `references` {label: share}.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 0.34 * len(intervals) + 1.5))
    for y, (model, (low, high)) in enumerate(intervals.items()):
        ax.barh(y, high - low, 0.55, left=low, color=COLOURS["train"], alpha=0.35)
        ax.plot(shares[model].dropna(), [y] * shares[model].notna().sum(), "o", color="0.2", markersize=4)
    for (label, share), style in zip(references.items(), (":", "--", "-."), strict=False):
        ax.axvline(share, color=COLOURS["val"], linestyle=style, label=label)
    ax.set(yticks=range(len(intervals)), yticklabels=list(intervals), xlim=(0, 1.02), xlabel="accuracy on test frames")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize="x-small"
    )
    return finished(figure, heading)


def group_accuracy(groups, heading):
    """Accuracy on parts of a split with 95 % intervals and counts, as `by_group` gives them; a colour a kind."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.3 * len(groups) + 1))
    colours = dict(zip(groups["what"].unique(), sns.color_palette("colorblind"), strict=False))
    for y, row in enumerate(groups.itertuples()):
        ax.barh(y, row.high - row.low, 0.55, left=row.low, color=colours[row.what], alpha=0.35)
        ax.plot(row.accuracy, y, "o", color=colours[row.what], markersize=5)
        of = "1 actor" if row.actors == 1 else f"{row.actors} actors"
        ax.text(1.03, y, f"{row.frames:,} frames, {of}", va="center", fontsize="x-small")
    names = [f"{row.what}: {row.value}" for row in groups.itertuples()]
    ax.set(yticks=range(len(groups)), yticklabels=names, xlim=(0, 1.02), xlabel="accuracy on frames")
    ax.tick_params(axis="y", labelsize="small")
    ax.set_ylim(-0.6, len(groups) - 0.4)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return finished(figure, heading)


def importance(shares, heading, most=12):
    """The features that trees gained most by: {title: Series of shares, descending}, a panel each."""
    figure, axes = plt.subplots(1, len(shares), figsize=(WIDTH, 3.2), squeeze=False)
    for ax, (title, series) in zip(axes[0], shares.items(), strict=True):
        top = series.head(most)
        ax.barh(range(len(top)), top, color=[COLOURS["val" if "score" in name else "train"] for name in top.index])
        ax.set(yticks=range(len(top)), xlabel="share of the gain", title=title)
        ax.set_yticklabels(top.index, fontsize="x-small")
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return finished(figure, heading)


def predicted(rows, pictures, heading):
    """Frames, the middle of each, over what was played and what was predicted; rows as `most_confident` gives them."""
    square = [((p.width - p.height) // 2, 0, (p.width + p.height) // 2, p.height) for p in pictures]
    pictures = [picture.crop(box) for picture, box in zip(pictures, square, strict=True)]
    return picture_grid(pictures, titles_of(rows), heading, columns=5)


def titles_of(rows):
    """Of each frame, for its title: who played what, and what was predicted with which probability; rows as above."""
    return [f"actor {r.actor}: {r.label}\n→ {r.predicted} {r.confidence:.0%}" for r in rows.itertuples()]


def one_picture(picture, heading):
    """One picture under a title of a line or two, at a quarter of a page's width."""
    figure, ax = plt.subplots(figsize=(WIDTH / 2, WIDTH / 2 * picture.height / picture.width + 0.5))
    ax.imshow(picture)
    ax.axis("off")
    figure.suptitle(heading, fontsize="medium")
    plt.close(figure)
    return figure


def finished(figure, heading):
    """The figure under its title, closed, so that a notebook shows it once, where it is returned."""
    figure.suptitle(heading)
    plt.close(figure)
    return figure


def with_points(picture, points):
    """A copy of a PIL picture with dots on it, at an array (n, 2) of pixels."""
    dotted = picture.convert("RGB")
    pen = ImageDraw.Draw(dotted)
    for x, y in points:
        pen.ellipse((x - 1.6, y - 1.6, x + 1.6, y + 1.6), fill=COLOURS["train"])
    return dotted


def ladder(measured, heading):
    """Accuracy of one step after another, as `beyond.Steps.measured` gives it, with its 95 % intervals."""
    steps = list(dict.fromkeys(measured["step"]))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.36 * len(steps) + 1.4), sharey=True)
    for ax, of in zip(axes, ("frames", "clips"), strict=True):
        for split, shift, colour in (("val", -0.14, COLOURS["val"]), ("test", 0.14, COLOURS["train"])):
            part = measured[(measured["split"] == split) & (measured["of"] == of)]
            y = [steps.index(step) + shift for step in part["step"]]
            ax.hlines(y, part["low"], part["high"], color=colour, alpha=0.4, linewidth=4)
            ax.plot(part["accuracy"], y, "o", color=colour, markersize=4, label=f"{SPLITS[split]} actors")
        ax.axvline(1 / len(CLASSES), color="0.6", linestyle=":", label="chance, all classes alike")
        ax.set(yticks=range(len(steps)), yticklabels=steps, xlim=(0, 1), xlabel=f"accuracy on {of}")
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return finished(figure, heading)


def enough(table, heading):
    """Accuracy, and seconds an epoch takes, by the number of a clip's frames: columns frames, accuracy, seconds."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    for ax, what, name in zip(axes, ("accuracy", "seconds"), ("accuracy", "seconds an epoch (GRU)"), strict=True):
        ax.plot(table["frames"], table[what], "o-", color=COLOURS["train"])
        ax.set(xlabel="frames of each clip", ylabel=name, xscale="log")
        ax.set_ylim(0, 1 if what == "accuracy" else None)
        ax.set_xticks(table["frames"], labels=table["frames"])
        ax.minorticks_off()
    return finished(figure, heading)


def over_time(table, heading):
    """The probability of each class up to each moment of a clip, as `movement.predict` gives it."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.7))
    for name, colour in zip(CLASSES, sns.color_palette("colorblind"), strict=False):
        ax.plot(table["time_s"], table[f"p_{name}"], color=colour, label=name)
    ax.set(xlabel="seconds from the clip's start", ylabel="probability", ylim=(0, 1))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return finished(figure, heading)


def reliability(curves, heading):
    """Reliability diagrams, a panel each: {title: table of `calibration.reliability`}; a dot's area is its frames."""
    figure, axes = plt.subplots(1, len(curves), figsize=(WIDTH, 3.6), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], curves.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=COLOURS["report"], linestyle="--", label="as sure as right")
        ax.plot(table["confidence"], table["accuracy"], color=COLOURS["train"])
        size = 300 * table["frames"] / table["frames"].sum()
        ax.scatter(table["confidence"], table["accuracy"], size, color=COLOURS["train"], label="frames, by confidence")
        ax.set(
            xlim=(0, 1), ylim=(-0.02, 1.02), aspect="equal", title=title, xlabel="probability of the predicted class"
        )
    axes[0, 0].set_ylabel("share that is right")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return finished(figure, heading)


def accuracy_table(shares, heading):
    """Accuracy of each model (rows) on each actor (columns) in percent, as a heat map; a DataFrame of shares."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.32 * len(shares) + 1.3))
    style = {"cmap": "cividis", "vmin": 0, "vmax": 1, "linewidths": 0.5, "annot_kws": {"fontsize": "xx-small"}}
    shares = shares.rename(index=lambda name: name.replace(", ", ",\n"))  # a long note leaves the cells no room
    bar = {"label": "accuracy", "ticks": (0, 0.5, 1)}
    sns.heatmap(shares, ax=ax, annot=100 * shares, fmt=".0f", cbar_kws=bar, **style)
    ax.set(xlabel="actor (odd: male, even: female); percent of frames", ylabel="")
    ax.tick_params(axis="both", labelsize="x-small", labelrotation=0)
    return finished(figure, heading)


def heat_maps(pictures, maps, titles, heading, columns=5):
    """Pictures of one shape under their heat maps (0..1, of `gradcam.heat`); without heat a picture is clear."""
    hot = plt.get_cmap("viridis")
    covered = []
    for picture, found in zip(pictures, maps, strict=True):
        share = 0.65 * found[..., None]
        covered.append(((1 - share) * np.asarray(picture) / 255 + share * hot(found)[..., :3]).clip(0, 1))
    figure = picture_grid(covered, titles, heading, columns)
    figure.set_dpi(80)  # in a notebook, which would else grow large of them; the file is as fine as the others
    return figure
