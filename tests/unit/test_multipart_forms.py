"""Forms with files: what clients write is read as it was meant, and whatever is torn is the caller's fault."""

import json
from random import Random
from urllib.parse import quote

import httpx
import pytest

from llm_gate.domain.errors import InvalidRequest
from llm_gate.http.forms import MAX_FIELDS, Form, parse_form
from support.pictures import form, picture, recording

CUTS = 200
BOUNDARIES = (
    *(
        "x",
        "-",
        "--",
        "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        "a" * 70,
        "0",
        "'()+_,-./:=?",
        "b b",
        "===1===",
    ),
    *("--------------------------123456789012345678901234", "gc0pJq0M:08jU534c0p", "--x--"),
)
VALUES = (
    *(
        "",
        "x",
        " x ",
        "\r\n",
        "a\r\nb",
        "\r\n--",
        "--",
        "\0",
        "ü€😀",
        "a=b&c=d",
        '"',
        "{}",
        "a" * 70_000,
        "\r\n\r\n",
    ),
    *("Content-Disposition: form-data", "\r\n--boundar", "\n--boundary\n", "-" * 200),
)


def boundary_of(content_type):
    """Return what stands between the pieces of a form."""
    return content_type.partition("boundary=")[2].strip('"').encode()


def raw(*pieces, boundary="boundary", end="--\r\n"):
    """Return a form of pieces that are written as they are: a head and its content."""
    body = b"".join(
        f"--{boundary}\r\n{head}\r\n\r\n".encode("utf-8", "surrogateescape") + data + b"\r\n"
        for head, data in pieces
    )
    return body + f"--{boundary}{end}".encode()


def field(name, value=b"1", rest=""):
    """Return a piece that holds a text."""
    return f'Content-Disposition: form-data; name="{name}"{rest}', value


def read(*pieces, boundary="boundary"):
    """Read a form of pieces."""
    return parse_form(raw(*pieces, boundary=boundary), boundary.encode())


def outcome(body, boundary=b"boundary"):
    """Return what comes of a form: what was read, or that it was refused; anything else is a failure."""
    try:
        return parse_form(body, boundary)
    except InvalidRequest:
        return None


def sent_by_httpx(fields, files):
    """Return a form as httpx (and the official clients with it) writes it."""
    made = httpx.Request("POST", "http://x/", data=fields, files=files)
    return made.read(), boundary_of(made.headers["content-type"])


def test_a_form_by_httpx_is_read():
    """Texts, repeated fields and several files arrive as they were sent, with the types that their bytes tell."""
    shown, sound = picture(), recording(0.1)
    files = [("image[]", ("a.png", shown, "text/plain")), ("image[]", ("b.bin", b"hello"))]
    files += [("mask", ('ü "quoted".wav', sound, "audio/x-wav"))]
    body, boundary = sent_by_httpx({"prompt": "Grüße 😀", "n": "2", "tags": ["a", "b"]}, files)

    found = parse_form(body, boundary)
    assert found.fields == {"prompt": ["Grüße 😀"], "n": ["2"], "tags": ["a", "b"]}
    assert [(each.data, each.type, each.name) for each in found.files["image[]"]] == [
        (shown, "image/png", "a.png"),
        (b"hello", "application/octet-stream", "b.bin"),
    ]
    assert (found.files["mask"][0].data, found.files["mask"][0].type) == (sound, "audio/wav")


@pytest.mark.parametrize("value", VALUES)
def test_every_text_arrives(value):
    """A text may hold line ends, boundaries that are none, and anything else."""
    body, boundary = sent_by_httpx({"prompt": value, "last": "1"}, {"image": ("a.png", picture())})
    found = parse_form(body, boundary)
    assert found.fields == {"prompt": [value], "last": ["1"]}


@pytest.mark.parametrize("value", VALUES)
def test_every_file_arrives(value):
    """A file may hold line ends, boundaries that are none, and anything else."""
    body, boundary = sent_by_httpx({}, {"image": ("a.bin", value.encode()), "mask": ("b.bin", b"\r\n")})
    found = parse_form(body, boundary)
    assert [each.data for each in found.files["image"]] == [value.encode()]
    assert [each.data for each in found.files["mask"]] == [b"\r\n"]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_100_000, 5_000_000])
def test_a_file_of_every_size_arrives(size):
    """The pieces in which a form is read do not show, nor does the size from which files would go to disk."""
    data = Random(size).randbytes(size)  # noqa: S311 - no secret
    found = parse_form(*sent_by_httpx({"a": "1"}, {"image": ("a.bin", data)}))
    assert found.files["image"][0].data == data


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_every_boundary_is_taken(boundary):
    """What the standard lets stand between pieces may stand there."""
    body = raw(field("a"), field("b", b"--x\r\n-- "), boundary=boundary)
    assert outcome(body, boundary.encode()) == Form(fields={"a": ["1"], "b": ["--x\r\n-- "]}, files={})


def test_further_headers_of_a_piece_do_no_harm():
    """Pieces may say their types and lengths, as some clients have them do."""
    kind, length = "Content-Type: text/plain; charset=utf-8", "Content-Length: 5"
    head = f'{kind}\r\nContent-Disposition: form-data; name="prompt"\r\n{length}'
    file = 'Content-Type: image/png\r\nContent-Disposition: form-data; name="image"; filename="a.png"'
    found = read((head, b"A cat"), (file, b"hello"))
    assert found.fields == {"prompt": ["A cat"]}
    assert (found.files["image"][0].data, found.files["image"][0].type) == (b"hello", "image/png")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('Content-Disposition: form-data; name="a\\"b"', 'a"b'),
        ('Content-Disposition: form-data; name="a;b=c"', "a;b=c"),
        ("Content-Disposition: form-data; name=plain", "plain"),
        ('content-disposition: FORM-DATA; NAME="a"', "a"),
        ('Content-Disposition:form-data;name="a"', "a"),
        ('Content-Disposition: form-data; name="images[0]"', "images[0]"),
        ('Content-Disposition: form-data; name="ü"', "ü"),
        ('Content-Disposition: form-data; name=""', ""),
    ],
)
def test_names_are_read_as_they_were_meant(head, name):
    """Quotes, separators and other letters inside a name belong to it."""
    found = outcome(raw((head, b"1")))
    assert found is not None
    assert found.fields == {name: ["1"]}


def test_no_file_is_written_for_a_name():
    """A file's name is a word of the caller's, and leads nowhere."""
    (given,) = read(field("image", b"hello", '; filename="../../etc/passwd"')).files["image"]
    assert given.data == b"hello"
    assert (given.name or "").endswith("passwd")


@pytest.mark.parametrize("count", [MAX_FIELDS, MAX_FIELDS + 1, 500])
@pytest.mark.parametrize("rest", ["", '; filename="a"'])
def test_too_many_fields_are_refused(count, rest):
    """Exactly as many fields as are allowed are read."""
    found = outcome(raw(*(field(f"f{index}", rest=rest) for index in range(count))))
    assert (found is not None) == (count <= MAX_FIELDS)


@pytest.mark.parametrize("count", [MAX_FIELDS + 1, 5_000])
@pytest.mark.parametrize("rest", ["", '; filename="a"'])
def test_one_field_too_often_is_refused(count, rest):
    """The bound is on pieces, and not only on names: one name a thousand times is as many."""
    assert outcome(raw(*(field("image", rest=rest) for _ in range(count)))) is None


TORN = (
    *(
        b"",
        b"--",
        b"--boundary",
        b"--boundary\r\n",
        b"--boundary--",
        b"\r\n--boundary--\r\n",
        b"hello",
        b"{}",
    ),
    *(
        b"--other\r\n\r\n--other--\r\n",
        b"--boundary\n\n--boundary--\n",
        b"\0" * 1_000,
        b"--boundary\r\n\r\n\r\n",
    ),
    *(raw(("", b"1")), raw(("X", b"1")), raw((":", b"1")), raw(("Content-Disposition", b"1"))),
    *(raw(("Content-Disposition:", b"1")), raw(("Content-Disposition: form-data", b"1"))),
    *(raw(("Content-Disposition: attachment", b"1")), raw(("Content-Type: text/plain", b"1"))),
    *(
        raw(('Content-Disposition: form-data; name="', b"1")),
        raw(("Content-Disposition: form-data; name", b"1")),
    ),
    *(raw(('Content-Disposition: form-data; filename="a"', b"1")), raw(("A" * 100_000 + ": b", b"1"))),
    *(raw(("A: " + "b" * 100_000, b"1")), raw(("\r\n".join(f"A{one}: b" for one in range(5_000)), b"1"))),
    *(
        raw(field("a"), end=""),
        raw(field("a"), end="\r\n"),
        raw(field("a"), end="-"),
        raw(field("a"), end="x"),
    ),
    *(
        raw(field("a", rest="\r\nContent-Transfer-Encoding: rot13")),
        raw(field("a", rest="\r\nContent Type: x")),
    ),
    *(raw(field("a", b"\xff\xfe")), raw(field("\udcff")), raw(field("a", rest='; filename="\udcff"'))),
    *(raw(field("a", rest="\r\nContent-Transfer-Encoding: base64; filename=x")), raw(field("a\r\nb"))),
    *(raw(field("a", b"!", '; filename="x"\r\nContent-Transfer-Encoding: base64')),),
    *(raw(field("a", b"YQ", '; filename="x"\r\nContent-Transfer-Encoding: base64')),),
    *(raw(field("a", b"=\xff", '; filename="x"\r\nContent-Transfer-Encoding: quoted-printable')),),
    *(raw(field("a", b"x", "; filename*=utf-8''%ff%fe")), raw(field("a", b"x", "; filename*=nonsense''a"))),
    *(
        raw(field("a", b"x", "; name*=utf-16''%ff")),
        raw(field("a", b"x", '; filename*0="a"; filename*1="b"')),
    ),
    *(
        raw(field("a", b"x", '; name="b"')),
        raw(field("a", b"x", "; filename*=''")),
        raw(field("a", b"x", ";;;=;==")),
    ),
)


@pytest.mark.parametrize("body", TORN, ids=range(len(TORN)))
def test_what_is_no_form_is_the_callers_fault(body):
    """Whatever is wrong with a form is said as such; nothing fails otherwise."""
    outcome(body)


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"--",
            b"--boundary",
            b"--boundary\r\n",
            b"hello",
            b"{}",
            raw(field("a"), end=""),
            raw(field("a"), end="-"),
        ),
        *(raw(field("a"), end="\r\n"), raw(("", b"1")), raw(("Content-Disposition: form-data", b"1"))),
        *(raw(("Content-Type: text/plain", b"1")), raw(field("a", b"\xff\xfe")), raw(field("\udcff"))),
    ],
)
def test_what_is_plainly_none_is_refused(body):
    """A form without an end, without names or without UTF-8 is refused."""
    assert outcome(body) is None


def whole_forms():
    """Return forms of several writers."""
    shown = picture()
    yield sent_by_httpx({"prompt": "A cat", "n": "1"}, {"image": ("a.png", shown), "mask": ("b.png", shown)})
    yield sent_by_httpx({"a": "\r\n" * 50}, {"image": ("a.bin", b"\r\n--" * 50)})
    body, kind = form({"model": "x", "file": ("a.wav", "audio/wav", recording(0.01)), "prompt": "Grüße"})
    yield body, boundary_of(kind)


@pytest.mark.parametrize("number", range(3))
def test_cuts_are_the_callers_fault(number):
    """A form that ends anywhere before its end is refused, and nothing fails otherwise."""
    body, boundary = list(whole_forms())[number]
    chance = Random(number)  # noqa: S311 - no secret
    assert outcome(body, boundary) is not None
    for length in {chance.randrange(len(body) - 4) for _ in range(CUTS)}:
        assert outcome(body[:length], boundary) is None


@pytest.mark.parametrize("number", range(3))
def test_changes_are_the_callers_fault(number):
    """Bytes that are changed, taken out or put in at random lead to a form or a refusal."""
    body, boundary = list(whole_forms())[number]
    chance = Random(number)  # noqa: S311 - no secret
    signs = (
        b"\r",
        b"\n",
        b"\r\n",
        b"--",
        b'"',
        b";",
        b"=",
        b"\0",
        b"\xff",
        b":",
        b"--" + boundary,
        b"%",
        b"\\",
    )
    for _ in range(CUTS):
        torn = body
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(min(len(torn), 600))
            torn = torn[:place] + chance.choice((b"", *signs)) + torn[place + chance.randint(0, 3) :]
        outcome(torn, boundary)


@pytest.mark.parametrize("boundary", [b"", b"\r\n", b"\0", b"\xff\xfe", b"a" * 5_000, b"--", b" "])
def test_a_strange_boundary_is_the_callers_fault(boundary):
    """The boundary is the caller's word as well."""
    body = (
        b"--"
        + boundary
        + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--'
        + boundary
        + b"--\r\n"
    )
    outcome(body, boundary)


def test_many_small_pieces_take_no_time():
    """Megabytes of signs that could begin a boundary are read in one go."""
    body = raw(field("image", b"\r\n--boundar" * 300_000, '; filename="a"'))
    found = outcome(body)
    assert found is not None
    assert len(found.files["image"][0].data) == 10 * 300_000 + 300_000


def test_json_in_a_form_stays_text():
    """A text that looks like JSON, or like a link in percent signs, is handed on as it is."""
    said = json.dumps({"a": [1]}), quote("ü/?#")
    assert read(field("a", said[0].encode()), field("b", said[1].encode())).fields == {
        "a": [said[0]],
        "b": [said[1]],
    }
