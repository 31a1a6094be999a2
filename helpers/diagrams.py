"""The figures of how things are built: networks, the way through the project, a call to Amazon and its answer."""

import matplotlib.pyplot as plt

from helpers.figures import COLOURS, WIDTH, finished


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
    return finished(figure, heading)


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
    return finished(figure, heading)


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
    return finished(figure, heading)


def emotions(picture, box, confidence, ours, heading):
    """Figure 6 of the report: a picture, the face's box in it, and the emotions that were returned.

    `box` is Left, Top, Width, Height as shares of the picture; `confidence` a Series in percent; the names in `ours`
    belong to a class, the others to none.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7), width_ratios=(1.25, 1))
    left.imshow(picture)
    corner = box["Left"] * picture.width, box["Top"] * picture.height
    size = box["Width"] * picture.width, box["Height"] * picture.height
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
    return finished(figure, heading)
