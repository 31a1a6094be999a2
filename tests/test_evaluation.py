import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, permutation_test
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from helpers import evaluation, figures, scoring, uncertainty
from helpers.ravdess import CLASSES
from helpers.workspace import UserError


@pytest.fixture
def frames():
    """Sixty frames of twenty clips, all classes in validation and test, two of them with more clips."""
    n = np.arange(60)
    return pd.DataFrame({
        "path": [f"frames/{i}.jpg" for i in n], "clip": [f"clip{i // 3}" for i in n], "actor": 15 + n // 6,
        "split": np.where(n < 30, "val", "test"), "label": [CLASSES[i // 3 % 7 % 5] for i in n],
    })  # fmt: skip


@pytest.fixture
def predictions(frames, tmp_path):
    p = np.random.default_rng(3).dirichlet(np.ones(5), 60)
    return scoring.write_predictions(tmp_path / "predictions" / "m.csv", frames, p, "random trunk")


def test_what_is_written_is_read_back(predictions, tmp_path):
    read = scoring.read_all_predictions(tmp_path / "predictions")
    assert list(read) == ["m"]
    pd.testing.assert_frame_equal(read["m"], predictions)
    assert list(predictions.columns) == scoring.COLUMNS
    assert (predictions["predicted"] == predictions[scoring.PROBABILITIES].idxmax(axis=1).str[2:]).all()


def test_scores_agree_with_scikit_learn(predictions):
    table = scoring.scores(predictions).set_index("split")
    assert list(table.index) == ["val", "test"]
    for split, part in predictions.groupby("split"):
        assert table.loc[split, "frames"] == len(part) == 30
        assert table.loc[split, "accuracy"] == accuracy_score(part["label"], part["predicted"])
        assert table.loc[split, "macro_recall"] == pytest.approx(
            balanced_accuracy_score(part["label"], part["predicted"])
        )
        assert table.loc[split, "note"] == "random trunk"


def test_confusion_and_clips_in_a_case_written_out(frames, tmp_path):
    test = frames[frames["split"] == "test"].head(6).assign(label=["AngryFearful"] * 3 + ["Disgust"] * 3)  # two clips
    p = np.zeros((6, 5))
    p[:, 0] = [0.9, 0.4, 0.4, 0.6, 0.6, 0.0]
    p[:, 1] = [0.1, 0.6, 0.6, 0.4, 0.4, 1.0]
    table = scoring.write_predictions(tmp_path / "m.csv", test, p)
    counts = scoring.confusion(table, "test")
    assert counts.iloc[:2, :2].to_numpy().tolist() == [[1, 2], [2, 1]]
    total = scoring.with_totals(counts)
    assert total.loc["Total", "Total"] == 6 and total.loc["Disgust", "Total"] == 3
    assert total.loc["Total", "AngryFearful"] == 3
    # means 0.567 to 0.433 and 0.4 to 0.6: both clips are right, though most of their frames are wrong
    assert scoring.clip_accuracy(table, "test") == 1.0
    assert scoring.right_of_all(counts) == (2, 6)


def test_the_reports_accuracies_follow_from_its_matrices():
    report = evaluation.report_2020()
    assert scoring.right_of_all(report["confusion"]["val"]) == (1395, 2502)
    assert scoring.right_of_all(report["confusion"]["test"]) == (1203, 2376)
    for split, counts in report["confusion"].items():
        right, n = scoring.right_of_all(counts)
        assert right / n == pytest.approx(report["accuracy"][split], abs=1e-4)
    assert {split: int(n.sum()) for split, n in report["frames"].items()} == {"train": 4577, "val": 1625, "test": 1546}
    # what it counts twice: every frame of disgust, happy and sad, and of neutral (but not of calm)
    for split in ("val", "test"):
        ratio = report["confusion"][split].sum(axis=1) / report["frames"][split]
        assert dict(ratio[["AngryFearful", "Disgust", "Happy", "Sad"]]) == dict(
            zip(CLASSES[:3] + CLASSES[4:], (1, 2, 2, 2), strict=True)
        )
        assert 1 < ratio["NeutralCalm"] < 2


def test_bad_tables_are_refused_in_one_sentence(predictions, tmp_path):
    path = tmp_path / "bad.csv"
    for change, message in (
        (lambda t: t.drop(columns=["clip", "p_Sad"]), "lacks the columns clip, p_Sad"),
        (lambda t: t.assign(predicted="Bored"), "classes that are not ours: Bored"),
        (lambda t: t.assign(p_Sad=""), "has a probability that is no number"),
        (lambda t: t.head(0), "has no frames"),
        (lambda t: t.assign(p_Sad=t["p_Sad"] + 0.01), "has 60 frames whose probabilities are none, or do not"),
        (lambda t: pd.concat([t, t.head(2)]), "has 2 frames more than once"),
    ):
        change(predictions).to_csv(path, index=False)
        with pytest.raises(UserError, match=message):
            scoring.read_predictions(path)


def test_predictions_that_do_not_fit_the_frames_are_named(predictions, frames):
    assert scoring.differing(predictions, frames) == scoring.differing(predictions.tail(20), frames) == ""
    other = frames.assign(split="test")
    assert (
        scoring.differing(predictions, other) == "30 frames of another clip, actor, class or split than in frames.csv"
    )
    assert scoring.differing(predictions, other, split=False) == ""
    assert scoring.differing(predictions, frames.head(50)) == "10 frames that frames.csv does not have"
    assert scoring.data_of("moving stills", predictions) == "moving stills, random trunk"
    assert scoring.data_of("m", predictions.assign(note="random trunk; 5 folds")) == "m, random trunk"
    assert scoring.data_of("m", predictions.assign(note="5 folds")) == "m"
    assert scoring.data_of("m", predictions.assign(note="random trunk; bf16; 5 folds")) == "m, random trunk"


def test_results_say_whose_they_are(predictions, tmp_path):
    table = evaluation.results({"m": predictions}, "drawn sample")
    assert set(table["data"]) == {"drawn sample", "RAVDESS"}
    published = table[table["data"] == "RAVDESS"]
    assert published["note"].str.startswith("published").all()
    text = evaluation.results_markdown(table)
    assert "| m | drawn sample | test | 30 |" in text and "| random trunk |" in text
    figure = figures.leakage(pd.DataFrame({"split_by": ["actor"], "accuracy": [0.5]}), "A title: drawn sample")
    figures.save(figure, tmp_path / "imgs" / "a.png")
    evaluation.write_results(tmp_path, "drawn sample", table, {"results": text}, ["a.png", "b.png"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["private"] == 0
    assert [row["model"] for row in metrics["scores"]] == ["m", "m"]  # no training frames, so no most frequent class
    assert metrics["scores"][1]["frames"] == 30
    written = (tmp_path / "report.md").read_text()
    assert "![A title: drawn sample](imgs/a.png)" in written and "b.png" not in written
    assert "random trunk" in evaluation.in_words("m", predictions, "drawn sample")


def test_what_an_earlier_run_left_is_removed(tmp_path):
    names = (
        "q1.png gradcam_alexnet.png new_faces_alexnet_1.png confusion_m_test.png accuracy_by_each.png reliability.png"
    )
    (tmp_path / "imgs").mkdir()
    for name in ("metrics.json", "report.md", *(f"imgs/{name}" for name in names.split()), "imgs/accuracy_graph.png"):
        (tmp_path / name).touch()
    evaluation.clear(tmp_path)  # so that nothing of a run that then stops half-way can be published
    assert [path.name for path in tmp_path.rglob("*.*")] == ["accuracy_graph.png"]


def test_no_class_is_a_miss_and_a_column_of_its_own(frames, tmp_path):
    test = frames[frames["split"] == "test"].head(6).assign(label=["AngryFearful"] * 3 + ["Disgust"] * 3)  # two clips
    p = np.zeros((6, 5))
    p[3:5, 1] = 1
    scoring.write_predictions(tmp_path / "m.csv", test, p)
    table = scoring.read_predictions(tmp_path / "m.csv")
    assert list(table["predicted"]) == [scoring.NO_CLASS] * 3 + ["Disgust"] * 2 + [scoring.NO_CLASS]
    score = scoring.scores(table).iloc[0]
    assert score["accuracy"] == pytest.approx(2 / 6) and score["macro_recall"] == pytest.approx((0 + 2 / 3) / 2)
    assert scoring.clip_accuracy(table, "test") == 0.5  # a clip without any answer is a miss too
    counts = scoring.confusion(table, "test")
    assert list(counts.columns) == [*CLASSES, scoring.NO_CLASS]
    assert counts.loc["AngryFearful", scoring.NO_CLASS] == 3 and scoring.right_of_all(counts) == (2, 6)
    assert "to find none of the five in AngryFearful (100%" in evaluation.in_words("m", table, "drawn sample")
    assert scoring.confusion(table, "val").shape == (5, 5) and not scoring.confusion(table, "val").any(axis=None)
    assert "there are no predictions for test frames" in evaluation.in_words(
        "m", table.assign(split="val"), "drawn sample"
    )
    assert "| AngryFearful | 0 | 0 | 0 | 0 | 0 | 3 | 3 |" in evaluation.confusion_markdown({"m": table}, "drawn sample")


def test_a_gain_has_an_interval_over_actors(frames):
    """Two models on five test actors of six frames each; the second names one frame more of each actor right."""
    truth = np.eye(5)[[CLASSES.index(label) for label in frames["label"]]]
    wrong = np.roll(truth, 1, axis=1)
    test = np.flatnonzero(frames["split"] == "test")

    def model(right):
        p = wrong.copy()
        p[right] = truth[right]
        table = frames.assign(predicted=np.array(CLASSES)[p.argmax(1)])
        return table.assign(**dict(zip(scoring.PROBABILITIES, p.T, strict=True)), note="")

    first, one_more, one_actor = model(test[::3]), model(test[test % 6 < 3]), model(test[frames["actor"][test] == 20])
    found = uncertainty.gain(first, one_more)
    assert [found[what] for what in ("difference", "low", "high")] == pytest.approx([1 / 6] * 3)  # alike for each actor
    assert found["frames"] == 30 and found["actors"] == 5 and found["p"] == 2 / 32  # the least that five can give
    found = uncertainty.gain(first, one_actor)
    assert found["difference"] == pytest.approx(1 / 5 - 1 / 3) and found["low"] < 0 < found["high"]  # all for one actor
    per_actor = np.array([4, -2, -2, -2, -2])  # frames more
    exact = permutation_test((per_actor,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert found["p"] == pytest.approx(exact.pvalue)
    both = {"a": first, "b": one_more, "c": one_actor}
    assert "+16.7 points of accuracy" in uncertainty.gain_in_words(both, "a", "b")
    assert uncertainty.gain_in_words(both, "a", "b").endswith("it is better.")
    assert uncertainty.gain_in_words(both, "b", "a").endswith("it is worse.")
    assert uncertainty.gain_in_words(both, "a", "c").endswith("5 actors cannot tell them apart.")
    # of five actors, one is 4/6 better and four 2/6 worse: a standard deviation of 0.447
    assert uncertainty.actors_needed(first, one_actor, 0.1) == np.ceil((2.8 * np.sqrt(0.2) / 0.1) ** 2) == 157
    few = one_more[one_more["actor"] < 24]
    assert uncertainty.verdict(uncertainty.gain(first, few)) == "4 actors are too few to tell"
    assert "4 actors are too few to say more" in evaluation.difference_in_words(few, "drawn sample")
    assert evaluation.actors_needed_in_words({"a": first, "b": few}, "a", "drawn sample") == ""
    text = evaluation.actors_needed_in_words(both, "a", "drawn sample")
    assert "a difference of 2.6 points" in text and "as a and b do on the drawn sample: about 5," in text
    some = one_more[one_more["actor"].isin([20, 21])].iloc[:-1]
    assert uncertainty.gain(first, some)["frames"] == 11  # of the frames that both have, and it says how many
    assert "On the 11 test frames that both have" in uncertainty.gain_in_words({"a": first, "b": some}, "a", "b")
    with pytest.raises(UserError, match="no test frames in common"):
        uncertainty.gain(first, one_more.assign(split="val"))
    rows = evaluation.comparisons(both, "a")
    assert list(rows["Model"]) == ["b", "c"] and list(rows["So"]) == ["it is better", "5 actors cannot tell them apart"]


def test_intervals_agree_with_scipys_bootstrap_over_actors(predictions):
    """The actors have as many frames each, so that their accuracies are a sample whose mean is the accuracy."""
    test = predictions[predictions["split"] == "test"]
    found = uncertainty.intervals(predictions, "test")
    per_actor = (test["predicted"] == test["label"]).groupby(test["actor"]).mean().to_numpy()
    theirs = bootstrap((per_actor,), np.mean, n_resamples=5_000, method="percentile").confidence_interval
    assert found["accuracy"] == pytest.approx(tuple(theirs), abs=0.04)
    recalls = []
    for drawn in np.random.default_rng(0).integers(0, 5, (200, 5)):
        part = pd.concat([test[test["actor"] == 20 + actor] for actor in drawn])
        recalls.append(
            recall_score(part["label"], part["predicted"], labels=sorted(set(part["label"])), average="macro")
        )
    assert found["macro_recall"] == pytest.approx(tuple(np.quantile(recalls, [0.025, 0.975])), abs=0.05)


def test_recall_and_precision_of_each_class(predictions):
    found = uncertainty.by_class(predictions).set_index("class")
    test = predictions[predictions["split"] == "test"]
    for label, row in found.iterrows():
        named, played = test["predicted"] == label, test["label"] == label
        assert row["frames"] == played.sum()
        assert row["recall"] == pytest.approx((named & played).sum() / played.sum())
        assert row["precision"] == pytest.approx((named & played).sum() / named.sum())
        assert 0 <= row["low"] <= row["recall"] <= row["high"] <= 1
    never = uncertainty.by_class(predictions.assign(predicted="Sad")).set_index("class")
    assert np.isnan(never.loc["Happy", "precision"]) and never.loc["Happy", "recall"] == 0
    text = evaluation.classes_markdown(predictions.assign(predicted="Sad"))
    assert "| Happy | 3 | 0.0% (0.0 to 0.0) |  |" in text and "nan" not in text


def test_clips_stand_beside_frames(predictions):
    text = evaluation.clips_markdown({"m": predictions, "only val": predictions[predictions["split"] == "val"]})
    [row] = [line for line in text.splitlines() if line.startswith("| m |")]
    assert row.startswith("| m | 30 | ") and " | 10 | " in row and "random trunk" in row and "only val" not in text
    assert f" | 10 | {scoring.clip_accuracy(predictions, 'test'):.1%} (" in row
    clips = scoring.by_clip(predictions)
    assert list(clips.columns) == scoring.COLUMNS and len(clips) == predictions["clip"].nunique()
    one = predictions[predictions["clip"] == "clip3"]
    mean = one[scoring.PROBABILITIES].mean()
    assert clips.set_index("clip").loc["clip3", "predicted"] == mean.idxmax()[2:]


def test_all_actors_as_a_table(predictions):
    """Ten actors as if each were tested once: their accuracy is that of all frames, its interval over all ten."""
    counts = scoring.counts_by_actor({"m": predictions.assign(split="test", note="5 folds")}, "drawn sample")
    right = (predictions["predicted"] == predictions["label"]).mean()
    low, high = uncertainty.intervals(predictions.assign(split="test"), "test")["accuracy"]
    cell = f"{right:.1%} ({100 * low:.1f} to {100 * high:.1f})"
    assert f"| m | drawn sample | 10 | 60 | {cell} | " in evaluation.all_actors_markdown(counts)
    better = predictions.assign(predicted=np.where(predictions["actor"] % 2, predictions["label"], "Sad"))
    both = {"m": predictions.assign(split="test"), "better": better.assign(split="test")}
    found = uncertainty.gain(both["m"], both["better"])
    ends = " to ".join(f"{100 * found[end]:+.1f}" for end in ("low", "high"))
    lines = evaluation.all_actors_markdown(scoring.counts_by_actor(both, "drawn sample"), "m").splitlines()
    assert f"| {100 * found['difference']:+.1f} ({ends}) |" in lines[3]  # as on the frames themselves
    assert " points more than m " in lines[0].lower() and lines[2].endswith("|  | random trunk |")
    elsewhere = scoring.counts_by_actor({"better": both["better"]}, "moving stills")
    assert "(" in lines[3] and evaluation.all_actors_markdown(elsewhere, "m").endswith("|  | random trunk |")


def test_parts_of_a_split_are_counted_and_scored(predictions):
    joined = predictions.assign(sex=np.where(predictions["actor"] % 2, "male", "female"), half=np.arange(60) % 2)
    groups = uncertainty.by_group(joined, ["sex", "half"]).set_index(["what", "value"])
    assert list(groups.index) == [("sex", "female"), ("sex", "male"), ("half", "0"), ("half", "1")]
    assert list(groups["frames"]) == [18, 12, 15, 15] and list(groups["actors"]) == [3, 2, 5, 5]
    women = joined[(joined["split"] == "test") & (joined["sex"] == "female")]
    row = groups.loc[("sex", "female")]
    assert row["accuracy"] == accuracy_score(women["label"], women["predicted"])
    assert row["low"] <= row["accuracy"] <= row["high"]
    mixed = joined.assign(predicted=np.where(joined["clip"].isin(["clip10", "clip12"]), joined["label"], "no class"))
    each = uncertainty.by_group(mixed, ["actor"]).set_index("value")
    assert list(each.loc["20", ["accuracy", "low", "high"]]) == [0.5, 0, 1]  # over the actor's two clips
    assert not len(uncertainty.by_group(joined[joined["split"] == "val"], ["sex"]))


def test_the_reports_accuracy_on_each_frame_once(predictions):
    table = evaluation.each_frame_once().set_index("split")
    assert list(table["counted"]) == [2502, 2376] and list(table["frames"]) == [1625, 1546]
    by_hand = 277 + 304 / 486 * 243 + 240 / 460 * 230 + 326 / 477 * 361 + 56 / 482 * 241
    assert table.loc["test", "accuracy_once"] == pytest.approx(by_hand / 1546)
    # counted its way, a model with one recall for all classes has that recall
    right = predictions.assign(predicted=predictions["label"])
    assert evaluation.counted_as_in_the_report(right, "test") == 1.0
    only = predictions.assign(predicted="AngryFearful")
    angry, others = (only["split"] == "test") & (only["label"] == "AngryFearful"), report_times()
    n = only[only["split"] == "test"]["label"].value_counts()
    assert evaluation.counted_as_in_the_report(only, "test") == pytest.approx(angry.sum() / (n * others[n.index]).sum())


def report_times():
    published = evaluation.report_2020()
    return published["confusion"]["test"].sum(axis=1) / published["frames"]["test"]


def test_examples_follow_their_rule(frames, tmp_path):
    """Of each class the surest right and the surest wrong frame; in each column another actor where there is one."""
    rng = np.random.default_rng(5)
    table = scoring.write_predictions(tmp_path / "m.csv", frames, rng.dirichlet(np.ones(5), 60))
    chosen = evaluation.examples(table)
    for rows, right in zip(chosen, (True, False), strict=True):
        part = table[(table["split"] == "val") & ((table["predicted"] == table["label"]) == right)]
        used = []
        for label in [label for label in evaluation.report_2020()["examples"] if label in set(part["label"])]:
            of_class = part[part["label"] == label]
            fresh = of_class[~of_class["actor"].isin(used)]
            best = (fresh if len(fresh) else of_class)[scoring.PROBABILITIES].max(axis=1)
            assert rows.loc[label, "path"] == table.loc[best.idxmax(), "path"]
            assert rows.loc[label, "confidence"] == best.max()
            used.append(rows.loc[label, "actor"])
        assert set(rows.index) == set(part["label"])
    text = evaluation.examples_markdown(*chosen)
    for i, label in enumerate(chosen[1].index):
        assert f"![{label}, taken for {chosen[1].loc[label, 'predicted']}](imgs/q" in text, i
    assert "| Disgust, Sad |" in text.splitlines()[2]
    nothing = evaluation.examples(table[table["split"] == "test"])
    assert not len(nothing[0]) and "| Disgust |  | none |  | none | Disgust, Sad |" in evaluation.examples_markdown(
        *nothing
    )
