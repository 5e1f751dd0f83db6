"""Pictures in the OpenAI wire format: what goes out, what comes back, and what callers may send."""

import base64
import json
from email import message_from_bytes

import pytest

from llm_gate.dialects.openai import address
from llm_gate.dialects.openai_images import OpenAIImageEdits, OpenAIImages
from llm_gate.dialects.openai_images_inbound import (
    ImagesReplyShape,
    decode_image_edit,
    decode_image_request,
    encode_image_result,
    read_json_edit,
)
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import BadProviderResponse, ContentFiltered, InvalidRequest, ProviderRateLimited
from llm_gate.domain.media import ImageEditRequest, ImageRequest, ImageResult, Link, Medium, Picture
from llm_gate.domain.provider import Facts, Fetch, HttpReply, Send
from llm_gate.domain.usage import Usage
from support.recorded import parametrize, recordings
from support.targets import make_reply, make_target

FACTS = Facts(now_s=0.0, token="0f" * 16)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
JPEG = b"\xff\xd8\xff\xe0" + b"\x00" * 20
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 "
AVIF = b"\x00\x00\x00\x1cftypavif" + b"\x00" * 16
CAT = ImageRequest(model="m", prompt="a cat")
PICTURE = Medium(data=PNG, type="image/png", name="cat.png")
CHANGED = ImageEditRequest(model="m", prompt="a hat", images=(PICTURE,))
FORM = {"model": ["m"], "prompt": ["a hat"]}
FILES = {"image": [PICTURE]}
URL = "https://pictures.test/1.png"
MADE = [entry for entry in recordings("openai", "images") if "variations" not in entry.id]


def text_of(data):
    """Write bytes as base64."""
    return base64.b64encode(data).decode()


ANSWER = make_reply({"created": 1, "data": [{"b64_json": text_of(PNG)}]})


def drive(codec, request, replies, **target):
    """Run a codec against replies in their order; return what it yielded and what came of it."""
    exchanges = codec(address).run(request, make_target(**target), FACTS)
    yielded = [next(exchanges), *(exchanges.send(reply) for reply in replies[:-1])]
    with pytest.raises(StopIteration) as end:
        exchanges.send(replies[-1])
    return yielded, end.value.value


def make(request=CAT, *replies, **target):
    """Have pictures made; one comes back where no reply is given."""
    return drive(OpenAIImages, request, replies or (ANSWER,), **target)


def edit(request=CHANGED, *replies, **target):
    """Have pictures changed; one comes back where no reply is given."""
    return drive(OpenAIImageEdits, request, replies or (ANSWER,), **target)


def form_of(request):
    """Return a form's texts, as pairs, and its files, as name, file name, type and bytes."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    texts, files = [], []
    for part in message_from_bytes(head + request.body).get_payload():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        if part.get_filename() is None:
            texts.append((name, data.decode()))
        else:
            files.append((name, part.get_filename(), part.get_content_type(), data))
    return texts, files


def test_every_wish_goes_out_under_its_name():
    """Every wish stands under its name on the wire, at the operation's address, in one exchange that is paid."""
    request = ImageRequest(
        model="m", prompt="a cat", n=2, width=1536, height=1024, quality="high", style="vivid", user="u",
        background="opaque", format="webp", aspect_ratio="3:2", resolution="2k", negative_prompt="dogs",
        steps=20, guidance_scale=3.5, seed=7, extra={"moderation": "low"},
    )  # fmt: skip
    (sent,), _ = make(request)
    assert isinstance(sent, Send)
    assert sent.is_paid
    assert (sent.request.method, sent.request.url) == ("POST", "https://vendor.test/v1/images/generations")
    assert sent.request.headers == {"content-type": "application/json"}
    assert json.loads(sent.request.body) == {
        "model": "model-a", "prompt": "a cat", "n": 2, "size": "1536x1024", "quality": "high", "style": "vivid",
        "background": "opaque", "output_format": "webp", "aspect_ratio": "3:2", "resolution": "2k", "user": "u",
        "negative_prompt": "dogs", "steps": 20, "guidance_scale": 3.5, "seed": 7, "moderation": "low",
    }  # fmt: skip


def test_nothing_unsaid_goes_out():
    """Where nobody says anything, only model, prompt and number are sent: no form of answer above all."""
    (sent,), _ = make()
    assert json.loads(sent.request.body) == {"model": "model-a", "prompt": "a cat", "n": 1}


@pytest.mark.parametrize("run", [make, edit])
def test_catalog_and_codec_win_over_a_callers_fields(run):
    """The catalog's fields go out, a caller's own replace nothing, and `edit_form` never does."""
    spec = MediaSpec(fields={"response_format": "b64_json", "edit_form": "form"})
    extra = {"n": 10, "model": "dear", "response_format": "url", "edit_form": "json", "moderation": "low"}
    request = CAT if run is make else CHANGED
    fields = {name: getattr(request, name) for name in request.__struct_fields__} | {"extra": extra}
    (sent,), _ = run(type(request)(**fields), media=spec)
    body = json.loads(sent.request.body) if run is make else dict(form_of(sent.request)[0])
    assert {name: str(value) for name, value in body.items()} == {
        "model": "model-a",
        "prompt": request.prompt,
        "n": "1",
        "response_format": "b64_json",
        "moderation": "low",
    }


@parametrize("recording", [entry for entry in MADE if "edit" not in entry.id])
def test_recorded_generations_are_carried_over(recording):
    """What a recorded client sent comes in and goes out with the same fields, and the recorded answer is read."""
    for interaction in recording.interactions:
        body = interaction.request["body"]
        request, form = decode_image_request(json.dumps({"model": "m", **body}).encode())
        assert form == body.get("response_format", "")
        usual = HttpReply(status=200, headers=interaction.headers, body=interaction.body)
        item, replies = {}, (ANSWER,)
        if interaction.status == 200:
            item, replies = interaction.json["data"][0], (usual,)
        if "url" in item:
            replies = (usual, make_reply(PNG, content_type="image/png"))
        yielded, result = make(request, *replies, model=body.get("model", "model-a"))
        assert json.loads(yielded[0].request.body) == {"n": 1, "model": "model-a"} | {
            name: value for name, value in body.items() if name != "response_format"
        }
        assert yielded[1:] == ([Fetch(url=item["url"])] if "url" in item else [])
        (picture,) = result.pictures
        assert picture == Picture(
            medium=Medium(data=PNG, type="image/png"), revised_prompt=item.get("revised_prompt")
        )


@parametrize("recording", [entry for entry in MADE if entry.id.endswith("gpt-image-1-usage.json")])
def test_recorded_usage_of_a_picture_is_read(recording):
    """What a picture model gives out is counted as pictures."""
    interaction = recording.interactions[0]
    _, result = make(CAT, HttpReply(status=200, headers={}, body=interaction.body))
    assert result.usage == Usage(input_tokens=10, output_tokens=4160, image_output_tokens=4160)


@parametrize("recording", [entry for entry in MADE if entry.id.endswith("edit-gpt-image-usage.json")])
def test_a_recorded_edit_is_carried_over(recording):
    """A recorded edit in JSON comes in, goes out as a form with the same picture, and its answer is read."""
    interaction = recording.interactions[0]
    body = interaction.request["body"]
    request, _ = read_json_edit(json.dumps(body).encode())
    reply = HttpReply(status=200, headers={}, body=interaction.body)
    (sent,), result = edit(request, reply, model=body["model"])
    texts, files = form_of(sent.request)
    assert dict(texts) == {
        "model": body["model"], "prompt": body["prompt"], "n": "1", "size": "1024x1024", "quality": "low",
    }  # fmt: skip
    shown = base64.b64decode(body["images"][0]["image_url"].partition(",")[2])
    assert files == [("image", "file.png", "image/png", shown)]
    assert result.pictures[0].medium == Medium(
        data=base64.b64decode(interaction.json["data"][0]["b64_json"]), type="image/png"
    )
    assert result.usage == Usage(
        input_tokens=221, image_input_tokens=194, output_tokens=415, image_output_tokens=272
    )


@parametrize("recording", recordings("xai", "image"))
def test_recorded_pictures_are_downloaded(recording):
    """Recorded requests in JSON go out as they did, edits with data URLs; the picture is fetched where it lies."""
    first, second = recording.interactions
    body = first.request["body"]
    images = tuple(
        Medium(data=base64.b64decode(each["url"].partition(",")[2]), type="image/png")
        for each in body.get("images", ())
    )
    request = ImageRequest(model="m", prompt=body["prompt"])
    if images:
        request = ImageEditRequest(model="m", prompt=body["prompt"], images=images)
    replies = [HttpReply(status=200, headers=each.headers, body=each.body) for each in (first, second)]
    spec = MediaSpec(fields={"edit_form": "json"})
    run = edit if images else make
    (sent, fetched), result = run(request, *replies, model=body["model"], media=spec)
    assert sent.request.url.endswith(first.request["url"].removeprefix("https://api.x.ai"))
    assert json.loads(sent.request.body) == body | {"n": 1}
    assert fetched == Fetch(url=second.request["url"])
    assert result == ImageResult(pictures=(Picture(medium=Medium(data=second.body, type="image/jpeg")),))


def test_one_picture_and_a_mask_as_json():
    """One picture stands alone in JSON, the mask beside it."""
    mask = Medium(data=JPEG, type="image/jpeg")
    request = ImageEditRequest(model="m", prompt="a hat", images=(PICTURE,), mask=mask, task="inpaint")
    (sent,), _ = edit(request, media=MediaSpec(fields={"edit_form": "json"}))
    assert json.loads(sent.request.body) == {
        "model": "model-a",
        "prompt": "a hat",
        "n": 1,
        "image": {"type": "image_url", "url": f"data:image/png;base64,{text_of(PNG)}"},
        "mask": {"type": "image_url", "url": f"data:image/jpeg;base64,{text_of(JPEG)}"},
    }


def test_pictures_go_out_as_a_form():
    """Several pictures share the name with brackets; every file has a name that tells its type, texts are texts."""
    images = (PICTURE, Medium(data=JPEG, type="image/jpeg"), Medium(data=WEBP, type="image/webp", name="x"))
    request = ImageEditRequest(
        model="m", prompt="ein Hut für sie", images=images, mask=PICTURE, n=3, width=1024, height=1536, seed=7,
        extra={"input_fidelity": "high", "tags": ["a", "b"], "flag": True, "nothing": None},
    )  # fmt: skip
    (sent,), _ = edit(request)
    assert sent.is_paid
    assert sent.request.url == "https://vendor.test/v1/images/edits"
    assert sent.request.headers["content-type"] == f"multipart/form-data; boundary={FACTS.token}"
    texts, files = form_of(sent.request)
    assert sorted(texts) == sorted([
        ("input_fidelity", "high"), ("tags[]", "a"), ("tags[]", "b"), ("flag", "true"), ("model", "model-a"),
        ("prompt", "ein Hut für sie"), ("n", "3"), ("size", "1024x1536"), ("seed", "7"),
    ])  # fmt: skip
    assert files == [
        ("image[]", "cat.png", "image/png", PNG),
        ("image[]", "file.jpg", "image/jpeg", JPEG),
        ("image[]", "x.webp", "image/webp", WEBP),
        ("mask", "cat.png", "image/png", PNG),
    ]


def test_a_form_that_came_in_goes_out_as_it_came():
    """What is read from a parsed form goes out with the same texts and files."""
    fields = FORM | {"n": ["2"], "size": ["1024x1024"], "quality": ["low"], "input_fidelity": ["high"]}
    request, form = decode_image_edit(fields, {"image[]": [PICTURE, PICTURE], "mask": [PICTURE]})
    assert form == ""
    (sent,), _ = edit(request, model="m")
    texts, files = form_of(sent.request)
    assert {name: [value] for name, value in texts} == fields
    assert [(name, data) for name, _, _, data in files] == [("image[]", PNG)] * 2 + [("mask", PNG)]


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"task": "outpaint"}, "operation"),
        ({"task": "inpaint"}, "mask"),
        ({"prompt": ""}, "prompt"),
        ({"images": ()}, "image"),
        ({"images": (Link(url=URL),)}, "image"),
        ({"mask": Link(url=URL)}, "mask"),
        ({"extra": {"image[]": "x"}}, "image[]"),
        ({"extra": {"mask": "x"}}, "mask"),
        ({"extra": {"stream": True}}, "stream"),
    ],
)
@pytest.mark.parametrize("form", ["json", "form"])
def test_edits_without_a_word_for_them_are_refused(wish, param, form):
    """Nothing is sent of an edit that the format cannot express."""
    fields = {name: getattr(CHANGED, name) for name in CHANGED.__struct_fields__} | wish
    target = make_target(media=MediaSpec(fields={"edit_form": form}))
    with pytest.raises(InvalidRequest) as refused:
        next(OpenAIImageEdits(address).run(ImageEditRequest(**fields), target, FACTS))
    assert refused.value.param == param


@pytest.mark.parametrize("name", ["stream", "partial_images"])
def test_a_stream_among_further_fields_is_refused(name):
    """A stream would be paid and not be read; saying that none is wanted is fine."""
    with pytest.raises(InvalidRequest) as refused:
        make(ImageRequest(model="m", prompt="a cat", extra={name: 1}))
    assert refused.value.param == name
    (sent,), _ = make(ImageRequest(model="m", prompt="a cat", extra={name: 0}))
    assert json.loads(sent.request.body)[name] == 0


@pytest.mark.parametrize(
    ("item", "told", "data", "kind"),
    [
        ({"b64_json": text_of(PNG)}, {"output_format": "webp"}, PNG, "image/png"),
        ({"b64_json": text_of(JPEG)}, {}, JPEG, "image/jpeg"),
        ({"b64_json": text_of(WEBP)}, {}, WEBP, "image/webp"),
        ({"b64_json": text_of(b"GIF89a..")}, {}, b"GIF89a..", "image/gif"),
        ({"b64_json": text_of(AVIF)}, {"output_format": "avif"}, AVIF, "image/avif"),
        ({"b64_json": text_of(AVIF), "mime_type": "image/avif"}, {}, AVIF, "image/avif"),
        ({"b64_json": f"data:image/png;base64,{text_of(PNG)}"}, {}, PNG, "image/png"),
        ({"url": f"data:image/png;base64,{text_of(PNG)}", "b64_json": ""}, {}, PNG, "image/png"),
        (
            {"b64_json": text_of(PNG), "url": None, "revised_prompt": 5},
            {"output_format": 5},
            PNG,
            "image/png",
        ),
    ],
)
def test_the_bytes_tell_the_type(item, told, data, kind):
    """A picture is what its bytes are; the vendor's word counts where they do not tell, odd side remarks never."""
    _, result = make(CAT, make_reply({"data": [item], **told}))
    assert result.pictures == (Picture(medium=Medium(data=data, type=kind)),)
    assert result.usage is None


def test_pictures_keep_their_order():
    """Bytes and addresses may come mixed; the pictures stay in the answer's order."""
    items = [{"url": URL}, {"b64_json": text_of(PNG)}, {"url": f"{URL}?2"}]
    replies = (make_reply({"data": items}), make_reply(JPEG), make_reply(AVIF, content_type="image/avif"))
    yielded, result = make(ImageRequest(model="m", prompt="a cat", n=3), *replies)
    assert yielded[1:] == [Fetch(url=URL), Fetch(url=f"{URL}?2")]
    assert [picture.medium.type for picture in result.pictures] == ["image/jpeg", "image/png", "image/avif"]
    assert result.notes == ()


@pytest.mark.parametrize(
    "missing", [[], [None], [{}], [{"content_filter_results": {"hate": {"filtered": True}}}]]
)
def test_fewer_pictures_than_asked_for_are_said(missing):
    """What was made is handed out, and a note says how much is missing."""
    reply = make_reply({"data": [*missing, {"b64_json": text_of(PNG)}]})
    _, result = make(ImageRequest(model="m", prompt="a cat", n=2), reply)
    assert len(result.pictures) == 1
    assert result.notes == ("n: vendor/model-a made 1 of 2",)


@pytest.mark.parametrize("run", [make, edit])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"text"', b"{}", b"<!DOCTYPE html><p>Busy", b'{"data": [{"b64', b"\xff\xfe", b"[" * 9999,
        {"data": None}, {"data": []}, {"data": {}}, {"data": [None]}, {"data": [{}]}, {"data": [5]}, {"data": ["x"]},
        {"data": [{"b64_json": ""}]}, {"data": [{"b64_json": 5}]}, {"data": [{"b64_json": "?"}]},
        {"data": [{"b64_json": text_of(b"<html>")}], "output_format": "png"},
        {"data": [{"b64_json": text_of(b"RIFF\x24\x00\x00\x00WAVEfmt ")}], "output_format": "png"},
        {"data": [{"url": ""}]}, {"data": [{"url": 5}]}, {"data": [{"url": "/1.png"}]},
        {"data": [{"url": text_of(PNG)}]}, {"data": [{"url": "file:///etc/passwd"}]}, {"data": [{"url": "data:,x"}]},
        {"data": [{"content_filter_results": {"hate": {"filtered": False}, "sexual": 5}}]},
    ],
)  # fmt: skip
def test_answers_without_a_picture_are_not_trusted(run, body):
    """Whatever holds no picture is a broken answer, which may have been billed."""
    with pytest.raises(BadProviderResponse) as failed:
        run(CAT if run is make else CHANGED, make_reply(body))
    assert not failed.value.is_unbilled


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "image/png"),
        (b"<html>Gone</html>", "text/html"),
        (b"<html>Gone</html>", "image/png"),
        (b'{"detail": "gone"}', "application/json"),
        (b"plain", "image/png"),
        (b"plain", "text/plain"),
        (b"ID3....", "image/jpeg"),
    ],
)
def test_downloads_without_a_picture_are_not_trusted(body, said):
    """What lies at an address must be a picture too, whatever its type is said to be."""
    with pytest.raises(BadProviderResponse):
        make(CAT, make_reply({"data": [{"url": URL}]}), make_reply(body, content_type=said))


def test_an_error_inside_an_answer_is_raised():
    """A failure that the vendor reports under 200 is raised as what it is, and is not billed."""
    with pytest.raises(ProviderRateLimited) as failed:
        make(CAT, make_reply({"error": {"message": "slowly", "code": "rate_limit_exceeded"}, "data": []}))
    assert failed.value.is_unbilled


def test_a_filtered_picture_is_told_as_such():
    """Where a filter held every picture back, the error says so."""
    item = {"content_filter_results": {"hate": {"filtered": False}, "sexual": {"filtered": True}}}
    with pytest.raises(ContentFiltered):
        make(CAT, make_reply({"data": [item]}))


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"input_tokens": 9, "output_tokens": 50}, {"output_tokens": 50, "image_output_tokens": 50}),
        (
            {"input_tokens": 9, "output_tokens": 50, "output_tokens_details": {"text_tokens": 20}},
            {"output_tokens": 50, "image_output_tokens": 30},
        ),
        (
            {"input_tokens": 9, "output_tokens": 50, "output_tokens_details": {"image_tokens": 60}},
            {"output_tokens": 50, "image_output_tokens": 50},
        ),
        (
            {"input_tokens": 9, "input_tokens_details": {"image_tokens": 8, "cached_tokens": 4}, "cost": 0.5},
            {"image_input_tokens": 8, "cached_input_tokens": 4, "vendor_cost_nanos": 500_000_000},
        ),
    ],
)
def test_usage_is_read(counts, usage):
    """Parents include their children; what comes out is pictures unless the details say text."""
    _, result = make(CAT, make_reply({"data": [{"b64_json": text_of(PNG)}], "usage": counts}))
    assert result.usage == Usage(input_tokens=9, **usage)


@pytest.mark.parametrize(
    "counts",
    [
        None, 5, "x", [], {}, {"input_tokens": "9"}, {"input_tokens": -1}, {"output_tokens": 10**12},
        {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, {"cost_in_usd_ticks": 200000000},
        {"output_tokens": 5, "output_tokens_details": {"text_tokens": 9}},
    ],
)  # fmt: skip
def test_unknown_usage_is_none(counts):
    """Absent, malformed and impossible counts, and nothing but zeros, are unknown; the picture is handed out."""
    _, result = make(CAT, make_reply({"data": [{"b64_json": text_of(PNG)}], "usage": counts}))
    assert result.usage is None
    assert len(result.pictures) == 1


def test_a_request_is_read():
    """Named fields become wishes, others are the vendor's own; null says nothing."""
    body = {
        "model": "m", "prompt": "a cat", "n": 3, "size": "1536x1024", "quality": "high", "style": "vivid",
        "background": "opaque", "output_format": "webp", "response_format": "b64_json", "user": "u",
        "stream": False, "partial_images": 0, "moderation": "low", "output_compression": 80, "other": None,
        "negative_prompt": "dogs", "seed": 7, "steps": 20, "guidance_scale": 3, "aspect_ratio": "3:2",
        "resolution": "2k",
    }  # fmt: skip
    assert decode_image_request(json.dumps(body).encode()) == (
        ImageRequest(
            model="m", prompt="a cat", n=3, width=1536, height=1024, quality="high", style="vivid", user="u",
            background="opaque", format="webp", extra={"moderation": "low", "output_compression": 80},
            negative_prompt="dogs", seed=7, steps=20, guidance_scale=3.0, aspect_ratio="3:2", resolution="2k",
        ),
        "b64_json",
    )  # fmt: skip


@pytest.mark.parametrize("size", ["auto", None])
def test_a_free_choice_of_size_is_no_size(size):
    """Where the model may choose, no size is asked for; one picture is the usual number."""
    body = {"model": "m", "prompt": "a cat", "size": size, "n": None, "response_format": None, "stream": None}
    assert decode_image_request(json.dumps(body).encode()) == (CAT, "")


MALFORMED = [
    ({"size": "large"}, "size"),
    ({"size": "0x5"}, "size"),
    ({"size": "1024x1024x1"}, "size"),
    ({"n": "0"}, "n"),
    ({"n": "11"}, "n"),
    ({"n": "x"}, "n"),
    ({"prompt": " "}, "prompt"),
    ({"response_format": "png"}, "response_format"),
    ({"stream": "true"}, "stream"),
    ({"partial_images": "2"}, "partial_images"),
    ({"guidance_scale": "nan"}, "guidance_scale"),
    ({"steps": "0"}, "steps"),
]


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        *MALFORMED,
        ({"size": ""}, "size"),
        ({"size": 1024}, "size"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"model": ""}, "model"),
        ({"quality": ""}, "quality"),
        ({"response_format": ""}, "response_format"),
        ({"stream": True}, "stream"),
        ({"partial_images": 1}, "partial_images"),
    ],
)
def test_malformed_requests_are_refused(wish, param):
    """A field that is wrong is named."""
    body = {"model": "m", "prompt": "a cat", **wish}
    with pytest.raises(InvalidRequest) as refused:
        decode_image_request(json.dumps(body).encode())
    assert refused.value.param == param


@pytest.mark.parametrize("missing", ["model", "prompt"])
def test_required_fields_are_named(missing):
    """What is not there is named in both forms."""
    body = {"model": "m", "prompt": "a hat"}
    del body[missing]
    with pytest.raises(InvalidRequest) as refused:
        decode_image_request(json.dumps(body).encode())
    assert refused.value.param == missing
    with pytest.raises(InvalidRequest) as refused:
        decode_image_edit({name: [value] for name, value in body.items()}, FILES)
    assert refused.value.param == missing


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"model":"m","model":"m","prompt":"p"}', b"\xff"])
def test_bodies_that_are_no_object_are_refused(body):
    """Bodies pass the guard for JSON first."""
    with pytest.raises(InvalidRequest):
        decode_image_request(body)
    with pytest.raises(InvalidRequest):
        read_json_edit(body)


def test_a_form_is_read():
    """Texts of a form become wishes, empty ones say nothing, lists lose their brackets, bytes tell their type."""
    fields = FORM | {
        "n": ["2"], "size": ["auto"], "quality": ["low"], "background": [""], "output_format": ["jpeg"],
        "response_format": ["url"], "user": ["u"], "stream": ["false"], "partial_images": ["0"], "seed": ["7"],
        "guidance_scale": ["2.5"], "input_fidelity": ["high"], "tags[]": ["a"], "twice": ["a", "b"],
    }  # fmt: skip
    given = Medium(data=PNG, type="application/octet-stream", name="cat")
    scan = Medium(data=AVIF, type="image/avif")
    request, form = decode_image_edit(fields, {"image[]": [scan], "image": [given], "mask": [given]})
    png = Medium(data=PNG, type="image/png", name="cat")
    assert form == "url"
    assert request == ImageEditRequest(
        model="m", prompt="a hat", images=(png, scan), mask=png, n=2, quality="low", format="jpeg", user="u", seed=7,
        guidance_scale=2.5, extra={"input_fidelity": "high", "tags": ["a"], "twice": ["a", "b"]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        *(({name: [text] for name, text in wish.items()}, FILES, param) for wish, param in MALFORMED),
        ({}, {}, "image"),
        ({}, {"image": []}, "image"),
        ({"image": ["x"]}, {}, "image"),
        ({"image[]": ["x"]}, FILES, "image"),
        ({"mask": ["x"]}, FILES, "mask"),
        ({}, {"image[]": [PICTURE] * 17}, "image"),
        ({}, {"image": [Medium(data=b"", type="image/png")]}, "image"),
        ({}, {"image": [Medium(data=b"plain", type="text/plain")]}, "image"),
        ({}, {"image": [Medium(data=b"ID3", type="audio/mpeg")]}, "image"),
        ({}, {**FILES, "mask": [PICTURE, PICTURE]}, "mask"),
        ({}, {**FILES, "mask": [Medium(data=b"", type="image/png")]}, "mask"),
        ({}, {**FILES, "sketch": [PICTURE]}, "sketch"),
        ({"n": ["1", "2"]}, FILES, "n"),
        ({"prompt": []}, FILES, "prompt"),
        ({"prompt[]": ["x"]}, FILES, "prompt"),
    ],
)
def test_malformed_forms_are_refused(fields, files, param):
    """A field or file that is wrong is named."""
    with pytest.raises(InvalidRequest) as refused:
        decode_image_edit({**FORM, **fields}, files)
    assert refused.value.param == param


def test_sixteen_pictures_may_be_given():
    """The most that the format takes pass, under both names together."""
    request, _ = decode_image_edit(FORM, {"image": [PICTURE], "image[]": [PICTURE] * 15})
    assert len(request.images) == 16


@pytest.mark.parametrize("name", ["image_url", "url"])
def test_an_edit_is_read_from_json(name):
    """Pictures are named by links or data URLs, alone or in a list, and under either of two names."""
    data_url = f"data:image/png;base64,{text_of(PNG)}"
    body = {
        "model": "m", "prompt": "a hat", "images": [{name: URL}, {"type": "image_url", name: data_url}],
        "mask": {name: data_url}, "response_format": "url", "input_fidelity": "high",
    }  # fmt: skip
    png = Medium(data=PNG, type="image/png")
    assert read_json_edit(json.dumps(body).encode()) == (
        ImageEditRequest(
            model="m", prompt="a hat", images=(Link(url=URL), png), mask=png, extra={"input_fidelity": "high"}
        ),
        "url",
    )
    alone = {"model": "m", "prompt": "a hat", "image": {name: data_url}}
    request, form = read_json_edit(json.dumps(alone).encode())
    assert (request.images, form) == ((png,), "")


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": [{"image_url": URL}] * 17}, "images"),
        ({"images": [{"image_url": URL}], "image": {"url": URL}}, "image"),
        ({"images": [{"image_url": URL}, {}]}, "images[1]"),
        ({"images": [{"file_id": "f"}]}, "images[0]"),
        ({"images": [{"image_url": "?"}]}, "images[0].image_url"),
        ({"image": {"url": f"data:text/plain;base64,{text_of(b'plain')}"}}, "image.url"),
        ({"image": {"url": URL}, "mask": {"file_id": "f"}}, "mask"),
        ({"image": {"url": URL}, "n": 11}, "n"),
        ({"image": {"url": URL}, "stream": True}, "stream"),
    ],
)
def test_malformed_edits_in_json_are_refused(wish, param):
    """A reference that leads to no picture is named."""
    with pytest.raises(InvalidRequest) as refused:
        read_json_edit(json.dumps({"model": "m", "prompt": "a hat", **wish}).encode())
    assert refused.value.param == param


def test_pictures_are_written_as_bytes():
    """The answer holds the pictures in base64, what they have in common, and the cost as an exact number."""
    result = ImageResult(
        pictures=(Picture(medium=PICTURE, width=1, height=1, revised_prompt="a grey cat"),),
        usage=Usage(input_tokens=30, image_input_tokens=20, output_tokens=50, image_output_tokens=40),
        notes=("made nearly",),
    )
    body = encode_image_result(
        result, urls=None, created_s=17, cost_usd="0.000123456789", quality="low", background="opaque"
    )
    assert b'"cost":0.000123456789' in body
    assert json.loads(body) == {
        "created": 17,
        "data": [{"b64_json": text_of(PNG), "revised_prompt": "a grey cat"}],
        "background": "opaque",
        "output_format": "png",
        "quality": "low",
        "size": "1x1",
        "usage": {
            "input_tokens": 30,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 20},
            "output_tokens": 50,
            "output_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "total_tokens": 80,
            "cost": 0.000123456789,
        },
        "notes": ["made nearly"],
    }


def test_pictures_are_written_as_links():
    """With links there are no bytes; what differs or is not known is left out."""
    other = Picture(medium=Medium(data=JPEG, type="image/jpeg"), width=3, height=2)
    result = ImageResult(pictures=(Picture(medium=PICTURE, width=1, height=1), other))
    body = encode_image_result(result, urls=[URL, f"{URL}?2"], created_s=17, cost_usd="0.5")
    assert json.loads(body) == {"created": 17, "data": [{"url": URL}, {"url": f"{URL}?2"}]}
    with pytest.raises(ValueError, match="shorter"):
        encode_image_result(result, urls=[URL], created_s=17, cost_usd=None)


def test_an_unmeasured_picture_has_no_size():
    """Nothing that nobody measured is written; an unknown cost is null."""
    picture = Picture(medium=Medium(data=AVIF, type="image/avif"))
    result = ImageResult(pictures=(picture,), usage=Usage(input_tokens=1))
    answer = json.loads(encode_image_result(result, urls=[URL], created_s=17, cost_usd=None))
    assert sorted(answer) == ["created", "data", "usage"]
    assert answer["usage"]["cost"] is None


def test_answers_have_the_published_shape():
    """Every field that is written stands in the published shape."""
    result = ImageResult(
        pictures=(Picture(medium=PICTURE, width=1, height=1),), usage=Usage(input_tokens=1), notes=("a",)
    )
    body = encode_image_result(
        result, urls=None, created_s=1, cost_usd=None, quality="low", background="opaque"
    )
    assert set(json.loads(body)) == set(ImagesReplyShape.__struct_fields__)
