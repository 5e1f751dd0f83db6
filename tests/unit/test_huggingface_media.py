"""Hugging Face's media: the hub's look-up, pictures in one exchange, edits and films by way of the queue."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from llm_gate.catalog.loader import load_catalog, load_provider
from llm_gate.dialects import openai
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.media import ImageEditRequest, ImageRequest, Medium, VideoRequest
from llm_gate.domain.media_rules import fit
from llm_gate.domain.provider import Facts, Fetch, HttpReply, HttpRequest, JobView, Send, Target, Ticket, Wait
from llm_gate.providers.huggingface import provider
from tests.support.targets import make_reply, make_target

FACTS = Facts(now_s=1_800_000_000.0, token="0123456789abcdef" * 2)
ROUTER = "https://router.huggingface.co"
CATALOG = load_catalog().providers["huggingface"]
KREA, KONTEXT, HUNYUAN = (CATALOG.spec.defaults[name] for name in ("image", "image_edit", "video"))
JPEG = b"\xff\xd8\xff\xe0" + bytes(16)
PNG = Medium(data=b"\x89PNG\r\n\x1a\n" + bytes(16), type="image/png")
FILM = b"\0\0\0\x18ftypmp42" + bytes(16)
PLACE = "https://v3.fal.media/files/a/b.jpeg"
SUBMITTED = {
    "status": "IN_QUEUE",
    "request_id": "id-1",
    "response_url": "https://queue.fal.run/maker/app/requests/id-1",
}
EDIT = ImageEditRequest(model=KONTEXT, images=(PNG,), prompt="in winter")
FILM_WISH = VideoRequest(model=HUNYUAN, prompt="a fox runs")


def target_of(model: str = KREA, *, base_url: str = f"{ROUTER}/v1", path: str | None = None) -> Target:
    """Return a target with the catalog's entry for a model; `path` is its path at the maker, where it is named."""
    known = CATALOG.models.get(model)
    media = MediaSpec(paths={"fal-ai": path}) if path is not None else known and known.media
    return make_target(provider="huggingface", codecs=provider, base_url=base_url, model=model, media=media)


def mapping(path: str = "maker/app/way", task: str = "text-to-image", **entry: Any) -> HttpReply:
    """Return the hub's answer."""
    place = {"status": "live", "providerId": path, "task": task, **entry}
    return make_reply({"id": "x", "inferenceProviderMapping": {"other": {"status": "live"}, "fal-ai": place}})


def fetched(data: bytes = JPEG, type_: str = "image/jpeg") -> HttpReply:
    """Return a download."""
    return make_reply(data, content_type=type_)


def made(**fields: Any) -> HttpReply:
    """Return an answer with one picture."""
    body = {"images": [{"url": PLACE, "content_type": "image/jpeg"}], "seed": 5, "has_nsfw_concepts": [False]}
    return make_reply({**body, **fields})


def drive(exchanges: Any, replies: Sequence[HttpReply]) -> tuple[Any, list[Any]]:
    """Drive a codec as the engine does, and return what came of it and what it asked for, waits left out."""
    asked: list[Any] = []
    left = list(replies)
    answer: HttpReply | None = None
    while True:
        try:
            do = exchanges.send(answer)
        except StopIteration as stop:
            assert not left
            return stop.value, asked
        if isinstance(do, Wait):
            assert do.seconds == 0.5
            answer = None
            continue
        asked.append(do)
        answer = left.pop(0)
        if isinstance(do, Send) and answer.status >= 300 and not do.reads_failures:
            exchanges.throw(provider.decode_error(answer, target_of()))


def run(request: Any, target: Target, replies: Sequence[HttpReply]) -> tuple[Any, list[Any]]:
    """Drive the codec of a request for pictures."""
    return drive(provider.media[request.operation].run(request, target, FACTS), replies)


def get(url: str, **fields: Any) -> Send:
    """Return the reading of an address."""
    return Send(request=HttpRequest(method="GET", url=url, body=b""), **fields)


def test_everything_else_is_the_dialects():
    """Chat, embeddings and errors are those of the dialect itself, and the catalog names this module."""
    assert load_provider(CATALOG.spec, {}) is provider
    assert provider.chat is openai.provider.chat
    assert provider.embedding is openai.provider.embedding
    assert provider.decode_error is openai.provider.decode_error
    assert (provider.dialect, provider.apis) == (openai.provider.dialect, openai.provider.apis)
    assert (set(provider.media), set(provider.jobs)) == ({"image", "image_edit"}, {"video"})


def test_a_picture_takes_a_look_up_a_call_and_a_download():
    """The hub says where the model is, the maker is paid once, and the picture is fetched without a credential."""
    request = ImageRequest(
        model=KREA,
        prompt="a fox",
        width=1024,
        height=768,
        steps=20,
        guidance_scale=4.5,
        seed=0,
        format="PNG",
        extra={"prompt": "mine", "acceleration": "none", "unset": None},
    )
    target = target_of()
    result, asked = run(fit(request, target.model).request, target, [mapping(), made(), fetched()])
    look_up, call, download = asked
    asked_for = get(f"https://huggingface.co/api/models/{KREA}?expand[]=inferenceProviderMapping")
    assert (look_up.request, look_up.keep_s) == (asked_for.request, 600.0)
    assert call.is_paid
    assert (call.request.method, call.request.url) == ("POST", f"{ROUTER}/fal-ai/maker/app/way")
    assert call.request.headers == {"content-type": "application/json"}
    assert json.loads(call.request.body) == {
        "prompt": "a fox",
        "image_size": {"width": 1024, "height": 768},
        "num_inference_steps": 20,
        "guidance_scale": 4.5,
        "seed": 0,
        "output_format": "png",
        "acceleration": "none",
    }
    assert download == Fetch(url=PLACE)
    (picture,) = result.pictures
    assert (picture.medium, picture.seed) == (Medium(data=JPEG, type="image/jpeg"), 5)
    assert result.notes == ()


def test_an_unlisted_model_is_asked_for_all_that_was_said():
    """Of a model that the catalog does not know, nothing is left out."""
    request = ImageRequest(
        model="a/b", prompt="x", n=2, negative_prompt="text", aspect_ratio="1:1", resolution="2K"
    )
    _, asked = run(request, target_of("a/b"), [mapping(), made(), fetched()])
    assert json.loads(asked[1].request.body) == {
        "prompt": "x",
        "num_images": 2,
        "negative_prompt": "text",
        "aspect_ratio": "1:1",
        "resolution": "2K",
    }


def test_a_path_in_the_catalog_spares_the_look_up():
    """Where the catalog names the path, the hub is not asked."""
    _, asked = run(
        ImageRequest(model=KREA, prompt="a"), target_of(path="fal-ai/flux/krea"), [made(), fetched()]
    )
    assert asked[0].request.url == f"{ROUTER}/fal-ai/fal-ai/flux/krea"


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8080", "http://127.0.0.1:8080/deep/v1"])
def test_an_address_of_the_operators_own_is_the_hub_too(base_url: str):
    """The credential goes to no other place than the one that was configured."""
    _, asked = run(
        ImageRequest(model="a/b", prompt="a"),
        target_of("a/b", base_url=base_url),
        [mapping(), made(), fetched()],
    )
    assert asked[0].request.url.startswith("http://127.0.0.1:8080/api/models/a/b?")
    assert asked[1].request.url == "http://127.0.0.1:8080/fal-ai/maker/app/way"


def test_the_hubs_other_form_is_read():
    """The mapping may be a list, too; and a name may end with the maker it means."""
    listed = [{"provider": "x"}, 3, {"provider": "fal-ai", "status": "live", "providerId": "m/n"}]
    _, asked = run(
        ImageRequest(model="a/b:fal-ai", prompt="a"),
        target_of("a/b:fal-ai"),
        [make_reply({"inferenceProviderMapping": listed}), made(), fetched()],
    )
    assert asked[0].request.url.startswith("https://huggingface.co/api/models/a/b?")
    assert asked[1].request.url == f"{ROUTER}/fal-ai/m/n"


@pytest.mark.parametrize(
    "reply",
    [
        make_reply({"id": "x"}),
        make_reply({"inferenceProviderMapping": None}),
        make_reply({"inferenceProviderMapping": {}}),
        make_reply({"inferenceProviderMapping": []}),
        make_reply({"inferenceProviderMapping": {"fal-ai": None}}),
        make_reply({"inferenceProviderMapping": {"groq": {"status": "live", "providerId": "a/b"}}}),
        mapping(status="staging"),
        mapping(status="error"),
        mapping(providerId=None),
        mapping(providerId="../../evil"),
        mapping(providerId="a/b?c"),
        mapping(task="text-to-video"),
        make_reply({"error": "Repository not found"}, 404),
    ],
)
def test_a_model_that_nobody_serves_is_gone(reply: HttpReply):
    """Without a live place at the maker for this very task, another provider is to be tried."""
    with pytest.raises(ProviderModelGone) as caught:
        run(ImageRequest(model=KREA, prompt="a"), target_of(), [reply])
    assert caught.value.moves_on


@pytest.mark.parametrize("model", ["../../whoami", "a/../../b", "a?b", "", "a b"])
def test_what_is_no_name_is_not_looked_up(model: str):
    """A name that would lead elsewhere at the hub is not sent to it."""
    with pytest.raises(ProviderModelGone):
        run(ImageRequest(model=model, prompt="a"), target_of(model), [])


BROKEN = [b"", b"<html>busy</html>", b"null", b"[]", b"3", b"\xff", b"[" * 100_000]
NO_PICTURES = [
    *BROKEN,
    b"{}",
    b'{"images": null}',
    b'{"images": []}',
    b'{"images": [null]}',
    b'{"images": [{}]}',
    b'{"images": [{"url": 3}]}',
    b'{"images": {"url": "https://x.test"}}',
]


@pytest.mark.parametrize("body", [*BROKEN, b'{"inferenceProviderMapping": 3}'], ids=[*map(repr, range(8))])
def test_a_broken_look_up_is_not_trusted(body: bytes):
    """What is no answer of the hub is an answer against the contract."""
    with pytest.raises(BadProviderResponse):
        run(ImageRequest(model=KREA, prompt="a"), target_of(), [make_reply(body)])


@pytest.mark.parametrize("body", NO_PICTURES, ids=[*map(repr, range(len(NO_PICTURES)))])
def test_an_answer_without_a_picture_is_not_trusted(body: bytes):
    """Whatever comes with 200 and holds no picture is an answer against the contract."""
    with pytest.raises(BadProviderResponse):
        run(ImageRequest(model=KREA, prompt="a"), target_of(path="a/b"), [make_reply(body)])


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (fetched(b""), "image/jpeg"),
        (fetched(b"<html>gone</html>", "text/html"), None),
        (fetched(b" <!doctype html>", "text/html"), "image/jpeg"),
        (fetched(b'{"error": 1}', "application/json"), "image/jpeg"),
        (make_reply(b"unheard of"), None),
        (fetched(FILM, "image/jpeg"), "image/jpeg"),
        (fetched(FILM, "video/mp4"), None),
    ],
)
def test_a_download_that_is_no_picture_is_not_trusted(reply: HttpReply, said: str | None):
    """What the address leads to is looked at, too."""
    answer = made(images=[{"url": PLACE, "content_type": said}])
    with pytest.raises(BadProviderResponse):
        run(ImageRequest(model=KREA, prompt="a"), target_of(path="a/b"), [answer, reply])


@pytest.mark.parametrize(
    ("data", "said", "header", "type_"),
    [
        (JPEG, "image/png", "image/png", "image/jpeg"),
        (b"unheard of", "image/jxl", "image/png", "image/jxl"),
        (b"unheard of", None, "image/avif; q=1", "image/avif"),
        (b"unheard of", "", "IMAGE/AVIF", "image/avif"),
    ],
)
def test_the_type_is_that_of_the_bytes_or_the_vendors_word(
    data: bytes, said: str | None, header: str, type_: str
):
    """Where the bytes do not tell, the answer's word goes before the download's."""
    answer = made(images=[{"url": PLACE, "content_type": said}])
    result, _ = run(
        ImageRequest(model=KREA, prompt="a"), target_of(path="a/b"), [answer, fetched(data, header)]
    )
    assert result.pictures[0].medium.type == type_


@pytest.mark.parametrize("seed", [None, "5", True])
def test_a_strange_seed_loses_no_picture(seed: object):
    """What was paid is not thrown away for a seed that is no number."""
    result, _ = run(ImageRequest(model=KREA, prompt="a"), target_of(path="a/b"), [made(seed=seed), fetched()])
    assert result.pictures[0].seed is None


def test_a_filtered_picture_is_refused():
    """A picture that was blackened is no answer; it was made and billed."""
    with pytest.raises(ContentFiltered) as caught:
        run(ImageRequest(model=KREA, prompt="a"), target_of(path="a/b"), [made(has_nsfw_concepts=[True])])
    assert not caught.value.moves_on
    assert not caught.value.is_unbilled


def test_pictures_beside_a_filtered_one_are_kept():
    """One of two was blackened: the other comes, and the loss is said."""
    two = [{"url": f"{PLACE}?{index}", "content_type": "image/jpeg"} for index in range(2)]
    result, asked = run(
        ImageRequest(model=KREA, prompt="a", n=2),
        target_of(path="a/b"),
        [made(images=two, has_nsfw_concepts=[True, False]), fetched()],
    )
    assert asked[-1] == Fetch(url=f"{PLACE}?1")
    assert len(result.pictures) == 1
    assert result.notes == ("1 of 2 pictures were filtered by the provider",)


def test_an_edit_goes_through_the_queue():
    """The picture travels inside the request; the queue is asked at the router alone until the result is there."""
    target = target_of(KONTEXT)
    request = ImageEditRequest(model=KONTEXT, images=(PNG,), prompt="in winter", seed=3)
    replies = [
        mapping("maker/app/dev", "image-to-image"),
        make_reply(SUBMITTED),
        make_reply({"status": "IN_QUEUE", "queue_position": 1}, 202),
        make_reply({"status": "IN_PROGRESS"}, 202),
        make_reply({"status": "COMPLETED"}),
        made(),
        fetched(),
    ]
    result, asked = run(fit(request, target.model).request, target, replies)
    submit = asked[1]
    assert submit.is_paid
    assert submit.request.url == f"{ROUTER}/fal-ai/maker/app/dev?_subdomain=queue"
    inline = f"data:image/png;base64,{base64.b64encode(PNG.data).decode()}"
    assert json.loads(submit.request.body) == {
        "prompt": "in winter",
        "seed": 3,
        "image_url": inline,
        "image_urls": [inline],
    }
    work = f"{ROUTER}/fal-ai/maker/app/requests/id-1"
    assert asked[2:5] == [get(f"{work}/status?_subdomain=queue")] * 3
    assert asked[5:] == [get(f"{work}?_subdomain=queue", reads_failures=True), Fetch(url=PLACE)]
    assert [picture.medium.data for picture in result.pictures] == [JPEG]


def test_a_mask_travels_inside_the_request():
    """A mask is sent as the picture is."""
    request = ImageEditRequest(model="a/b", images=(PNG, PNG), mask=PNG, prompt="x", task="inpaint")
    exchanges = provider.media["image_edit"].run(request, target_of("a/b", path="m/n"), FACTS)
    said = json.loads(next(exchanges).request.body)
    assert said["mask_url"] == said["image_url"] == said["image_urls"][1]


@pytest.mark.parametrize(
    ("response_url", "path"),
    [
        ("https://queue.fal.run/maker/other/requests/id-1", "maker/other"),
        ("https://fal.run/maker/other/requests/id-1", "maker/other"),
        ("https://router.huggingface.co/fal-ai/maker/other/requests/id-1", "maker/other"),
        ("https://queue.fal.run/workflows/maker/other/requests/id-1", "workflows/maker/other"),
        ("https://queue.fal.run.evil.test/maker/other/requests/id-1", "maker/app"),
        ("https://evilfal.run/maker/other/requests/id-1", "maker/app"),
        ("https://evil.test/maker/other/requests/id-1", "maker/app"),
        ("https://queue.fal.run/maker/other/requests/id-2", "maker/app"),
        ("https://queue.fal.run/../api/whoami/requests/id-1", "maker/app"),
        ("https://queue.fal.run/maker/other", "maker/app"),
        ("http://[", "maker/app"),
        ("", "maker/app"),
        (None, "maker/app"),
        (3, "maker/app"),
    ],
)
def test_the_queues_own_path_is_taken_from_the_maker_alone(response_url: object, path: str):
    """Of the address that an answer names, at most the path is used, and only where it is the maker's."""
    submitted = make_reply({**SUBMITTED, "response_url": response_url})
    codec = provider.jobs["video"]
    target = target_of(HUNYUAN, path="maker/app/way/further")
    ticket, _ = drive(codec.submit(FILM_WISH, target, FACTS), [submitted])
    assert ticket == Ticket(id="id-1", data={"path": path})
    _, asked = drive(codec.look(ticket, target, FACTS), [make_reply({"status": "IN_QUEUE"})])
    assert asked == [get(f"{ROUTER}/fal-ai/{path}/requests/id-1/status?_subdomain=queue")]


@pytest.mark.parametrize(
    "body",
    [
        *BROKEN,
        b"{}",
        b'{"request_id": null}',
        b'{"request_id": 3}',
        b'{"request_id": "../x"}',
        b'{"request_id": ""}',
    ],
    ids=[*map(repr, range(12))],
)
@pytest.mark.parametrize("operation", ["image_edit", "video"])
def test_work_without_a_number_is_not_trusted(operation: str, body: bytes):
    """An answer that names no work leads nowhere."""
    codec, target = provider.jobs["video"], target_of(KONTEXT, path="a/b")
    exchanges: Any = codec.submit(FILM_WISH, target, FACTS)
    if operation == "image_edit":
        exchanges = provider.media[operation].run(EDIT, target, FACTS)
    with pytest.raises(BadProviderResponse):
        drive(exchanges, [make_reply(body)])


UNPROCESSABLE = {"detail": [{"loc": ["body", "prompt"], "msg": "too short", "type": "value_error"}]}
FLAGGED = {"detail": [{"loc": ["body"], "msg": "flagged", "type": "content_policy_violation"}]}
FAILURES = [
    ([make_reply({"status": "COMPLETED"}), make_reply(UNPROCESSABLE, 422)], ProviderRejected, "too short"),
    ([make_reply({"status": "COMPLETED"}), make_reply(FLAGGED, 422)], ContentFiltered, "flagged"),
    ([make_reply({"status": "COMPLETED"}), make_reply({"detail": "bad"}, 400)], ProviderRejected, "bad"),
    ([make_reply({"status": "COMPLETED"}), make_reply(b"<html>", 422)], ProviderRejected, ""),
    ([make_reply({"status": "COMPLETED"}), make_reply(b"[]", 400)], ProviderRejected, ""),
    (
        [make_reply({"status": "COMPLETED", "error": "no GPU", "error_type": "x"})],
        ProviderUnavailable,
        "no GPU",
    ),
    (
        [make_reply({"status": "COMPLETED", "error": "hm", "error_type": "content_policy_violation"})],
        ContentFiltered,
        "hm",
    ),
    ([make_reply({"status": "FAILED"})], ProviderUnavailable, ""),
    ([make_reply({"status": "ERROR", "error": {"a": 1}})], ProviderUnavailable, ""),
]


@pytest.mark.parametrize(("replies", "kind", "detail"), FAILURES)
def test_a_failed_edit_is_typed_and_unbilled(
    replies: list[HttpReply], kind: type[ProviderError], detail: str
):
    """Work that the maker says failed costs nothing, and says why."""
    with pytest.raises(kind) as caught:
        run(EDIT, target_of(KONTEXT, path="a/b"), [make_reply(SUBMITTED), *replies])
    assert type(caught.value) is kind
    assert caught.value.is_unbilled
    assert caught.value.detail == detail


@pytest.mark.parametrize(("replies", "kind", "detail"), FAILURES)
def test_a_failed_film_is_said_to_have_failed(
    replies: list[HttpReply], kind: type[ProviderError], detail: str
):
    """A look at failed work tells of the failure and does not raise."""
    ticket = Ticket(id="id-1", data={"path": "a/b"})
    view, _ = drive(provider.jobs["video"].look(ticket, target_of(HUNYUAN), FACTS), replies)
    assert view.status == "failed"
    assert type(view.error) is kind
    assert (view.error.is_unbilled, view.error.detail) == (True, detail)


@pytest.mark.parametrize(
    "body", [*BROKEN, b"{}", b'{"status": null}', b'{"status": "SLEEPING"}'], ids=[*map(repr, range(10))]
)
def test_a_status_that_says_nothing_is_not_trusted(body: bytes):
    """Neither an edit nor a film goes on with a status that is none."""
    with pytest.raises(BadProviderResponse):
        run(EDIT, target_of(KONTEXT, path="a/b"), [make_reply(SUBMITTED), make_reply(body)])


def test_an_edit_is_not_waited_for_without_end():
    """After five minutes the wait ends, and the work is not begun again at the same place."""
    replies = [make_reply(SUBMITTED), *[make_reply({"status": "IN_QUEUE"})] * 600]
    with pytest.raises(ProviderTimeout) as caught:
        run(EDIT, target_of(KONTEXT, path="a/b"), replies)
    assert not caught.value.may_repeat


def test_a_film_is_handed_in_looked_at_and_collected():
    """Every step works with what the one before left, the film being fetched without a credential."""
    codec, target = provider.jobs["video"], target_of(HUNYUAN)
    request = fit(
        VideoRequest(model=HUNYUAN, prompt="a fox runs", width=1280, height=720, seed=4), target.model
    ).request
    ticket, asked = drive(
        codec.submit(request, target, FACTS), [mapping("maker/app", "text-to-video"), make_reply(SUBMITTED)]
    )
    assert asked[1].is_paid
    assert asked[1].request.url == f"{ROUTER}/fal-ai/maker/app?_subdomain=queue"
    assert json.loads(asked[1].request.body) == {
        "prompt": "a fox runs",
        "aspect_ratio": "16:9",
        "resolution": "720p",
        "seed": 4,
    }
    assert ticket == Ticket(id="id-1", data={"path": "maker/app"})

    views = [
        drive(codec.look(ticket, target, FACTS), [make_reply({"status": status}, 202)])[0]
        for status in ("IN_QUEUE", "IN_PROGRESS")
    ]
    assert views == [JobView(status="queued"), JobView(status="running")]
    url = "https://v3.fal.media/files/film.mp4"
    view, asked = drive(
        codec.look(ticket, target, FACTS),
        [
            make_reply({"status": "COMPLETED"}),
            make_reply({"video": {"url": url, "content_type": "video/mp4"}}),
        ],
    )
    assert asked[1] == get(f"{ROUTER}/fal-ai/maker/app/requests/id-1?_subdomain=queue", reads_failures=True)
    assert view == JobView(status="succeeded", progress=100.0, data={"url": url, "type": "video/mp4"})
    film, asked = drive(codec.collect(ticket, view, target, FACTS), [fetched(FILM, "binary/octet-stream")])
    assert asked == [Fetch(url=url)]
    assert film == Medium(data=FILM, type="video/mp4")


def test_a_film_from_a_picture_is_another_task():
    """With a picture, the hub's place must be for that; and nothing that was said of the film is left out."""
    request = VideoRequest(
        model="a/b",
        prompt="it moves",
        image=PNG,
        audio=Medium(data=b"ID3", type="audio/mpeg"),
        duration_s=5,
        steps=30,
        guidance_scale=7.5,
        negative_prompt="text",
        prompt_expansion=True,
        generate_audio=False,
        extra={"num_frames": 96},
    )
    _, asked = drive(
        provider.jobs["video"].submit(request, target_of("a/b"), FACTS),
        [mapping("m/n", "image-to-video"), make_reply(SUBMITTED)],
    )
    assert json.loads(asked[1].request.body) == {
        "prompt": "it moves",
        "num_inference_steps": 30,
        "guidance_scale": 7.5,
        "negative_prompt": "text",
        "duration": 5,
        "image_url": f"data:image/png;base64,{base64.b64encode(PNG.data).decode()}",
        "audio_url": "data:audio/mpeg;base64,SUQz",
        "enable_prompt_expansion": True,
        "generate_audio": False,
        "num_frames": 96,
    }


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (make_reply({"error": "over"}, 503), ProviderUnavailable),
        (make_reply({"error": "scope"}, 401), ProviderAuthFailed),
        (make_reply({"detail": "Internal"}, 500), ProviderUnavailable),
        (make_reply(b"<html>", 200), BadProviderResponse),
    ],
)
def test_a_result_that_cannot_be_had_now_is_no_failure_of_the_film(
    reply: HttpReply, kind: type[ProviderError]
):
    """Such a look raises, so that the next one may do better."""
    ticket = Ticket(id="id-1", data={"path": "a/b"})
    with pytest.raises(kind) as caught:
        drive(
            provider.jobs["video"].look(ticket, target_of(HUNYUAN), FACTS),
            [make_reply({"status": "COMPLETED"}), reply],
        )
    assert not caught.value.is_unbilled


def test_a_result_without_a_film_has_failed():
    """A film that is not there will not come by looking again."""
    ticket = Ticket(id="id-1", data={"path": "a/b"})
    view, _ = drive(
        provider.jobs["video"].look(ticket, target_of(HUNYUAN), FACTS),
        [make_reply({"status": "COMPLETED"}), make_reply({"video": None})],
    )
    assert (view.status, type(view.error)) == ("failed", BadProviderResponse)


@pytest.mark.parametrize("reply", [fetched(b"", "video/mp4"), fetched(b"<html>", "text/html"), fetched(JPEG)])
def test_a_download_that_is_no_film_is_not_trusted(reply: HttpReply):
    """What the address leads to is looked at."""
    view = JobView(status="succeeded", data={"url": PLACE, "type": ""})
    with pytest.raises(BadProviderResponse):
        drive(provider.jobs["video"].collect(Ticket(id="a"), view, target_of(HUNYUAN), FACTS), [reply])


def test_a_film_without_an_address_is_not_collected():
    """Nothing is fetched where nothing is named."""
    with pytest.raises(BadProviderResponse):
        drive(
            provider.jobs["video"].collect(
                Ticket(id="a"), JobView(status="succeeded"), target_of(HUNYUAN), FACTS
            ),
            [],
        )


@pytest.mark.parametrize(("status", "took_notice"), [(202, True), (200, True), (400, False), (404, False)])
def test_a_film_is_called_off(status: int, took_notice: bool):
    """The queue is told, and says whether it was in time."""
    ticket = Ticket(id="id-1", data={"path": "a/b"})
    told, asked = drive(
        provider.jobs["video"].cancel(ticket, target_of(HUNYUAN), FACTS), [make_reply({}, status)]
    )
    assert told is took_notice
    (send,) = asked
    assert (send.request.method, send.is_paid) == ("PUT", False)
    assert send.request.url == f"{ROUTER}/fal-ai/a/b/requests/id-1/cancel?_subdomain=queue"


@pytest.mark.parametrize("status", ["CANCELED", "CANCELLED"])
def test_a_film_that_was_called_off_is_said_to_be(status: str):
    """The vendor's word for it is no failure."""
    ticket = Ticket(id="id-1", data={"path": "a/b"})
    view, _ = drive(
        provider.jobs["video"].look(ticket, target_of(HUNYUAN), FACTS), [make_reply({"status": status})]
    )
    assert view.status == "cancelled"


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (VideoRequest(model=HUNYUAN, prompt="a", duration_s=60), "duration_s"),
        (VideoRequest(model=HUNYUAN, prompt="a", image=PNG), "image"),
        (ImageRequest(model=KREA, prompt="a", n=5), "n"),
        (ImageEditRequest(model=KONTEXT, images=(PNG,), mask=PNG), "mask"),
    ],
)
def test_the_catalog_refuses_what_the_models_do_not_take(request_: Any, param: str):
    """What the maker would leave out in silence is refused before it is paid."""
    with pytest.raises(InvalidRequest) as caught:
        fit(request_, target_of(request_.model).model)
    assert caught.value.param == param
