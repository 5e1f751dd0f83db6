"""Stability AI: forms as they are sent, answers of every form, and the vendor's failures."""

import base64
import json
from collections.abc import Generator, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest

from llm_gate.catalog.loader import load_catalog, load_provider
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.media import ImageEditRequest, ImageRequest, ImageResult, Medium
from llm_gate.domain.media_rules import fit
from llm_gate.domain.provider import Facts, HttpReply, HttpRequest, Send, Target, Wait
from llm_gate.providers.stability import provider
from tests.support.targets import CREDENTIAL, make_reply, make_target

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
JPEG = b"\xff\xd8\xff\xe0" + bytes(16)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + bytes(8)
FACTS = Facts(now_s=1_800_000_000.0, token="0123456789abcdef" * 2)
ROOT = "https://api.stability.ai/v2beta/stable-image"
PICTURE, MASK = Medium(data=PNG, type="image/png"), Medium(data=JPEG, type="image/jpeg", name="mask.jpg")
CATALOG = load_catalog().providers["stability"]


def target_of(model: str) -> Target:
    """Return a target with the catalog's entry for a model; one that it does not know is passed through."""
    fields: dict[str, Any] = {}
    if model in CATALOG.models:
        known = CATALOG.models[model]
        fields = {"media": known.media, "deployment": known.deployment, "operations": known.operations}
    return make_target(
        provider="stability", codecs=provider, base_url="https://api.stability.ai", model=model, **fields
    )


def made(data: bytes = PNG, **fields: Any) -> HttpReply:
    """Return an answer with a picture."""
    body = {"image": base64.b64encode(data).decode(), "finish_reason": "SUCCESS", "seed": 7}
    return make_reply({**body, **fields})


def run(
    request: ImageRequest | ImageEditRequest, target: Target, replies: Sequence[HttpReply]
) -> tuple[ImageResult, list[Any]]:
    """Drive the codec with replies in order, and return what came of it and what it asked for."""
    exchanges: Generator[Any, Any, Any] = provider.media[request.operation].run(request, target, FACTS)
    asked: list[Any] = []
    left = list(replies)
    answer: HttpReply | None = None
    while True:
        try:
            do = exchanges.send(answer)
        except StopIteration as stop:
            assert not left
            return stop.value, asked
        asked.append(do)
        answer = None if isinstance(do, Wait) else left.pop(0)


def form_of(request: HttpRequest) -> dict[str, Any]:
    """Parse a form back: text fields as text, files as (name, type, bytes)."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    fields: dict[str, Any] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        file_name = part.get_filename()
        assert name not in fields
        fields[name] = data.decode() if file_name is None else (file_name, part.get_content_type(), data)
    return fields


def test_the_catalog_makes_the_vendor_callable():
    """Its file names this module, the address and the key, and the default models are there."""
    spec = CATALOG.spec
    assert load_provider(spec, {}) is provider
    assert (spec.base_url, spec.auth.names) == ("https://api.stability.ai", ("STABILITY_API_KEY",))
    assert {
        operation: spec.defaults[operation] in CATALOG.models for operation in ("image", "image_edit")
    } == {
        "image": True,
        "image_edit": True,
    }
    assert all(price.source and price.checked for model in CATALOG.models.values() for price in model.prices)


@pytest.mark.parametrize(
    ("model", "path", "said"),
    [
        ("stable-image-ultra", "ultra", {}),
        ("stable-image-core", "core", {}),
        ("sd3.5-large", "sd3", {"model": "sd3.5-large"}),
        ("sd3.5-large-turbo", "sd3", {"model": "sd3.5-large-turbo"}),
        ("sd3.5-flash", "sd3", {"model": "sd3.5-flash"}),
        ("stable-diffusion", "sd3", {"model": "sd3.5-large-turbo"}),
        ("sd3.5-unheard-of", "sd3", {"model": "sd3.5-unheard-of"}),
        ("a/b?c", "a%2Fb%3Fc", {}),
    ],
)
def test_a_model_has_its_path(model: str, path: str, said: dict[str, str]):
    """The path follows the model, one family of which is told apart by a field."""
    request = ImageRequest(model=model, prompt="a fox")
    result, (send,) = run(request, target_of(model), [made()])
    assert send.is_paid
    assert (send.request.method, send.request.url) == ("POST", f"{ROOT}/generate/{path}")
    assert form_of(send.request) == {"prompt": "a fox", **said}
    assert result.pictures[0].medium == PICTURE


def test_every_wish_becomes_its_field():
    """All that the vendor knows is in the form, which is a form also without a file, and asks for JSON."""
    request = ImageRequest(
        model="sd3.5-large",
        prompt="ein Fuchs, ölig",
        width=1920,
        height=1080,
        style="anime",
        negative_prompt="text",
        seed=0,
        guidance_scale=4.5,
        format="PNG",
        extra={"prompt": "mine", "mode": "text-to-image", "flag": True, "unset": None},
    )
    target = target_of("sd3.5-large")
    _, (send,) = run(fit(request, target.model).request, target, [made()])
    assert send.request.headers["accept"] == "application/json"
    assert send.request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert "authorization" not in {name.lower() for name in send.request.headers}
    assert form_of(send.request) == {
        "prompt": "ein Fuchs, ölig",
        "negative_prompt": "text",
        "aspect_ratio": "16:9",
        "seed": "0",
        "style_preset": "anime",
        "output_format": "png",
        "cfg_scale": "4.5",
        "model": "sd3.5-large",
        "mode": "text-to-image",
        "flag": "true",
    }


def test_the_catalogs_fields_come_before_the_callers():
    """What the operator wrote into the catalog is sent, and a caller's field of that name is not."""
    target = make_target(
        provider="stability", codecs=provider, model="core", media=MediaSpec(fields={"style_preset": "anime"})
    )
    request = ImageRequest(model="core", prompt="a", extra={"style_preset": "origami"})
    _, (send,) = run(request, target, [made()])
    assert form_of(send.request)["style_preset"] == "anime"


FILE, MASK_FILE = ("file.png", "image/png", PNG), ("mask.jpg", "image/jpeg", JPEG)


@pytest.mark.parametrize(
    ("model", "fields", "path", "form"),
    [
        ("inpaint", {"mask": MASK, "prompt": "a hat"}, "inpaint", {"mask": MASK_FILE, "prompt": "a hat"}),
        ("erase", {"mask": MASK, "prompt": "the man"}, "erase", {"mask": MASK_FILE}),
        ("outpaint", {"extra": {"left": 10, "up": 20}}, "outpaint", {"left": "10", "up": "20"}),
        ("outpaint", {"prompt": "sea", "extra": {"down": 1}}, "outpaint", {"down": "1", "prompt": "sea"}),
        ("remove-background", {"format": "webp"}, "remove-background", {"output_format": "webp"}),
        (
            "search-and-replace",
            {"prompt": "a cat", "extra": {"search_prompt": "dog"}},
            "search-and-replace",
            {"prompt": "a cat", "search_prompt": "dog"},
        ),
        (
            "search-and-recolor",
            {"prompt": "red", "extra": {"select_prompt": "car"}},
            "search-and-recolor",
            {"prompt": "red", "select_prompt": "car"},
        ),
    ],
)
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "general"])
def test_an_edit_has_its_path_and_fields(
    model: str, fields: dict[str, Any], path: str, form: dict[str, Any], is_named: bool
):
    """Each edit goes to its own path, whether the task is named or follows from the model."""
    task = model.replace("-", "_") if is_named else "general_edit"
    name = f"stable-image-{model}"
    target = target_of(name)
    request = ImageEditRequest(model=name, images=(PICTURE,), task=task, **fields)
    result, (send,) = run(fit(request, target.model).request, target, [made(WEBP)])
    assert send.request.url == f"{ROOT}/edit/{path}"
    assert form_of(send.request) == {"image": FILE, **form}
    assert result.pictures[0].medium.type == "image/webp"
    assert bool(result.notes) == (model == "erase")


def test_a_task_finds_its_path_without_the_catalog():
    """A model that is not listed is edited by the task alone."""
    request = ImageEditRequest(model="whatever", images=(PICTURE,), task="remove_background")
    _, (send,) = run(request, target_of("whatever"), [made()])
    assert send.request.url == f"{ROOT}/edit/remove-background"


@pytest.mark.parametrize(("extra", "strength"), [({}, "0.7"), ({"strength": 0.3}, "0.3")])
def test_a_general_edit_begins_with_the_picture(extra: dict[str, Any], strength: str):
    """The family of models that take a picture are told the mode, and how far they may go from it."""
    target = target_of("sd3.5-large")
    request = ImageEditRequest(model="sd3.5-large", images=(PICTURE,), prompt="in winter", extra=extra)
    _, (send,) = run(fit(request, target.model).request, target, [made(JPEG)])
    assert send.request.url == f"{ROOT}/generate/sd3"
    assert form_of(send.request) == {
        "image": FILE,
        "prompt": "in winter",
        "model": "sd3.5-large",
        "mode": "image-to-image",
        "strength": strength,
    }


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ImageRequest(model="x", prompt="a", n=2), "n"),
        (ImageEditRequest(model="x", images=(PICTURE,), task="outpaint", extra={"left": 0}), "left"),
        (
            ImageEditRequest(model="x", images=(PICTURE,), prompt="a", task="search_and_replace"),
            "search_prompt",
        ),
        (
            ImageEditRequest(model="x", images=(PICTURE,), prompt="a", task="search_and_recolor"),
            "select_prompt",
        ),
        (ImageEditRequest(model="sd3.5-large", images=(PICTURE,), prompt="a", aspect_ratio="1:1"), "size"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(request_: Any, param: str):
    """A wish without what the vendor needs names the field that is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        run(request_, target_of(request_.model), [])
    assert caught.value.param == param


@pytest.mark.parametrize(("data", "type_"), [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp")])
def test_the_type_is_that_of_the_bytes(data: bytes, type_: str):
    """A picture is what its bytes say, with the seed that made it."""
    result, _ = run(ImageRequest(model="core", prompt="a"), target_of("core"), [made(data)])
    (picture,) = result.pictures
    assert (picture.medium.type, picture.medium.data, picture.seed) == (type_, data, 7)


@pytest.mark.parametrize("seed", [None, "7", True, [1]])
def test_a_strange_seed_loses_no_picture(seed: object):
    """What was paid is not thrown away for a seed that is no number."""
    result, _ = run(ImageRequest(model="core", prompt="a"), target_of("core"), [made(seed=seed)])
    assert result.pictures[0].seed is None


@pytest.mark.parametrize("image", ["", None, base64.b64encode(PNG).decode()])
def test_filtered_pictures_are_refused(image: str | None):
    """The vendor's filter ends the call, is billed for all we know, and no other vendor is tried."""
    reply = make_reply({"image": image, "finish_reason": "CONTENT_FILTERED", "seed": 1})
    with pytest.raises(ContentFiltered) as caught:
        run(ImageRequest(model="core", prompt="a"), target_of("core"), [reply])
    assert not caught.value.is_unbilled
    assert not caught.value.moves_on


BROKEN = [
    b"",
    b"<html>busy</html>",
    b"null",
    b"[]",
    b"{}",
    b'{"image": null, "finish_reason": "SUCCESS"}',
    b'{"image": "", "finish_reason": "SUCCESS"}',
    b'{"image": 3}',
    b'{"image": ["a"]}',
    b'{"image": "no base64 at all!"}',
    b'{"image": "PGh0bWw+"}',
    b'{"id": 5}',
    b'{"id": "../../v1/user/balance"}',
    b"\xff\xfe",
    b"[" * 100_000,
    PNG,
]


@pytest.mark.parametrize("body", BROKEN, ids=[repr(body[:24]) for body in BROKEN])
def test_an_answer_without_a_picture_is_not_trusted(body: bytes):
    """Whatever comes with 200 and holds no picture is an answer against the contract."""
    with pytest.raises(BadProviderResponse):
        run(ImageRequest(model="core", prompt="a"), target_of("core"), [make_reply(body)])


RELIT = ImageEditRequest(
    model="stable-image-replace-background", images=(PICTURE,), prompt="a beach", task="replace_background"
)


@pytest.mark.parametrize("status", [200, 202])
def test_accepted_work_is_asked_for_until_it_is_there(status: int):
    """The number leads to the result, which is asked for every two seconds and billed once."""
    still = make_reply({"id": "abc-1", "status": "in-progress"}, 202)
    busy = make_reply({"name": "rate_limit_exceeded", "errors": ["slow"]}, 429)
    done = make_reply({"result": base64.b64encode(PNG).decode(), "finish_reason": "SUCCESS", "seed": 9})
    result, asked = run(
        RELIT, target_of(RELIT.model), [make_reply({"id": "abc-1"}, status), still, busy, done]
    )
    first, *others = asked
    assert first.request.url == f"{ROOT}/edit/replace-background-and-relight"
    assert form_of(first.request) == {"subject_image": FILE, "background_prompt": "a beach"}
    look = Send(
        request=HttpRequest(
            method="GET",
            url="https://api.stability.ai/v2beta/results/abc-1",
            body=b"",
            headers={"accept": "application/json"},
        ),
        reads_failures=True,
    )
    assert others == [Wait(seconds=2.0), look] * 3
    assert (result.pictures[0].medium, result.pictures[0].seed) == (PICTURE, 9)


def test_accepted_work_is_not_waited_for_without_end():
    """After two minutes the wait ends, and the work is not begun again at the same place."""
    replies = [make_reply({"id": "a"}, 202)] * 61
    with pytest.raises(ProviderTimeout) as caught:
        run(RELIT, target_of(RELIT.model), replies)
    assert not caught.value.may_repeat
    assert not caught.value.is_unbilled


def test_a_result_that_is_refused_is_the_vendors_error():
    """A failure of the result is typed, and what was paid is not sent again."""
    refused = make_reply({"id": "x", "name": "content_moderation", "errors": ["no"]}, 403)
    with pytest.raises(ContentFiltered) as caught:
        run(RELIT, target_of(RELIT.model), [make_reply({"id": "a"}, 202), refused])
    assert not caught.value.may_repeat


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            {"id": "1", "name": "bad_request", "errors": ["prompt: too long", "seed: bad"]},
            ProviderRejected,
        ),
        (401, {"id": "1", "name": "unauthorized", "errors": ["missing key"]}, ProviderAuthFailed),
        (402, {"id": "1", "name": "payment_required", "errors": ["no credits"]}, ProviderQuotaExhausted),
        (403, {"id": "1", "name": "content_moderation", "errors": ["flagged"]}, ContentFiltered),
        (403, {"id": "1", "name": "forbidden", "errors": ["not yours"]}, ProviderAuthFailed),
        (404, {"id": "1", "name": "not_found", "errors": ["no route"]}, ProviderModelGone),
        (413, {"id": "1", "name": "payload_too_large", "errors": ["10 MiB"]}, ProviderRejected),
        (422, {"id": "1", "name": "invalid_language", "errors": ["English only"]}, ProviderRejected),
        (429, {"id": "1", "name": "rate_limit_exceeded", "errors": ["150 in 10 s"]}, ProviderRateLimited),
        (500, {"id": "1", "name": "internal_error", "errors": ["oops"]}, ProviderUnavailable),
        (400, {"message": "old form", "name": "bad_request"}, ProviderRejected),
        (400, {"name": 3, "errors": [{"a": 1}]}, ProviderRejected),
        (502, b"<html>bad gateway</html>", ProviderUnavailable),
        (500, b"", ProviderUnavailable),
        (400, b"plain words", ProviderRejected),
    ],
)
def test_failures_are_typed_by_status_and_name(status: int, body: object, kind: type[ProviderError]):
    """Status and name say what can be done; the vendor's words are kept where they are words."""
    error = provider.decode_error(make_reply(body, status, retry_after="3"), target_of("core"))
    assert type(error) is kind
    assert (error.status, error.retry_after_s, error.provider) == (status, 3.0, "stability")
    assert "<html>" not in error.message
    if isinstance(body, dict) and body.get("id"):
        assert error.vendor_code == body["name"]
        assert kind is ProviderAuthFailed or all(said in error.detail for said in body["errors"])


def test_failures_do_not_show_the_credential():
    """A vendor that quotes the key back is not quoted."""
    reply = make_reply(json.dumps({"name": "bad_request", "errors": [f"key {CREDENTIAL}"]}).encode(), 400)
    assert CREDENTIAL not in provider.decode_error(reply, target_of("core")).message
