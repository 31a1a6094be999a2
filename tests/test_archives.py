"""Archives that are damaged or made to harm, in the two places that read any; and a fetch that is killed."""

import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from helpers import keeping, workspace, zenodo
from helpers.workspace import REPOSITORY, SAMPLE, UserError
from tests.test_frames import some_clips, tree
from tests.zenodo_server import Zenodo, archive

TEN_GB, ITS_CRC = 10**10, 0x2AF1CC17  # of zeros
TEXT = b"".join(b"line %d\n" % n for n in range(2000))


def packed(*entries, method=zipfile.ZIP_STORED):
    """An archive of (name or ZipInfo, content), as bytes; the method is the last one's."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in entries:
            zipped.writestr(name, content, method if (name, content) == entries[-1] else None)
    return file.getvalue()


def with_headers(content, name, **fields):
    """An archive in which the last entry's two headers say something else: `flags`, `method`, `size` or `offset`."""
    content = bytearray(content)
    central = content.rindex(b"PK\x01\x02")
    local = struct.unpack_from("<I", content, central + 42)[0]
    for field, value in fields.items():
        kind, here, there = {"flags": ("<H", 8, 6), "method": ("<H", 10, 8), "size": ("<II", 20, 18)}.get(
            field, ("<I", 42, None)
        )
        for start in [central + here] if there is None else [central + here, local + there]:
            struct.pack_into(kind, content, start, *(value if isinstance(value, tuple) else [value]))
    assert name.encode() in content
    return bytes(content)


def with_byte(content, name, place, value):
    """An archive with one byte changed in what lies behind the first local header with this name."""
    content = bytearray(content)
    start = content.index(name.encode()) + len(name)
    content[start + place] = value
    return bytes(content)


def bomb(name, says=TEN_GB):
    """10 GB of zeros, deflated to 10 MB: the same block a thousand times, and a header that may lie about the size."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = (compressor.compress(bytes(10**7)) + compressor.flush(zlib.Z_FULL_FLUSH)) * 1000 + b"\x03\x00"
    much, name = 2**32 - 1, name.encode()
    start = struct.pack("<HHHHHIII", 45, 0, 8, 0, 33, ITS_CRC, much, much) + struct.pack("<HH", len(name), 20)
    extra = struct.pack("<HHQQ", 1, 16, says, len(data))
    local = b"PK\x03\x04" + start + name + extra
    central = b"PK\x01\x02\x2d\x00" + start + bytes(14) + name + extra
    return (
        local + data + central + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local + data), 0)
    )


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def hostile(good, bad):
    """{what: an archive with two names in it, of which the second entry is not to be had}."""
    both = packed((good, TEXT), (bad, TEXT))
    deflated = packed((good, TEXT), (bad, TEXT), method=zipfile.ZIP_DEFLATED)
    only = packed((bad, TEXT), method=zipfile.ZIP_DEFLATED)
    return {
        "wrong checksum": with_byte(both, bad, 9, 0),
        "flipped bits": with_byte(deflated, bad, 0, 0xFF),
        "encrypted": with_headers(both, bad, flags=1),
        "unknown method": with_headers(both, bad, method=99),
        "bzip2": packed((good, TEXT), (bad, TEXT), method=zipfile.ZIP_BZIP2),
        "link": packed((good, TEXT), (link(bad), b"../../../outside")),
        "no bytes": packed((good, TEXT), (bad, b"")),
        "runs past the end": with_headers(both, bad, size=(10**5, 10**5)),
        "lies about its place": with_headers(both, bad, offset=2**31),
        "cut stream": with_headers(deflated, bad, size=(100, len(TEXT))),
        "archive cut short": both[:-30],
        "archive cut in the middle": only[:-200],
        "name of wrong bytes": with_headers(both, bad, flags=0x800).replace(bad.encode(), b"\xff" + bad.encode()[1:]),
        "no archive": b"<html>busy</html>",
        "no bytes at all": b"",
    }


HOSTILE = sorted(hostile("good", "bad!"))


@pytest.fixture
def lean():
    """No file grows past what a clip may have, and little memory is taken."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (zenodo.CLIP_BYTES, limits[1]))
    tracemalloc.start()
    yield
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert most < 60e6


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock"}


# clips from Zenodo

CLIP, OTHER = (f"01-01-03-01-01-0{n}-01.mp4" for n in (1, 2))
ZIP = "Video_Speech_Actor_01.zip"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Zenodo with three actors' archives, of eight clips each (one of them surprised); nobody waits for long."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, for a certificate")
    folder = tmp_path_factory.mktemp("zenodo")
    clips, archives = some_clips(folder / "clips", each=7), []
    for actor in (1, 15, 20):
        surprised = next((SAMPLE / f"Actor_{actor:02d}").glob("01-01-08-*.mp4"))
        archives.append(archive(folder, actor, [*sorted((clips / f"Actor_{actor:02d}").glob("*.mp4")), surprised]))
    with pytest.MonkeyPatch.context() as patch, Zenodo(folder, archives) as server:
        patch.setattr(zenodo, "WAITS", (0,) * 4)
        patch.setenv("HTTPS_PROXY", server.url)
        patch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        patch.setenv("NO_PROXY", "")
        server.real = dict(server.archives)
        yield server


def fetch_fails(served, folder, content, message):
    """A fetch of this archive is one sentence and leaves nothing but the archive; a good one is then unpacked."""
    served.archives[ZIP] = content
    outside = everything(folder.parent)
    with pytest.raises(UserError, match=message) as raised:
        zenodo.fetch([1], folder)
    assert "\n" not in str(raised.value)
    inside = {folder.name, f"{folder.name}/Actor_01", f"{folder.name}/{ZIP}"}
    assert everything(folder.parent) - outside <= inside
    served.archives[ZIP] = packed((f"Actor_01/{CLIP}", TEXT), (f"Actor_01/{OTHER}", TEXT))
    assert zenodo.fetch([1], folder) == {1: 2}
    assert {path.read_bytes() for path in folder.rglob("*.mp4")} == {TEXT}
    assert everything(folder) == {"Actor_01", *(f"Actor_01/{p}" for p in (CLIP, OTHER, ".modality-01-complete"))}


@pytest.mark.parametrize("what", HOSTILE)
def test_no_clip_of_a_hostile_archive_is_left(served, tmp_path, what):
    content = hostile(f"Actor_01/{CLIP}", f"Actor_01/{OTHER}")[what]
    fetch_fails(served, tmp_path / "deep" / "ravdess", content, rf"{ZIP} is damaged \(.+\): delete it and fetch again")


@pytest.mark.parametrize(
    "names", [[], [f"Actor_01/{CLIP[:-3]}txt", "01-01-03-01-01-01-02.mp4"]], ids=["empty", "of others"]
)
def test_an_archive_without_a_clip_of_the_actor_is_not_taken_for_whole(served, tmp_path, names):
    content = packed(*((name, TEXT) for name in names))
    fetch_fails(served, tmp_path / "ravdess", content, "it holds no clip of actor 01")


@pytest.mark.parametrize("says", [TEN_GB, 10**6])
def test_a_clip_that_unpacks_to_10_gb_stops_early(served, tmp_path, lean, says):
    fetch_fails(served, tmp_path / "ravdess", bomb(CLIP, says), rf"{ZIP} is damaged \(.+\): delete it and fetch again")


def test_clips_leave_their_folder_by_no_path_and_the_first_of_a_name_counts(served, tmp_path):
    names = f"../../{CLIP} {CLIP} Actor_01/{CLIP[:-3]}MP4 /{OTHER[:-3]}MP4 {OTHER} Actor_02/{OTHER}".split()
    names += [
        f"..\\..\\{OTHER}",
        f"C:\\{OTHER}",
        f"{CLIP}/",
        "../x/",
        "/etc/x.mp4",
        "../Actor_02/01-01-03-01-01-01-02.mp4",
        "Actor_01/02" + CLIP[2:],
    ]
    served.archives[ZIP] = packed(*((link(n) if n[:2] == "02" else n, n.encode()) for n in names))
    folder = tmp_path / "one" / "two" / "ravdess"
    assert zenodo.fetch([1], folder) == {1: 2}
    inside = {f"Actor_01/{p}" for p in (CLIP, OTHER, ".modality-01-complete")}
    assert everything(folder) == {"Actor_01", *inside} and everything(tmp_path / "one") >= {"two", "two/ravdess"}
    assert len(everything(tmp_path)) == 7
    assert [(folder / "Actor_01" / p).read_text() for p in (CLIP, OTHER)] == [f"../../{CLIP}", f"/{OTHER[:-3]}MP4"]
    assert not Path("/", OTHER).exists()


def test_an_archive_that_rotted_on_the_disk_is_fetched_again(served, tmp_path):
    served.archives[ZIP] = packed((f"Actor_01/{CLIP}", TEXT))
    (tmp_path / ZIP).write_bytes(with_byte(served.archives[ZIP], CLIP, 9, 0))
    assert zenodo.fetch([1], tmp_path) == {1: 1}
    assert (tmp_path / "Actor_01" / CLIP).read_bytes() == TEXT


def test_a_link_or_a_file_in_the_place_of_a_folder_is_one_sentence(served, tmp_path):
    served.archives[ZIP] = packed((f"Actor_01/{CLIP}", TEXT))
    folder, actor, outside = tmp_path / "ravdess", tmp_path / "ravdess" / "Actor_01", tmp_path / "outside"
    outside.mkdir()
    folder.write_text("a file")
    asked = len(served.asked)
    with pytest.raises(UserError, match="ravdess is a file or a link, where a folder should be: move it away"):
        zenodo.fetch([1], folder)
    folder.unlink()
    folder.mkdir()
    for place in (lambda: actor.write_text("a file"), lambda: actor.symlink_to(outside), lambda: actor.symlink_to("x")):
        place()
        with pytest.raises(UserError, match="Actor_01 is a file or a link, where a folder should be: move it away"):
            zenodo.fetch([1], folder)
        actor.unlink()
    assert len(served.asked) == asked and not everything(outside)
    (actor / CLIP).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^[^ ]+/{CLIP} cannot be written \(Is a directory\): see that"):
        zenodo.fetch([1], folder)
    assert everything(actor) == {CLIP}
    (actor / CLIP).rmdir()
    assert zenodo.fetch([1], folder) == {1: 1}


def test_what_a_broken_fetch_left_is_not_taken_for_clips_that_are_to_stay(served, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "RAVDESS", tmp_path / "ravdess")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    real = served.real[ZIP]
    last = zipfile.ZipFile(BytesIO(real)).namelist()[-2]
    served.archives[ZIP] = with_byte(real, last, 9, 0)
    with pytest.raises(UserError, match="Bad CRC-32"):
        zenodo.fetch_and_cut([1], lambda text: None)
    draft = tmp_path / "ravdess" / "Actor_01" / f".{CLIP}.1.part"
    draft.write_bytes(TEXT)  # as a kill leaves it
    served.archives[ZIP] = real
    run = zenodo.fetch_and_cut([1], lambda text: None)
    assert [path.name[:8] for path in run.data.rglob("*.mp4")] == ["01-01-08"] and not draft.exists()


class OnDisk:
    def __init__(self, folder):
        self.folder = folder

    def fetch(self, name, progressbar):
        return self.folder / name


def test_no_flipped_bit_is_a_traceback(tmp_path, caplog):
    chance = random.Random(2020)
    frame, _ = FRAMES
    for content, name in ((packed((CLIP, TEXT), method=zipfile.ZIP_DEFLATED), CLIP), (packed((frame, TEXT)), frame)):
        copy = tmp_path / "copy" / "ravdess" / "frames" / "Actor_01.zip"
        copy.parent.mkdir(parents=True, exist_ok=True)
        start = content.rindex(b"PK\x01\x02")
        for n in range(100):
            flipped = bytearray(content)
            for _ in range(chance.randint(1, 3)):  # half of them in the headers
                place = chance.randrange(start if n % 2 else 0, len(content))
                flipped[place] ^= 1 << chance.randrange(8)
            (tmp_path / ZIP).write_bytes(flipped)
            copy.write_bytes(flipped)
            runs, folder = tmp_path / f"runs-{n}", tmp_path / f"ravdess-{n}"
            keeping.restore(tmp_path / "copy", runs)
            try:
                zenodo.fetch([1], folder, keep_zips=True, source=OnDisk(tmp_path))
            except UserError:
                assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
            pictures = [path for path in (*runs.rglob("*"), *folder.rglob("*.mp4")) if path.is_file()]
            assert all(TEXT.startswith(path.read_bytes()) for path in pictures), name
            shutil.rmtree(runs, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
    assert not [path for path in everything(tmp_path) if path.count("/") > 3]


# frames from a copy

FRAMES = [f"frames/train/Happy/01-01-03-01-01-01-01_0{k}.jpg" for k in range(2)]


@pytest.fixture
def kept(tmp_path):
    """Where the frames of actor 01 are kept."""
    path = tmp_path / "Drive" / "ravdess" / "frames" / "Actor_01.zip"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("what", HOSTILE)
def test_no_frame_of_a_hostile_archive_is_left_but_the_good_ones_are(kept, tmp_path, caplog, what):
    kept.write_bytes(hostile(*FRAMES)[what])
    here, copy = tmp_path / "here" / "runs", tmp_path / "Drive"
    keeping.restore(copy, here)
    assert "Actor_01.zip is damaged (" in caplog.text and "(;" not in caplog.text
    unreadable = what.startswith(("archive", "no archive", "no bytes at all", "name"))
    found = {p.relative_to(here / "ravdess").as_posix(): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert found == ({} if unreadable else {FRAMES[0]: TEXT})
    # the frames are made again, and the archive too; the next machine has them all
    for name in FRAMES:
        (here / "ravdess" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "ravdess" / name).write_bytes(TEXT)
    keeping.save(here, copy, keeping.restore(copy, here))
    caplog.clear()
    keeping.restore(copy, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(here) and len(tree(here)) == 2 and not caplog.text


@pytest.mark.parametrize("says", [TEN_GB, 5 * 10**5])
def test_a_frame_that_unpacks_to_10_gb_stops_early(kept, tmp_path, lean, caplog, says):
    kept.write_bytes(bomb(FRAMES[0], says))
    keeping.restore(tmp_path / "Drive", tmp_path / "here")
    assert "Actor_01.zip is damaged (" in caplog.text and not tree(tmp_path)


def test_many_frames_that_unpack_to_more_than_an_actor_has_stop_early(kept, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(keeping, "ACTOR_BYTES", 10 * len(TEXT))
    kept.write_bytes(packed(*((FRAMES[0].replace("_00", f"_{k:02d}"), TEXT) for k in range(50))))
    keeping.restore(tmp_path / "Drive", tmp_path / "here")
    assert len(tree(tmp_path / "here")) == 10 and "40 in all" in caplog.text


def test_frames_leave_their_folder_by_no_path_and_the_first_of_a_name_counts(kept, tmp_path, caplog):
    frame = FRAMES[0]
    names = f"""frames/../../../x frames/../../x/frames/train/Happy/{Path(frame).name} ../{frame} /{frame} frames/x.jpg
        {frame.replace("Happy", "happy")} {frame.replace("jpg", "JPG")} {frame.replace("train", "..")} frames\\..\\x.jpg
        {frame.replace("-01_", "-02_")} frames/train/Happy/ {frame}/ {frame}/x.jpg {frame} {frame}""".split()
    with pytest.warns(UserWarning, match="Duplicate name"):
        kept.write_bytes(packed(*((name, b"%d" % n) for n, name in enumerate(names))))
    before = everything(tmp_path)
    keeping.restore(tmp_path / "Drive", tmp_path / "one" / "two" / "here")
    run = tmp_path / "one" / "two" / "here" / "ravdess"
    parents = {p.relative_to(tmp_path).as_posix() for p in (run / frame).parents if p.is_relative_to(tmp_path)} - {"."}
    assert everything(tmp_path) - before == parents | {(run / frame).relative_to(tmp_path).as_posix()}
    assert (run / frame).read_bytes() == b"%d" % (len(names) - 2)
    assert f"{len(names) - 1} in all" in caplog.text


def test_a_file_in_the_place_of_the_frames_folder_is_one_sentence(kept, tmp_path):
    kept.write_bytes(packed((FRAMES[0], TEXT)))
    run = tmp_path / "here" / "ravdess"
    run.mkdir(parents=True)
    (run / "frames").write_text("a file")
    with pytest.raises(UserError, match=r"_00\.jpg cannot be written \(.*: see that the disk"):
        keeping.restore(tmp_path / "Drive", tmp_path / "here")
    (run / "frames").unlink()
    keeping.restore(tmp_path / "Drive", tmp_path / "here")
    assert tree(run) == {FRAMES[0]: TEXT}


# killed

FETCH = """
import shutil, sys, time
from pathlib import Path
from helpers import workspace, zenodo
copy = shutil.copyfileobj
shutil.copyfileobj = lambda *files: (time.sleep(0.03), copy(*files))  # a drawn clip is small, a real one is not
workspace.RAVDESS = Path(sys.argv[1], "ravdess")
zenodo.fetch_and_cut([1, 15, 20], lambda text: print(text, flush=True))
"""


def started(folder):
    """A fetch in a process group of its own, once it has said what it is about to do."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, folder], env={**os.environ, "RUNS": str(folder / "runs")}, cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=(folder / "stderr.txt").open("w"), start_new_session=True,
    )  # fmt: skip
    process.stdout.readline()
    return process


def ended(folder):
    process = started(folder)
    process.communicate(timeout=120)
    assert process.returncode == 0, (folder / "stderr.txt").read_text()
    assert not list((folder / "ravdess").rglob("*.part"))
    return tree(folder / "runs")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.torture)])
def test_a_fetch_that_is_killed_again_and_again_ends_with_the_same_frames(served, tmp_path, kills):
    served.archives |= served.real
    whole, begin = started(tmp_path / "whole"), time.monotonic()
    whole.communicate(timeout=120)
    length, expected = time.monotonic() - begin, tree(tmp_path / "whole" / "runs")
    assert len([name for name in expected if name.endswith(".jpg")]) > 90 and "ravdess/frames.csv" in expected
    folder, landed = tmp_path / "killed-0", 0
    for number in range(4 * kills):
        process = started(folder)
        try:
            process.communicate(timeout=length * (landed + 1) / (kills + 1))
        except subprocess.TimeoutExpired:
            if landed % 2:  # with all that it has started, or it alone: its ffmpeg then goes on for a moment
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            landed += 1
        else:  # it was done before: a new one
            assert process.returncode == 0 and tree(folder / "runs") == expected, (folder / "stderr.txt").read_text()
            folder, length = tmp_path / f"killed-{number + 1}", length * 0.9
        if landed == kills:
            break
    assert landed == kills
    assert ended(folder) == expected
