import numpy as np
import pandas as pd
import pytest
import sklearn
from packaging.version import Version
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from helpers import calibration
from helpers.ravdess import CLASSES
from helpers.scoring import NO_CLASS, PROBABILITIES


def predictions(p, labels, split="test"):
    table = pd.DataFrame(p, columns=PROBABILITIES)
    table["predicted"] = np.array(CLASSES)[np.argmax(p, axis=1)]
    return table.assign(label=labels, split=split, note="")


@pytest.fixture
def logits_and_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    return 3 * rng.normal(size=(400, 5)) + 2 * np.eye(5)[labels], np.array(CLASSES)[labels]


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def test_reliability_agrees_with_scikit_learn(logits_and_labels):
    table = predictions(softmax(logits_and_labels[0]), logits_and_labels[1])
    found = calibration.reliability(table)
    accuracy, confidence = calibration_curve(
        table["predicted"] == table["label"], table[PROBABILITIES].max(axis=1), n_bins=10
    )
    assert found["accuracy"].to_numpy() == pytest.approx(accuracy)
    assert found["confidence"].to_numpy() == pytest.approx(confidence)
    assert found["frames"].sum() == 400 and (found["low"] < found["confidence"]).all()
    assert (found["confidence"] <= found["high"] + 1e-9).all()


def test_calibration_error_in_a_case_written_out():
    sure, unsure = [0.9, 0.1, 0, 0, 0], [0.4, 0.3, 0.1, 0.1, 0.1]
    labels = ["AngryFearful"] * 3 + ["Disgust"] + ["AngryFearful", "Disgust"]  # 3 of 4 at 90 %, 1 of 2 at 40 %
    table = predictions(np.array([sure] * 4 + [unsure] * 2), labels)
    assert calibration.calibration_error(table) == pytest.approx((4 * (0.9 - 0.75) + 2 * (0.5 - 0.4)) / 6)
    silent = predictions(np.zeros((3, 5)), "Sad").assign(predicted=NO_CLASS)
    assert calibration.calibration_error(pd.concat([table, silent])) == calibration.calibration_error(table)


@pytest.mark.skipif(Version(sklearn.__version__) < Version("1.8"), reason="needs scikit-learn 1.8")
def test_the_temperature_agrees_with_scikit_learn(logits_and_labels):
    """A classifier whose logits are three times too large, calibrated by scikit-learn and by ours."""
    from sklearn.frozen import FrozenEstimator

    x, labels = logits_and_labels
    model = LogisticRegression().fit(x, labels)
    model.coef_, model.intercept_ = 3 * model.coef_, 3 * model.intercept_
    table = predictions(model.predict_proba(x), labels, "val")
    t = calibration.temperature(table)
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(x, labels)
    ours = calibration.with_temperature(table, t)
    assert t > 2
    assert ours[PROBABILITIES].to_numpy() == pytest.approx(theirs.predict_proba(x), abs=2e-3)
    assert (ours["predicted"] == ours[PROBABILITIES].idxmax(axis=1).str[2:]).all()
    assert log_loss(labels, ours[PROBABILITIES]) < log_loss(labels, table[PROBABILITIES])


def test_the_summary_fits_on_validation_and_measures_on_test(logits_and_labels):
    x, labels = logits_and_labels
    val, test = predictions(softmax(3 * x), labels, "val"), predictions(softmax(3 * x), labels)
    whole = pd.concat([val, test], ignore_index=True)
    found = calibration.summary({"m": whole, "only test": test, "silent": whole.assign(predicted=NO_CLASS)})
    assert list(found["Model"]) == ["m"] and found["Frames"].item() == "400"
    assert float(found["Log loss after"].item()) < float(found["Log loss"].item())
    softer = calibration.with_temperature(val.assign(predicted=NO_CLASS), 2)
    assert softer[PROBABILITIES].equals(val[PROBABILITIES])  # no answer stays no answer
