import itertools

import pytest

from helpers import ravdess
from helpers.ravdess import ClipName, Emotion, Intensity, Modality
from helpers.workspace import UserError


def test_every_name_is_parsed_and_printed_both_ways():
    codes = itertools.product((1, 2, 3), (1, 2), range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25))
    seen = 0
    for code in codes:
        text = "-".join(f"{part:02d}" for part in code)
        if code[2:4] == (1, 2):
            with pytest.raises(ValueError, match="no strong neutral"):
                ClipName.parse(text)
            continue
        name = ClipName.parse(f"some/folder/{text}.mp4")
        assert str(name) == text
        seen += 1
    assert seen == 3 * 2 * 15 * 2 * 2 * 24


def test_a_name_says_sex_and_class():
    name = ClipName.parse("02-01-06-02-01-02-12.mp4")  # the example in RAVDESS's own documentation
    assert (name.modality, name.emotion, name.intensity) == (Modality.VIDEO_ONLY, Emotion.FEARFUL, Intensity.STRONG)
    assert (name.sex, name.label, name.actor, name.repetition) == ("female", "AngryFearful", 12, 2)
    assert ClipName.parse("01-01-08-01-01-01-01").label is None
    assert {ClipName.parse(f"01-01-{e:02d}-01-01-01-01").label for e in range(1, 8)} == set(ravdess.CLASSES)


@pytest.mark.parametrize(
    "text",
    ["", "clip.mp4", "01-01-01-01-01-01.mp4", "01-01-09-01-01-01-01", "00-01-01-01-01-01-01", "1-1-1-1-1-1-1",
     "01-01-01-01-01-03-01", "01-01-01-01-01-01-25", "01-01-01-01-01-01-00", "٠١-01-01-01-01-01-01",
     "01-01-01-01-01-01-01-01"],
)  # fmt: skip
def test_wrong_names_are_refused(text):
    with pytest.raises(ValueError):
        ClipName.parse(text)


def test_no_actor_is_in_two_splits():
    ravdess.check_split(ravdess.REPORT_SPLIT)
    assert sorted(a for part in ravdess.REPORT_SPLIT.values() for a in part) == list(range(1, 25))
    with pytest.raises(ValueError, match=r"\[14\]"):
        ravdess.check_split({"train": range(1, 15), "test": range(14, 25)})


def test_each_performance_is_used_once_and_the_rest_is_counted(tmp_path):
    names = """01-01-03-01-01-01-01 02-01-03-01-01-01-01 02-01-04-01-01-01-02 03-01-04-01-01-01-02
               01-02-04-01-01-01-02 01-01-08-01-01-01-03 holiday""".split()
    for name in names:
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "01-01-05-01-01-01-05.mp4").mkdir()
    again = tmp_path / "again" / "01-01-03-01-01-01-01.MP4"
    again.parent.mkdir()
    again.touch()
    clips, skipped = ravdess.find_clips(tmp_path)
    assert [str(name) for name in clips] == ["01-01-03-01-01-01-01", "02-01-04-01-01-01-02"]
    reasons = sorted(reason.split(":")[0] for _, reason in skipped)
    assert reasons == sorted(
        ["the same performance once more"] * 2 + ["audio only", "song", "surprised", "wrong name", "not a file"]
    )
    assert len(ravdess.find_clips(tmp_path, song=True)[0]) == 3
    with pytest.raises(UserError, match="no folder of clips"):
        ravdess.find_clips(tmp_path / "nowhere")
