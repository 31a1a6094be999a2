"""RAVDESS from Zenodo: real HTTPS, to a server on the loopback interface that misbehaves on demand."""

import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from helpers import frames, ravdess, workspace, zenodo
from helpers.workspace import SAMPLE, UserError
from tests.test_frames import some_clips
from tests.zenodo_server import RECORD, Zenodo, archive

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, for a certificate")

API = f"/api/records/{RECORD}"
A_ZIP = "Video_Speech_Actor_{:02d}.zip/content"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Zenodo with three actors' archives, of five clips each (one of them surprised); nobody waits for long."""
    clips = some_clips(tmp_path / "clips", each=4)
    archives = []
    for actor in (1, 15, 20):
        surprised = next((SAMPLE / f"Actor_{actor:02d}").glob("01-01-08-*.mp4"))
        archives.append(archive(tmp_path, actor, [*sorted((clips / f"Actor_{actor:02d}").glob("*.mp4")), surprised]))
    monkeypatch.setattr(zenodo, "WAITS", (0,) * 4)
    with Zenodo(tmp_path, archives) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        monkeypatch.setenv("NO_PROXY", "")
        yield server


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run over RAVDESS, all of it below this test's folder."""
    monkeypatch.setattr(workspace, "RAVDESS", tmp_path / "data" / "ravdess")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("DATA")
    return workspace.ravdess_run()


def downloads(server, actor):
    return sum(address.endswith(A_ZIP.format(actor)) for address in server.asked)


def test_fetch_takes_the_chosen_clips_and_goes_on(served, tmp_path):
    served.faults |= {API: [429, 503], A_ZIP.format(1): ["cut", 429, "lie"]}
    folder = tmp_path / "ravdess"
    assert zenodo.fetch([1], folder) == {1: 5}
    assert downloads(served, 1) == 4
    assert {path.name[:2] for path in folder.rglob("*.mp4")} == {"01"} and not list(folder.glob("*.zip"))
    assert zenodo.fetch([1, 15], folder, keep_zips=True) == {1: 5, 15: 5}
    assert downloads(served, 1) == 4 and downloads(served, 15) == 1
    assert [path.name for path in folder.glob("*.zip")] == ["Video_Speech_Actor_15.zip"]


def test_a_fetch_that_fails_for_good_is_one_sentence_and_leaves_nothing_half(served, tmp_path, monkeypatch):
    served.faults |= {A_ZIP.format(15): ["lie"] * 5, A_ZIP.format(20): ["cut"] * 5}
    for actor in (15, 20):
        with pytest.raises(UserError, match=rf"Actor {actor} could not be fetched \(.*: run this again to go on"):
            zenodo.fetch([1, actor], tmp_path / "ravdess")
        assert downloads(served, actor) == 5
    assert downloads(served, 1) == 1 and not list(tmp_path.glob("ravdess/*.zip"))
    with pytest.raises(UserError, match="Actor 07 could not be fetched .*not in the registry"):
        zenodo.fetch([7], tmp_path / "ravdess")
    served.faults |= {API: [429] * 5}
    with pytest.raises(UserError, match="Zenodo's list of files could not be fetched"):
        zenodo.fetch([20], tmp_path / "ravdess")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(UserError, match=r"24 actors need 9\.0 GB, and 0\.1 GB are free"):
        zenodo.fetch(range(1, 25), tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"24 actors need 2\.2 GB, and 0\.1 GB are free"):
        zenodo.plan(range(1, 25), tmp_path)


def test_no_path_in_an_archive_is_trusted(served, tmp_path):
    clip = next(SAMPLE.glob("Actor_01/*.mp4")).read_bytes()
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as zipped:
        for path in """Actor_01/01-01-03-01-01-01-01.mp4 Actor_01/readme.txt ../../../01-01-04-01-01-01-01.mp4
            /01-01-05-01-01-01-01.mp4 01-01-05-01-01-01-02.mp4""".split():
            zipped.writestr(path, clip)
    served.archives["Video_Speech_Actor_01.zip"] = (tmp_path / "hostile.zip").read_bytes()
    assert zenodo.fetch([1], tmp_path / "deep" / "ravdess") == {1: 3}
    found = {path.relative_to(tmp_path / "deep").as_posix() for path in tmp_path.rglob("01-01-0*-01-01-01-01.mp4")}
    assert found >= {f"ravdess/Actor_01/01-01-0{e}-01-01-01-01.mp4" for e in (3, 4, 5)}
    assert not Path("/01-01-05-01-01-01-01.mp4").exists() and not (tmp_path / "01-01-04-01-01-01-01.mp4").exists()
    served.archives["Video_Speech_Actor_15.zip"] = b"no archive"
    with pytest.raises(UserError, match="Video_Speech_Actor_15.zip is damaged .*: delete it and fetch again"):
        zenodo.fetch([15], tmp_path / "deep" / "ravdess")


def clips_of(folder, surprised):
    return [path for path in folder.rglob("*.mp4") if ("-08-" in path.name[:12]) == surprised]


def test_all_passes_through_a_small_disk_and_gives_the_same_frames(served, run, tmp_path, monkeypatch):
    here, prepare = [], frames.prepare

    def watched(clips, root):
        here.append((len(clips_of(run.data, False)), len(list(run.data.rglob("*.zip")))))
        return prepare(clips, root)

    monkeypatch.setattr(frames, "prepare", watched)
    said = []
    assert zenodo.fetch_and_cut([20, 1, 15, 1], said.append) == run == workspace.open_run()
    assert "3 actors, 1.8 GB to download" in said[0] and "GB are free" in said[0]
    assert said[1:] == ["Actor 01, 1 of 3", "Actor 15, 2 of 3", "Actor 20, 3 of 3"]
    assert here == [(4, 0)] * 3  # one actor's clips at a time, and no archive any more
    assert not clips_of(run.data, False) and len(clips_of(run.data, True)) == 3
    ours = pd.read_csv(run.root / "frames.csv")
    kept, _ = prepare(ravdess.find_clips(tmp_path / "clips")[0], tmp_path / "kept")
    pd.testing.assert_frame_equal(ours, kept)
    for path in ours["path"]:
        assert (run.root / path).read_bytes() == (tmp_path / "kept" / path).read_bytes()

    # 01 goes on with what is there
    asked = len(served.asked)
    assert zenodo.fetch_and_cut([1, 15, 20], said.append) == run and len(served.asked) == asked
    clips, skipped = ravdess.find_clips(run.data, dropped=zenodo.dropped(run))
    assert len(clips) == 12 and [reason for _, reason in skipped] == [ravdess.NO_CLASS] * 3
    table, failed = prepare(clips, run.root)
    pd.testing.assert_frame_equal(table, ours)
    assert not failed
    surprised = {ravdess.ClipName.parse(path.name): path for path, _ in skipped}
    pictures = frames.one_of_each_emotion(clips | surprised, run.root)
    assert [name.emotion.name for name in pictures] == sorted({name.emotion.name for name in clips | surprised})
    assert {picture.size for picture in pictures.values()} == {(640, 360)}

    # a frame is lost: its clip is named, the others stay, and its actor is fetched again
    lost = run.root / ours["path"][ours["actor"] == 15].iloc[0]
    lost.unlink()
    table, failed = prepare(clips, run.root)
    assert [reason for _, reason in failed] == [
        "not there (any more), and not all of its frames are: fetch its actor again"
    ]
    assert table["clip"].nunique() == 11
    zenodo.fetch_and_cut([1, 15, 20], said.append)
    assert [downloads(served, actor) for actor in (1, 15, 20)] == [1, 2, 1]
    pd.testing.assert_frame_equal(pd.read_csv(run.root / "frames.csv"), ours)


def test_cut_off_it_goes_on_and_clips_that_were_fetched_to_be_kept_stay(served, run, monkeypatch):
    zenodo.fetch([1], run.data)
    prepare = frames.prepare

    def cut_off(clips, root):
        if any(name.actor == 15 for name in clips):
            raise KeyboardInterrupt
        return prepare(clips, root)

    monkeypatch.setattr(frames, "prepare", cut_off)
    with pytest.raises(KeyboardInterrupt):
        zenodo.fetch_and_cut([1, 15, 20], lambda text: None)
    monkeypatch.setattr(frames, "prepare", prepare)
    zenodo.fetch_and_cut([1, 15, 20], lambda text: None)
    assert [downloads(served, actor) for actor in (1, 15, 20)] == [1, 1, 1]
    assert {name.actor for name in zenodo.dropped(run)} == {15, 20}
    assert {path.parent.name for path in clips_of(run.data, False)} == {"Actor_01"}
    assert len(pd.read_csv(run.root / "frames.csv")["clip"].unique()) == 12


def test_clips_that_somebody_put_there_are_neither_fetched_nor_dropped(served, run, tmp_path, monkeypatch):
    monkeypatch.setattr(zenodo, "CLIPS", 4)
    shutil.copytree(tmp_path / "clips", run.data)  # four of each actor: by hand, so without a mark
    (run.data / "Actor_20" / "01-01-01-01-01-01-20.mp4").unlink(missing_ok=True)
    lacking = sorted((run.data / "Actor_15").glob("*.mp4"))[0]
    lacking.unlink()  # of this one the archive has to be fetched, and the clips stay all the same
    before = set(run.data.rglob("*.mp4"))
    said = []
    zenodo.fetch_and_cut([1, 15], said.append)
    assert said[0].startswith("1 actor, 0.6 GB to download")
    assert [downloads(served, actor) for actor in (1, 15)] == [0, 1]
    assert before | {lacking} <= set(run.data.rglob("*.mp4")) and not zenodo.dropped(run)
    with pytest.raises(UserError, match="RAVDESS has no actor 25: name some of 1 to 24"):
        zenodo.fetch_and_cut([1, 25], said.append)


def test_a_clip_that_cannot_be_cut_stays_and_is_fetched_again_once_it_is_lost(served, run, tmp_path):
    broken = sorted((tmp_path / "clips" / "Actor_01").glob("*.mp4"))[0]
    broken.write_bytes(broken.read_bytes()[:2000])
    file = archive(tmp_path, 1, (tmp_path / "clips" / "Actor_01").glob("*.mp4"))
    served.archives[file.name] = file.read_bytes()
    zenodo.fetch_and_cut([1], lambda text: None)
    assert [path.name for path in clips_of(run.data, False)] == [broken.name]
    zenodo.fetch_and_cut([1], lambda text: None)
    assert downloads(served, 1) == 1
    clips, _ = ravdess.find_clips(run.data, dropped=zenodo.dropped(run))
    _, failed = frames.prepare(clips, run.root)
    assert [path.name for path, _ in failed] == [broken.name]
    shutil.rmtree(run.data)  # another machine, to which the run was brought back
    _, failed = frames.prepare(ravdess.find_clips(run.data, dropped=zenodo.dropped(run))[0], run.root)
    assert [path.name for path, _ in failed] == [broken.name]
    zenodo.fetch_and_cut([1], lambda text: None)
    assert downloads(served, 1) == 2
