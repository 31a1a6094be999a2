"""The figures, all in one style. They take tables and pictures, never a network or a clip, and return a Figure.

Every title ends with the data it shows, so that a figure can't be taken for one of other data.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from helpers.ravdess import CLASSES, SPLITS

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
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.part.png")
    figure.savefig(draft, metadata={"Software": None, "Title": figure.get_suptitle()})
    draft.replace(path)
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
    return _finished(figure, heading)


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
    return _finished(figure, heading)


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
    return _finished(figure, heading)


def network_diagram(layers, heading, counted="weights"):
    """Figures 3 and 4 of the report: a box a layer, as the table (layer, output, weights, part) lists them."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.33 * len(layers) + 0.8))
    fills = dict(zip(layers["part"].unique(), ("#EFEFEF", "#D6E8F5", "#FBE8C8"), strict=False))
    for i, row in enumerate(layers.itertuples()):
        ax.add_patch(plt.Rectangle((0, -i), 3, -0.8, facecolor=fills[row.part], edgecolor="0.4"))
        ax.text(1.5, -i - 0.4, row.layer, ha="center", va="center", fontsize="small")
        ax.text(3.2, -i - 0.4, " × ".join(f"{n:,}" for n in row.output), va="center", fontsize="small")
        ax.text(6.4, -i - 0.4, f"{row.weights:,}" if row.weights else "", va="center", ha="right", fontsize="small")
    for part, rows in layers.reset_index(drop=True).groupby("part", sort=False):
        first, last = rows.index[0], rows.index[-1]
        ax.plot([-0.15, -0.15], [-first - 0.02, -last - 0.78], color="0.4")
        ax.text(-0.35, -(first + last) / 2 - 0.4, part, ha="right", va="center", fontsize="small")
    for x, text, side in ((1.5, "layer", "center"), (3.2, "output", "left"), (6.4, counted, "right")):
        ax.text(x, 0.25, text, ha=side, fontsize="small", fontweight="bold")
    ax.set(xlim=(-2.6, 6.5), ylim=(-len(layers), 0.8))
    ax.axis("off")
    return _finished(figure, heading)


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
    return _finished(figure, heading)


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
    return _finished(figure, heading)


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
    return _finished(figure, heading)


def group_accuracy(groups, heading):
    """Accuracy on parts of a split with 95 % intervals and counts, as `by_group` gives them; a colour a kind."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.3 * len(groups) + 1))
    colours = dict(zip(groups["what"].unique(), sns.color_palette("colorblind"), strict=False))
    for y, row in enumerate(groups.itertuples()):
        ax.barh(y, row.high - row.low, 0.55, left=row.low, color=colours[row.what], alpha=0.35)
        ax.plot(row.accuracy, y, "o", color=colours[row.what], markersize=5)
        ax.text(1.03, y, f"{row.frames:,} frames, {row.actors} actors", va="center", fontsize="x-small")
    names = [f"{row.what}: {row.value}" for row in groups.itertuples()]
    ax.set(yticks=range(len(groups)), yticklabels=names, xlim=(0, 1.02), xlabel="accuracy on test frames")
    ax.tick_params(axis="y", labelsize="small")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return _finished(figure, heading)


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
    return _finished(figure, heading)


def predicted(rows, pictures, heading):
    """Frames, the middle of each, over what was played and what was predicted; rows as `most_confident` gives them."""
    square = [((p.width - p.height) // 2, 0, (p.width + p.height) // 2, p.height) for p in pictures]
    pictures = [picture.crop(box) for picture, box in zip(pictures, square, strict=True)]
    titles = [f"actor {r.actor}: {r.label}\n→ {r.predicted} {r.confidence:.0%}" for r in rows.itertuples()]
    return picture_grid(pictures, titles, heading, columns=5)


def one_picture(picture, heading):
    """One picture under a title of a line or two, at a quarter of a page's width."""
    figure, ax = plt.subplots(figsize=(WIDTH / 2, WIDTH / 2 * picture.height / picture.width + 0.5))
    ax.imshow(picture)
    ax.axis("off")
    figure.suptitle(heading, fontsize="medium")
    plt.close(figure)
    return figure


def system_diagram(columns, heading):
    """Figure 1 of the report: the parts of the project, a column of boxes for each step, {step: [text, …]}."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
    most, wide = max(map(len, columns.values())), 10 / len(columns)
    for i, (step, boxes) in enumerate(columns.items()):
        ax.text((i + 0.43) * wide, most + 0.25, step, ha="center", fontweight="bold", fontsize="small")
        for k, text in enumerate(boxes):
            y, high = most - (k + 0.5) * most / len(boxes), min(1.6, 0.8 * most / len(boxes))
            corner = i * wide, y - high / 2
            ax.add_patch(plt.Rectangle(corner, 0.86 * wide, high, facecolor="#D6E8F5", edgecolor="0.4"))
            ax.text((i + 0.43) * wide, y, text, ha="center", va="center", fontsize="x-small")
        if i:
            arrow = {"arrowstyle": "-|>", "color": "0.3"}
            ax.annotate("", (i * wide - 0.02, most / 2), ((i - 0.14) * wide + 0.02, most / 2), arrowprops=arrow)
    ax.set(xlim=(-0.05, 10), ylim=(-0.05, most + 0.6))
    ax.axis("off")
    return _finished(figure, heading)


def round_trip(picture, steps, heading):
    """Figure 5 of the report: a picture's way there (two boxes) and back (three), each box a (title, text)."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.1))
    high = 2.7 * picture.height / picture.width
    ax.imshow(picture, extent=(0, 2.7, 2.75 - high / 2, 2.75 + high / 2), zorder=2)
    places = [(3.5, 2), (7, 2), (7, 0), (3.5, 0), (0, 0)]
    for (x, y), (title, text) in zip(places, steps, strict=True):
        colour = "#FBE8C8" if y and x == 7 else "#D6E8F5"
        ax.add_patch(plt.Rectangle((x, y), 2.7, 1.5, facecolor=colour, edgecolor="0.4"))
        ax.text(x + 1.35, y + 1.28, title, ha="center", va="center", fontsize="small", fontweight="bold")
        ax.text(x + 1.35, y + 0.6, text, ha="center", va="center", fontsize="x-small")
    ends = [((2.75, 2.75), (3.45, 2.75)), ((6.25, 2.75), (6.95, 2.75)), ((8.35, 1.95), (8.35, 1.55))]
    for start, end in [*ends, ((6.95, 0.75), (6.25, 0.75)), ((3.45, 0.75), (2.75, 0.75))]:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.3"})
    ax.set(xlim=(-0.05, 9.75), ylim=(-0.05, 3.6), aspect="equal")
    ax.axis("off")
    return _finished(figure, heading)


def emotions(picture, box, confidence, ours, heading):
    """Figure 6 of the report: a picture, the face's box in it, and the emotions that were returned.

    `box` is Left, Top, Width, Height as shares of the picture; `confidence` a Series in percent; the names in `ours`
    belong to a class, the others to none.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7), width_ratios=(1.25, 1))
    left.imshow(picture)
    corner, size = (box["Left"], box["Top"]), (box["Width"], box["Height"])
    corner, size = ([a * picture.width, b * picture.height] for a, b in (corner, size))
    left.add_patch(plt.Rectangle(corner, *size, fill=False, edgecolor=COLOURS["val"], linewidth=2))
    left.axis("off")
    colours = [COLOURS["train" if name in ours else "report"] for name in confidence.index]
    right.barh(confidence.index, confidence, color=colours)
    for y, share in enumerate(confidence):
        right.text(share + 1.5, y, f"{share:.1f} %", va="center", fontsize="x-small")
    right.set(xlim=(0, 118), xticks=(0, 50, 100), xlabel="confidence (%); grey: in none of the five classes")
    right.tick_params(axis="y", labelsize="x-small")
    right.xaxis.label.set_fontsize("x-small")
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    return _finished(figure, heading)


def _finished(figure, heading):
    figure.suptitle(heading)
    plt.close(figure)  # so that a notebook shows it once, where it is returned
    return figure
