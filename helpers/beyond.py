"""The steps of 06: each ends in a table of predictions and is measured in the same way, on validation actors first."""

import re

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.transforms import v2

from helpers import landmarks, movement, overtime, scoring
from helpers.evaluation import markdown
from helpers.ravdess import SPLITS
from helpers.training import Recipe, labels_and_rows
from helpers.uncertainty import gain_in_words, intervals
from helpers.workspace import REPOSITORY, SEED, write_table

KEPT = REPOSITORY / "data" / "beyond.csv"
WHOLE = v2.Compose([v2.PILToTensor()])  # pictures that were made upright are taken as they are
COMPONENTS = 256  # of what frozen convolutions give, the principal components that are kept
RECIPE = Recipe(
    epochs=15, rates=(0.002,), one_cycle=True, weight_decay=0.05, label_smoothing=0.1, keep="val_accuracy"
)  # fmt: skip


class Steps:
    """Steps by name, in order; their predictions are also kept in `beyond/` of the run."""

    def __init__(self, run, table):
        self.run, self.frames, self.tables = run, table, {}

    def add(self, name, predictions):
        """A step whose predictions there are already."""
        self.tables[name] = predictions

    def add_frames(self, name, p, note=""):
        """A step that answers for each frame: p is an array (n, 5)."""
        slug = re.sub(r"\W+", "_", name).strip("_")
        file = self.run.path("beyond", f"{len(self.tables):02d}_{slug}.csv")
        self.tables[name] = scoring.write_predictions(file, self.frames, p, note)

    def add_clips(self, name, p, note=""):
        """A step that answers for each clip, and so for each of its frames: p is a DataFrame (clips, 5)."""
        self.add_frames(name, p.loc[self.frames["clip"]].to_numpy(), note)

    def measured(self):
        """Accuracy of each step: DataFrame with step, note, split, of ("frames", "clips"), accuracy, low, high."""
        rows = []
        for step, table in self.tables.items():
            for of, version in (("frames", table), ("clips", scoring.by_clip(table))):
                for split in ("val", "test"):
                    part = version[version["split"] == split]
                    if len(part):
                        low, high = intervals(version, split)["accuracy"]
                        accuracy = (part["predicted"] == part["label"]).mean()
                        rows.append([step, table["note"].iloc[0], split, of, accuracy, low, high])
        return pd.DataFrame(rows, columns=["step", "note", "split", "of", "accuracy", "low", "high"])

    def table(self, split):
        """Accuracy on a split's frames and clips, a row a step."""
        found = self.measured()
        wide = found[found["split"] == split].pivot(index="step", columns="of", values="accuracy")
        return wide.reindex(list(self.tables))[["frames", "clips"]].round(3) if len(wide) else wide


def steps_markdown(measured):
    """What `Steps.measured` gave as Markdown, a row a step.

    A step's gain is what it has over the best step before it, on validation clips; calibrated steps are apart.
    """
    rows: list[dict] = []
    best: dict[bool, float] = {}
    for step, part in measured.groupby("step", sort=False):
        cells, note = {"Step": step}, part["note"].iloc[0]
        for row in part.itertuples():
            ends = f"{row.accuracy:.1%} ({100 * row.low:.1f} to {100 * row.high:.1f})"
            cells[f"{SPLITS[row.split].capitalize()} {row.of}"] = ends
            if (row.split, row.of) == ("val", "clips"):
                kind = movement.CALIBRATED in note
                gain = 100 * (row.accuracy - best.get(kind, row.accuracy))
                cells["Gain"] = "" if kind not in best else f"{gain:+.1f}" if gain > 0 else "none"
                best[kind] = max(row.accuracy, best.get(kind, 0))
        rows.append(cells | {"Note": note})
    return markdown(pd.DataFrame(rows))


def keep(run):
    """Put what 06 measured in a run into `KEPT`, in place of that of the same data; nothing, before 06 has run."""
    file = run.root / "beyond" / "steps.csv"
    if file.exists():
        steps = pd.read_csv(file, keep_default_na=False).assign(data=run.title).round(6)
        write_table(KEPT, pd.concat([*kept(run.title).values(), steps]))


def kept(but):
    """What `KEPT` holds of other data than `but`: {data: what `Steps.measured` gave, with the data as a column}."""
    if not KEPT.exists():
        return {}
    steps = pd.read_csv(KEPT, keep_default_na=False)
    return {data: part for data, part in steps.groupby("data", sort=False) if data != but}


def frame_answers(numbers, table):
    """Class probabilities of each frame by logistic regression on numbers (n, f) of it: array (n, 5).

    Of more numbers than `COMPONENTS` the principal components are taken, as many as there are.
    """
    labels, rows = labels_and_rows(table)
    train = rows["train"]
    few = PCA(min(COMPONENTS, len(train)), random_state=SEED) if numbers.shape[1] > COMPONENTS else "passthrough"
    model = make_pipeline(StandardScaler(), few, LogisticRegression(C=movement.STRENGTH, max_iter=500))
    return movement.answers(model.fit(numbers[train], labels[train]), numbers)


def clip_answers(numbers, labels, rows, actors=None):
    """Class probabilities of each clip by `movement.fit_clips` on the training clips: DataFrame (clips, 5)."""
    train = rows["train"]
    model = movement.fit_clips(numbers.iloc[train], labels[train], None if actors is None else actors[train])
    return pd.DataFrame(movement.answers(model, numbers), numbers.index, scoring.PROBABILITIES)


def pixels(kept):
    """What a frozen network gave for all frames, of `Features`: float array (n, f)."""
    return kept[np.arange(len(kept))].cpu().numpy()


def of_frames(table, moves):
    """The landmarks of each row of `frames.csv`, from the picture of its clip that is nearest in time: (n, 140)."""
    return _of_frames(table, moves, lambda move: np.hstack([move.shape, move.head]))


def distances(table, moves):
    """How far each frame's face is from its clip's calm one (root mean square, eyes 1 apart): Series, table's index."""
    far = _of_frames(table, moves, lambda move: np.sqrt((move.since_calm**2).mean(axis=1, keepdims=True)))
    return pd.Series(far[:, 0], table.index)


def _of_frames(table, moves, what):
    numbers = pd.DataFrame(index=table.index)
    parts = [
        pd.DataFrame(what(moves[clip])[landmarks.nearest(moves[clip], part["time_s"])], part.index)
        for clip, part in table.groupby("clip", sort=False)
    ]
    return numbers.join(pd.concat(parts)).to_numpy()


def pooled(predictions, weight=None):
    """One answer a clip, the mean of its frames' probabilities: DataFrame (clips, 5), in the order of the table.

    `weight` is a Series of what each frame counts, on the index of the predictions.
    """
    weight = pd.Series(1.0, predictions.index) if weight is None else pd.Series(weight.to_numpy(), predictions.index)
    summed = (
        predictions[scoring.PROBABILITIES].mul(weight + 1e-9, axis=0).groupby(predictions["clip"], sort=False).sum()
    )
    return summed.div(summed.sum(axis=1), axis=0)


def together(*answers):
    """Several models' probabilities as one: their geometric mean, made to add up to 1. DataFrames of one index."""
    return _softmax(sum(np.log(p.loc[answers[0].index] + 1e-3) for p in answers) / len(answers))


def less_actor(p, actors):
    """Clips' log probabilities less their mean over each actor's clips, as probabilities again."""
    logs = np.log(p + 1e-3)
    return _softmax(logs - logs.groupby(np.asarray(actors)).transform("mean"))


def _softmax(logits):
    powers = np.exp(logits)
    return powers.div(powers.sum(axis=1), axis=0)


def sequences(table, moves):
    """Clips for the networks over time: (`overtime.Sequences`, labels of the clips, their rows by split)."""
    first = table.groupby("clip").head(1).set_index("clip").loc[list(moves)]
    labels, rows = labels_and_rows(first)
    return overtime.Sequences(list(moves.values()), rows["train"]), labels, rows


def in_words(steps, chosen, data):
    """What the chosen steps, {name of the model: step}, gained over the report's AlexNet, as Markdown."""
    first = next(iter(steps.tables))
    tables = {first: steps.tables[first]} | {name: steps.tables[step] for name, step in chosen.items()}
    lines = [f"On the **{data}**:"]
    if any((table["split"] == "test").any() for table in tables.values()):
        lines += [f"- {gain_in_words(tables, first, name)}" for name in chosen]
        clips = {name: scoring.clip_accuracy(table, "test") for name, table in tables.items()}
        lines.append("- Of test clips: " + ", ".join(f"{name} {share:.1%}" for name, share in clips.items()) + ".")
    return "\n".join(lines)
