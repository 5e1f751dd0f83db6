"""Media on the command line, as somebody meets them without any vendor key: real commands in a folder of their own."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import time
import wave

import pytest
from PIL import Image

from llm_gate.cli.making import save
from llm_gate.domain.errors import GateError
from support.figures import PROVES, proved
from support.forking import COMMAND, clean_environment, run_command
from support.pictures import picture, recording
from support.upstream import Answer, fake_upstream

INTERRUPTED = 130
SPEAKING = """
[providers.mine]
dialect = "openai"
base_url = "{url}/v1"
auth = {{ kind = "none" }}
[[providers.mine.models]]
name = "voice"
operations = ["speech"]
prices = [{{ unit = "characters", usd = "0.01", source = "tests", checked = 2026-01-01 }}]
[providers.mine.models.media]
takes = ["voice", "format", "speed"]
"""


@pytest.fixture
def gate(tmp_path):
    """Return what runs a command and gives its standard output and standard error."""

    def run(*words, code=0, stdin="", **environment):
        done = run_command(*words, folder=tmp_path, environment=clean_environment(environment), text=stdin)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    return run


def begun(folder, *words):
    return subprocess.Popen(
        [COMMAND, *words], cwd=folder, env=clean_environment(), stderr=subprocess.PIPE, text=True
    )


def interrupted(folder, *words):
    """Begin a film, press Ctrl-C as soon as its vendor has taken it, and return the job's id and what was said."""
    process = begun(folder, "video", *words)
    said = []
    for line in process.stderr:
        said.append(line)
        if "waiting for the provider" in line:
            process.send_signal(signal.SIGINT)
    process.stderr.close()
    assert process.wait(timeout=30) == INTERRUPTED, said
    return said[0].split()[1].rstrip(":"), "".join(said)


def forget_owner(folder):
    """Let the lease of every job run out, as it would half a minute after its process has gone."""
    database = sqlite3.connect(folder / "data" / "llm-gate.db")
    with database:
        database.execute("UPDATE job SET lease_until_ms = 0")
    database.close()


def hold(folder):
    """Let somebody else hold the lease of every job."""
    database = sqlite3.connect(folder / "data" / "llm-gate.db")
    with database:
        later_ms = round(time.time() * 1000) + 60_000
        database.execute("UPDATE job SET lease_until_ms = ?, owner = 'other'", (later_ms,))
    database.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "data")


def size_of(path):
    with Image.open(path) as image:
        image.load()
        return image.size, image.format


# --- Pictures


def test_one_picture(gate, tmp_path):
    """It stands at the path, which is all of standard output; standard error says who, how much, and what it is."""
    out, err = gate("image", "A cat", "-o", "cat.png", "--size", "320x200")

    assert out == "cat.png\n"
    assert "sandbox/image | $0 | synthetic | " in err
    assert size_of(tmp_path / "cat.png") == ((320, 200), "PNG")
    assert names(tmp_path) == ["cat.png"]
    assert (tmp_path / "cat.png").stat().st_mode & 0o044 == 0o044


def test_several_pictures_have_numbers(gate, tmp_path):
    """Their form, size and seed are those that were asked for, and JSON tells all of it."""
    wish = ("--format", "webp", "--size", "64x48", "--seed", "7", "--negative", "dogs", "--quality", "high")
    out, err = gate("image", "A cat", "-o", "cat.webp", "-n", "2", "-m", "sandbox/image", "--json", *wish)
    told = json.loads(out)

    assert [each["path"] for each in told["files"]] == ["cat-1.webp", "cat-2.webp"] == names(tmp_path)
    for each in told["files"]:
        assert size_of(tmp_path / each["path"]) == ((64, 48), "WEBP")
        assert (each["type"], each["width"], each["height"]) == ("image/webp", 64, 48)
        assert each["size"] == (tmp_path / each["path"]).stat().st_size
    assert told["files"][0]["seed"] == 7
    assert (told["provider"], told["model"], told["synthetic"], told["cost_usd"]) == (
        "sandbox",
        "image",
        True,
        0,
    )
    assert any("negative_prompt" in note for note in told["notes"])
    assert err == ""


def test_an_existing_file_is_overwritten_by_force_alone(gate, tmp_path):
    """Without --force nobody is asked and nothing changes, also where only one of several names is taken."""
    (tmp_path / "cat-2.png").write_bytes(b"mine")
    words = ("image", "A cat", "-o", "cat.png", "-n", "2", "--size", "64x64")

    assert "'cat-2.png' is there already; --force overwrites it" in gate(*words, code=2)[1]
    assert names(tmp_path) == ["cat-2.png"]
    assert not (tmp_path / "data").exists()
    assert (tmp_path / "cat-2.png").read_bytes() == b"mine"

    assert gate(*words, "--force")[0] == "cat-1.png\ncat-2.png\n"
    assert size_of(tmp_path / "cat-2.png") == ((64, 64), "PNG")


def test_an_ending_that_does_not_fit_is_said(gate, tmp_path):
    """The name is the caller's; that it promises another form than the bytes have is told."""
    assert "cat.jpg holds image/png" in gate("image", "A", "-o", "cat.jpg", "--size", "64x64")[1]
    assert "holds" not in gate("image", "A", "-o", "a.PNG", "--size", "64x64")[1]


FAULTS = [
    (("image", "x", "-o", "x.png", "--size", "9"), 2, "'9' is no size"),
    (("image", "x", "-o", "x.png", "-n", "11"), 2, "11 is not in the range"),
    (("image", " ", "-o", "x.png"), 2, "the prompt is empty"),
    (("image", "x"), 2, "Missing option '--output'"),
    (("image", "x", "-o", "none/x.png"), 2, "there is no folder 'none'"),
    (("image", "x", "-o", "."), 2, "is a directory"),
    (("image", "x", "-o", "x.png", "--size", "4000x4000"), 1, "llm-gate: size: "),
    (("image", "x", "-o", "x.png", "-m", "nobody/x"), 1, "llm-gate: "),
    (("edit", "none.png", "-o", "x.png"), 2, "'none.png' cannot be read: No such file"),
    (("edit", "text.txt", "-o", "x.png", "--prompt", "x"), 1, "llm-gate: image: not a whole picture"),
    (("edit", "empty.txt", "-o", "x.png"), 2, "'empty.txt' is empty"),
    (("edit", "http://127.0.0.1:9/x.png", "-o", "x.png", "--prompt", "x"), 1, "llm-gate: image: "),
    (("edit", "a.png", "-o", "x.png", "--operation", "paint"), 2, "'paint' is not one of"),
    (("edit", "a.png", "-o", "x.png", "--gender", "male"), 2, "--gender goes with --face only"),
    (("edit", "a.png", "--face", "a.png", "-o", "x.png", "--mask", "a.png"), 2, "--mask does not go with --face"),
    (("edit", "a.png", "--face", "a.png", "-o", "x.png", "--negative", "x"), 2, "--negative does not go with"),
    (("edit", "a.png", "a.png", "--face", "a.png", "-o", "x.png"), 2, "a face is put into one picture"),
    (("video", "x", "-o", "x.gif", "--duration", "0"), 2, "0 is not in the range"),
    (("video", "x", "-o", "x.gif", "--duration", "3000"), 1, "llm-gate: duration_s: "),
    (("speak", "x", "-o", "x.mp3", "--format", "mp3"), 1, "llm-gate: format: "),
    (("transcribe", "text.txt", "--format", "xml"), 2, "'xml' is not one of"),
    (("jobs", "show", "nope"), 1, "llm-gate: there is no job 'nope'"),
    (("jobs", "cancel", "nope"), 1, "llm-gate: there is no job 'nope'"),
]  # fmt: skip


@proved
@pytest.mark.parametrize(("words", "code", "message"), FAULTS if PROVES else FAULTS[::5])
def test_faults_are_named_and_nothing_is_written(gate, tmp_path, words, code, message):
    """One line says what is wrong: exit code 2 for the command line, 1 for what the gateway refuses."""
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "text.txt").write_text("no picture")
    (tmp_path / "empty.txt").write_text("")
    before = names(tmp_path)

    out, err = gate(*words, code=code)

    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert names(tmp_path) == before


def test_what_was_paid_for_is_kept_beside_a_file_that_came_meanwhile(tmp_path):
    """It gets the next free number; with force it takes the other's place. No part of a file is left."""
    (tmp_path / "a.png").write_bytes(b"mine")
    (tmp_path / "a-2.png").write_bytes(b"mine too")

    assert save(tmp_path / "a.png", b"new", force=False) == tmp_path / "a-3.png"
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert save(tmp_path / "a.png", b"newer", force=True) == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes() == b"newer"
    (tmp_path / "folder").mkdir()
    with pytest.raises(GateError, match="cannot be written"):
        save(tmp_path / "folder", b"new", force=True)
    assert names(tmp_path) == ["a-2.png", "a-3.png", "a.png", "folder"]


# --- Edits and faces


def test_an_edit_with_a_mask(gate, tmp_path):
    """Several pictures and a mask go in by file, and one picture comes out."""
    (tmp_path / "a.png").write_bytes(picture(200, 100))
    (tmp_path / "mask.png").write_bytes(picture(200, 100, colour="white"))
    words = ("edit", "a.png", "a.png", "--mask", "mask.png", "--operation", "inpaint", "-o", "b.png")
    out, err = gate(*words, "--prompt", "-", stdin="Make it blue")

    assert out == "b.png\n"
    assert "sandbox/image-edit | $0 | synthetic" in err
    assert size_of(tmp_path / "b.png")[1] == "PNG"
    assert (tmp_path / "b.png").read_bytes() != picture(200, 100)


def test_a_face_makes_it_a_face_swap(gate, tmp_path):
    """The options of a face swap go with --face, and the model of face swaps answers."""
    (tmp_path / "a.png").write_bytes(picture(200, 100))
    (tmp_path / "me.jpg").write_bytes(picture(80, 80, "JPEG", "green"))
    words = ("edit", "a.png", "--face", "me.jpg", "-o", "b.jpg", "--format", "jpeg", "--gender", "all")
    out, _ = gate(*words, "--face-index", "0", "--seed", "1", "--json")

    assert json.loads(out)["model"] == "face-swap"
    assert size_of(tmp_path / "b.jpg")[1] == "JPEG"


def test_a_picture_by_its_address(gate, tmp_path):
    """An http address is fetched by the gateway, by its rules: a private one must be trusted."""
    with fake_upstream() as vendor:
        vendor.will(Answer(headers={"content-type": "image/png"}, body=picture(120, 80)))
        host = vendor.url.removeprefix("http://").partition("/")[0]
        words = ("edit", f"http://{host}/cat.png", "--prompt", "x", "-o", "b.png")
        gate(*words, code=1)
        assert vendor.seen == []

        (tmp_path / "llm-gate.toml").write_text(f'[media]\ntrusted_hosts = ["{host}"]\n')
        gate(*words)
        assert [each.path for each in vendor.seen] == ["/cat.png"]
    assert size_of(tmp_path / "b.png")[1] == "PNG"


# --- Voices and transcripts


def test_a_voice_and_its_transcript(gate, tmp_path):
    """What is spoken can be read back, as text, JSON and subtitles; text comes from standard input, too."""
    told = json.loads(
        gate("speak", "-", "-o", "a.wav", "--voice", "anna", "--json", stdin="Good <morning>")[0]
    )
    with wave.open(str(tmp_path / "a.wav")) as sound:
        lasts_s = sound.getnframes() / sound.getframerate()

    assert told["files"][0]["duration_s"] == pytest.approx(lasts_s, abs=0.01)
    assert told["files"][0]["type"] == "audio/wav"

    out, err = gate("transcribe", "a.wav", "--language", "en")
    assert out == "Good <morning>\n"
    assert "sandbox/transcription | $0 | synthetic" in err
    body = json.loads(gate("transcribe", "a.wav", "--format", "json")[0])
    assert (body["text"], body["usage"]["cost"]) == ("Good <morning>", 0)
    srt = gate("transcribe", "a.wav", "--format", "srt")[0]
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0")
    assert "\nGood <morning>\n" in srt
    vtt = gate("transcribe", "a.wav", "--format", "vtt")[0]
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert "Good &lt;morning>" in vtt


def test_speed_reaches_the_voice(gate, tmp_path):
    """Twice as fast is half as long."""
    lasts = []
    for speed in ("1", "2"):
        gate("speak", "One two three four", "-o", f"{speed}.wav", "--speed", speed)
        with wave.open(str(tmp_path / f"{speed}.wav")) as sound:
            lasts.append(sound.getnframes())

    assert lasts[1] == pytest.approx(lasts[0] / 2, rel=0.1)


def test_what_a_vendor_makes_is_not_called_synthetic(gate, tmp_path):
    """Cost and maker are those of the vendor that answered."""
    sound = recording(0.5)
    with fake_upstream() as vendor:
        vendor.will(Answer(headers={"content-type": "audio/wav"}, body=sound))
        (tmp_path / "llm-gate.toml").write_text(SPEAKING.format(url=vendor.url))
        out, err = gate("speak", "Hello", "-o", "a.wav", "-m", "mine/voice", "--voice", "anna")

    assert out == "a.wav\n"
    assert "mine/voice | $0.05 | " in err
    assert "synthetic" not in err
    assert (tmp_path / "a.wav").read_bytes() == sound
    assert vendor.only.json["voice"] == "anna"


def test_subtitles_of_a_model_that_tells_no_times(gate, tmp_path):
    """They are one line over the whole recording, and the vendor is asked once."""
    (tmp_path / "a.wav").write_bytes(recording(0.5))
    with fake_upstream() as vendor:
        vendor.will(Answer.json({"text": "Hello"}))
        hearing = SPEAKING.format(url=vendor.url).replace("speech", "transcription").split("prices")[0]
        (tmp_path / "llm-gate.toml").write_text(
            f'{hearing}[providers.mine.models.media]\ntakes = ["language"]\n'
        )
        out, err = gate("transcribe", "a.wav", "-m", "mine/voice", "--format", "srt")
        assert out == "1\n00:00:00,000 --> 00:00:00,500\nHello\n\n"
        assert "mine/voice | cost unknown | " in err
        assert len(vendor.seen) == 1


# --- Films and jobs


def test_a_film(gate, tmp_path):
    """It begins with the given picture, is followed in plain lines, and stands in the list of jobs."""
    (tmp_path / "a.png").write_bytes(picture(200, 100))
    words = ("--duration", "2", "--resolution", "360p", "--image", "a.png")
    out, err = gate("video", "Waves at dawn", "-o", "w.gif", *words)

    assert out == "w.gif\n"
    lines = err.splitlines()
    assert lines[0].endswith(": sandbox/video")
    assert any(line.startswith(" 20 %") for line in lines)
    assert "100 %  done" in lines
    assert "sandbox/video | $0 | synthetic | " in lines[-1]
    assert "\x1b" not in err
    with Image.open(tmp_path / "w.gif") as film:
        assert film.n_frames > 1
        assert min(film.size) == 360

    (job,) = json.loads(gate("jobs", "list", "--json")[0])
    assert (job["status"], job["prompt"], job["cost"]["total"]) == ("succeeded", "Waves at dawn", 0)
    table = gate("jobs", "list")[0]
    assert table.startswith("ID ")
    assert job["id"] in table
    assert json.loads(gate("jobs", "show", job["id"], "--json")[0]) == job
    gate("jobs", "show", job["id"], "-o", "again.gif")
    assert (tmp_path / "again.gif").read_bytes() == (tmp_path / "w.gif").read_bytes()
    assert "has ended already" in gate("jobs", "cancel", job["id"], code=1)[1]


def test_a_film_as_json(gate):
    """One document tells the file, the maker and the job."""
    told = json.loads(gate("video", "Sun", "-o", "s.gif", "--duration", "1", "--json")[0])

    assert (told["files"][0]["path"], told["files"][0]["type"]) == ("s.gif", "image/gif")
    assert (told["provider"], told["synthetic"], told["cost_usd"]) == ("sandbox", True, 0)
    assert told["job"] == json.loads(gate("jobs", "list", "--json")[0])[0]["id"]


def test_a_film_that_fails(gate, tmp_path):
    """The vendor's reason is told, the exit code is 1, and no file is left."""
    out, err = gate("video", "Waves [fail]", "-o", "w.gif", "--duration", "1", code=1)

    assert out == ""
    assert "is failed: " in err.splitlines()[-1]
    assert names(tmp_path) == []
    assert "failed" in gate("jobs", "list")[0]


def test_ctrl_c_leaves_the_job_running(gate, tmp_path):
    """The id is printed with the command that fetches the film, and that command does."""
    job_id, said = interrupted(tmp_path, "Rain", "-o", "my rain.gif", "--duration", "2")

    assert f"llm-gate jobs show {job_id} --wait -o 'my rain.gif'" in said
    assert "Traceback" not in said
    assert names(tmp_path) == []
    assert "queued" in gate("jobs", "show", job_id)[0]
    assert "is queued" in gate("jobs", "show", job_id, "-o", "r.gif", code=1)[1]

    forget_owner(tmp_path)
    assert gate("jobs", "show", job_id, "--wait", "-o", "my rain.gif")[0] == "my rain.gif\n"
    with Image.open(tmp_path / "my rain.gif") as film:
        assert film.n_frames > 1


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_job_is_called_off(gate, tmp_path, is_alone):
    """Nobody works on it: the command itself calls it off. Its process may still be there: the wish is noted."""
    job_id, _ = interrupted(tmp_path, "Rain", "-o", "r.gif", "--duration", "10")
    if not is_alone:
        hold(tmp_path)
    out, err = gate("jobs", "cancel", job_id)

    assert job_id in out
    assert ("cancelled" in out) == is_alone
    assert ("will be called off" in err) != is_alone
    if not is_alone:
        forget_owner(tmp_path)
        assert "is cancelled" in gate("jobs", "show", job_id, "--wait", code=1)[1]


def test_a_terminal_sees_a_bar(tmp_path):
    """Standard error that is a terminal gets a bar that ends at 100 %."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execve(  # noqa: S606 - the real command, in a terminal of its own
            COMMAND, [COMMAND, "video", "Sun", "-o", "s.gif", "--duration", "1"], clean_environment()
        )
    shown, until = b"", time.monotonic() + 60
    try:
        while time.monotonic() < until and (piece := os.read(terminal, 4096)):
            shown += piece
    except OSError:
        pass  # A terminal whose process has gone says so by this.
    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert b"[####################################]  100%" in shown
    assert (tmp_path / "s.gif").exists()
