"""WaveSpeed: what leaves for each model, and what comes of every answer, over a real socket where it matters."""

import base64
import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from msgspec import structs
from wavespeed import Client

from llm_gate.catalog.loader import load_catalog, load_provider
from llm_gate.domain.catalog import Model
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
from llm_gate.domain.media import (
    FaceSwapRequest,
    ImageEditRequest,
    ImageRequest,
    Link,
    Medium,
    SpeechRequest,
    VideoRequest,
)
from llm_gate.domain.media_rules import fit
from llm_gate.domain.provider import (
    Auth,
    Deployment,
    Facts,
    Fetch,
    HttpReply,
    JobView,
    Send,
    Target,
    Ticket,
    Wait,
)
from llm_gate.domain.secret import Secret
from support.targets import make_reply
from support.wavespeed_fake import KEY, WaveSpeedFake, png

ENTRY = load_catalog().providers["wavespeed"]
PROVIDER = load_provider(ENTRY.spec, {})
FACTS = Facts(now_s=0.0, token="0" * 32)
FACE, BODY = Medium(data=b"face", type="image/png"), Medium(data=b"body", type="image/jpeg")
FACE_URI = "data:image/png;base64," + base64.b64encode(b"face").decode()
BODY_URI = "data:image/jpeg;base64," + base64.b64encode(b"body").decode()
SYNC = {"enable_sync_mode": True, "enable_base64_output": False}
SPOKEN = {"voice_id": "Wise_Woman", "emotion": "happy", **SYNC}
API = "https://api.wavespeed.ai/api/v3"
QWEN = "wavespeed-ai/qwen-image/text-to-image"
HUNYUAN = "wavespeed-ai/hunyuan-video-1.5/text-to-video"
IMAGE = ImageRequest(model="m", prompt="a hill")
SWAP = FaceSwapRequest(model="m", image=BODY, face=FACE)
SAID = SpeechRequest(model="m", text="hello")
FILM = VideoRequest(model="m", prompt="waves")


def edit(**fields):
    return ImageEditRequest(**{"model": "m", "prompt": "make it night", "images": (BODY,), **fields})


def target_of(model, base_url=API):
    deployment = Deployment(
        provider="wavespeed",
        base_url=base_url,
        auth=Auth(kind="bearer", secret=Secret(KEY)),
        spec=ENTRY.spec,
        codecs=PROVIDER,
    )
    return Target(deployment=deployment, model=ENTRY.models[model])


def started(request, target):
    """Return the exchanges of a request that was fitted to its model."""
    fitted = fit(request, target.model).request
    if isinstance(request, VideoRequest):
        return PROVIDER.jobs["video"].submit(fitted, target, FACTS)
    return PROVIDER.media[request.operation].run(fitted, target, FACTS)


def first(request, model):
    """Return the first exchange of a request, which is its submission."""
    return next(started(request, target_of(model)))


def drive(exchanges, target, waits=None):
    """Make the exchanges over the network, but wait for nothing; return what comes of them."""
    wanted = next(exchanges)
    while True:
        reply = None
        if isinstance(wanted, Wait):
            if waits is not None:
                waits.append(wanted.seconds)
        elif isinstance(wanted, Fetch):
            reply = called(Request(wanted.url))
        else:
            headers = {**wanted.request.headers, "authorization": f"Bearer {KEY}"}
            reply = called(
                Request(
                    wanted.request.url,
                    data=wanted.request.body or None,
                    headers=headers,
                    method=wanted.request.method,
                )
            )
            if reply.status >= 300 and not wanted.reads_failures:
                exchanges.close()
                raise PROVIDER.decode_error(reply, target)
        try:
            wanted = exchanges.send(reply)
        except StopIteration as end:
            return end.value


def called(request):
    try:
        with urlopen(request, timeout=10) as answer:
            return HttpReply(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.headers.items()},
                body=answer.read(),
            )
    except HTTPError as error:
        with error:
            return HttpReply(status=error.code, headers={}, body=error.read())


def play(exchanges, replies):
    """Answer the exchanges one after another, errors included; return the steps and what came of them."""
    left, steps = list(replies), []
    wanted = next(exchanges)
    while True:
        steps.append(wanted)
        try:
            if isinstance(wanted, Wait):
                wanted = exchanges.send(None)
            elif isinstance(left[0], Exception):
                wanted = exchanges.throw(left.pop(0))
            else:
                wanted = exchanges.send(left.pop(0))
        except StopIteration as end:
            assert left == []
            return steps, end.value


def task(status, **data):
    return make_reply({"code": 200, "message": "success", "data": {"id": "t1", "status": status, **data}})


def done(*urls):
    return task("completed", outputs=list(urls or ["https://cdn.test/1.png"]))


def looks(exchanges, replies):
    """Return the waits before an end that is an error, and the error."""
    waits = []

    def answer():
        left, wanted = iter(replies), next(exchanges)
        while True:
            if isinstance(wanted, Wait):
                waits.append(wanted.seconds)
                wanted = exchanges.send(None)
            else:
                wanted = exchanges.send(next(left))

    with pytest.raises(ProviderError) as caught:
        answer()
    return waits, caught.value


@pytest.fixture
def fake():
    with WaveSpeedFake() as server:
        yield server


@pytest.mark.parametrize(
    ("model", "request_", "path", "payload"),
    [
        (
            "qwen-image",
            IMAGE,
            QWEN,
            {"prompt": "a hill", "output_format": "jpeg", "num_inference_steps": 15, "seed": -1, **SYNC},
        ),
        (
            "qwen-image",
            ImageRequest(
                model="m",
                prompt="a hill",
                width=1024,
                height=768,
                negative_prompt="fog",
                guidance_scale=7.5,
                steps=30,
                seed=0,
                format="PNG",
                extra={"lora": "x", "prompt": "stolen", "enable_sync_mode": False},
            ),
            QWEN,
            {
                "prompt": "a hill",
                "size": "1024*768",
                "negative_prompt": "fog",
                "guidance_scale": 7.5,
                "num_inference_steps": 30,
                "seed": 0,
                "output_format": "png",
                "lora": "x",
                **SYNC,
            },
        ),
        (
            "ideogram-v3-turbo",
            ImageRequest(model="m", prompt="a hill", width=512, height=512),
            "ideogram-ai/ideogram-v3-turbo",
            {"prompt": "a hill", "size": "512*512", "num_inference_steps": 20, "seed": -1, **SYNC},
        ),
        (
            "flux-kontext-pro",
            ImageRequest(model="m", prompt="a hill", width=1024, height=576),
            "wavespeed-ai/flux-kontext-pro/text-to-image",
            {
                "prompt": "a hill",
                "aspect_ratio": "16:9",
                "guidance_scale": 3.5,
                "output_format": "jpeg",
                **SYNC,
            },
        ),
        (
            "flux-kontext-pro",
            edit(guidance_scale=20, aspect_ratio="1:1"),
            "wavespeed-ai/flux-kontext-pro",
            {
                "prompt": "make it night",
                "image": BODY_URI,
                "aspect_ratio": "1:1",
                "guidance_scale": 20,
                "output_format": "jpeg",
                **SYNC,
            },
        ),
        (
            "qwen-edit",
            edit(width=1536, height=1024, seed=7),
            "wavespeed-ai/qwen-image/edit",
            {
                "prompt": "make it night",
                "image": BODY_URI,
                "size": "1536*1024",
                "seed": 7,
                "output_format": "jpeg",
                **SYNC,
            },
        ),
        (
            "qwen-edit-plus",
            edit(mask=FACE, task="inpaint"),
            "wavespeed-ai/qwen-image/edit-plus",
            {
                "prompt": "make it night",
                "images": [BODY_URI, FACE_URI],
                "seed": -1,
                "output_format": "jpeg",
                **SYNC,
            },
        ),
        (
            "qwen-edit-plus",
            edit(prompt="", task="remove_background"),
            "wavespeed-ai/qwen-image/edit-plus",
            {
                "prompt": "Remove the background.",
                "images": [BODY_URI],
                "seed": -1,
                "output_format": "jpeg",
                **SYNC,
            },
        ),
        (
            "nano-banana-pro-edit-ultra",
            edit(images=(BODY, FACE), resolution="8K", aspect_ratio="9:16"),
            "google/nano-banana-pro/edit-ultra",
            {
                "prompt": "make it night",
                "images": [BODY_URI, FACE_URI],
                "aspect_ratio": "9:16",
                "resolution": "8k",
                "output_format": "png",
                **SYNC,
            },
        ),
        (
            "seedream-v4.5-edit",
            edit(width=4096, height=4096),
            "bytedance/seedream-v4.5/edit",
            {
                "prompt": "make it night",
                "images": [BODY_URI],
                "size": "4096*4096",
                "seed": -1,
                "output_format": "jpeg",
                **SYNC,
            },
        ),
        (
            "image-face-swap-pro",
            SWAP,
            "wavespeed-ai/image-face-swap-pro",
            {"image": BODY_URI, "face_image": FACE_URI, "output_format": "jpeg", **SYNC},
        ),
        (
            "image-head-swap",
            FaceSwapRequest(model="m", image=BODY, face=FACE, format="webp"),
            "wavespeed-ai/image-head-swap",
            {"image": BODY_URI, "face_image": FACE_URI, "output_format": "webp", **SYNC},
        ),
        (
            "akool-face-swap",
            SWAP,
            "akool/image-face-swap",
            {
                "image": BODY_URI,
                "source_image": [FACE_URI],
                "target_image": [BODY_URI],
                "face_enhance": True,
                **SYNC,
            },
        ),
        (
            "infinite-you",
            SWAP,
            "wavespeed-ai/infinite-you",
            {"target_image": BODY_URI, "source_image": FACE_URI, "seed": -1, **SYNC},
        ),
        ("minimax/speech-02-hd", SAID, "minimax/speech-02-hd", {"text": "hello", **SPOKEN}),
        (
            "minimax/speech-02-hd",
            SpeechRequest(
                model="m",
                text="hello",
                voice="abbess",
                emotion="Professional",
                speed=0.5,
                volume=10,
                pitch=-12,
                format="wav",
                sample_rate=44_100,
                language="en-GB",
                extra={"english_normalization": True, "voice_id": "stolen"},
            ),
            "minimax/speech-02-hd",
            {
                "text": "hello",
                "voice_id": "Abbess",
                "emotion": "neutral",
                "speed": 0.5,
                "volume": 10,
                "pitch": -12,
                "format": "wav",
                "sample_rate": 44_100,
                "language_boost": "English",
                "english_normalization": True,
                **SYNC,
            },
        ),
        (
            "hunyuan-video-1.5",
            FILM,
            HUNYUAN,
            {"prompt": "waves", "duration": 5, "size": "1280*720", "seed": -1},
        ),
        (
            "hunyuan-video-1.5",
            VideoRequest(
                model="m",
                prompt="waves",
                duration_s=8,
                resolution="480P",
                aspect_ratio="9:16",
                negative_prompt="boats",
                seed=3,
                extra={"enable_sync_mode": True, "enable_base64_output": True, "fps": 24},
            ),
            HUNYUAN,
            {
                "prompt": "waves",
                "duration": 8,
                "size": "480*832",
                "negative_prompt": "boats",
                "seed": 3,
                "fps": 24,
            },
        ),
        (
            "hunyuan-video-1.5",
            VideoRequest(model="m", prompt="waves", width=832, height=480, aspect_ratio="16:9"),
            HUNYUAN,
            {"prompt": "waves", "duration": 5, "size": "832*480", "seed": -1},
        ),
        (
            "lightricks/ltx-2-pro",
            FILM,
            "lightricks/ltx-2-pro/text-to-video",
            {"prompt": "waves", "duration": 6, "generate_audio": True},
        ),
        (
            "ltx-2-fast",
            VideoRequest(model="m", prompt="waves", duration_s=20, generate_audio=False),
            "lightricks/ltx-2-fast/text-to-video",
            {"prompt": "waves", "duration": 20, "generate_audio": False},
        ),
        (
            "veo3.1",
            VideoRequest(model="m", prompt="waves", resolution="1080p", aspect_ratio="9:16", seed=1),
            "google/veo3.1/text-to-video",
            {
                "prompt": "waves",
                "duration": 8,
                "resolution": "1080p",
                "aspect_ratio": "9:16",
                "seed": 1,
                "generate_audio": True,
            },
        ),
        (
            "wan-2.5",
            VideoRequest(model="m", prompt="waves", aspect_ratio="9:16", prompt_expansion=False),
            "alibaba/wan-2.5/text-to-video",
            {
                "prompt": "waves",
                "duration": 5,
                "size": "720*1280",
                "seed": -1,
                "enable_prompt_expansion": False,
            },
        ),
        (
            "alibaba/wan-2.5",
            VideoRequest(
                model="m",
                prompt="waves",
                image=BODY,
                audio=Medium(data=b"la", type="audio/mpeg"),
                resolution="1080p",
                duration_s=10,
            ),
            "alibaba/wan-2.5/image-to-video",
            {
                "prompt": "waves",
                "image": BODY_URI,
                "audio": "data:audio/mpeg;base64,bGE=",
                "duration": 10,
                "resolution": "1080p",
                "seed": -1,
                "enable_prompt_expansion": True,
            },
        ),
        (
            "kling-v2.5-turbo-std-5s",
            VideoRequest(model="m", prompt="waves", width=720, height=720, extra={"cfg_scale": 0.5}),
            "kling-v2.5-turbo-std-5s",
            {"prompt": "waves", "size": "720*720", "cfg_scale": 0.5},
        ),
        (
            "wavespeed-ai/infinitetalk",
            VideoRequest(model="m", prompt="", image=BODY, aspect_ratio="1:1"),
            "wavespeed-ai/infinitetalk",
            {"image": BODY_URI, "aspect_ratio": "1:1"},
        ),
        (
            "minimax/voice-clone",
            SpeechRequest(model="m", text="hello", extra={"custom_voice_id": "Mine1234"}),
            "minimax/voice-clone",
            {"text": "hello", "custom_voice_id": "Mine1234", **SYNC},
        ),
    ],
)
def test_each_model_gets_its_own_request(model, request_, path, payload):
    """The one paid request of an operation has the model's path and exactly the fields that it knows."""
    sent = first(request_, model)
    assert (sent.request.method, sent.request.url) == ("POST", f"{API}/{path}")
    assert json.loads(sent.request.body) == payload
    assert sent.is_paid
    assert sent.request.headers == {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("excited", "happy"),
        ("friendly", "happy"),
        ("warm", "happy"),
        ("calm", "neutral"),
        ("professional", "neutral"),
        ("serious", "neutral"),
        ("neutral", "neutral"),
        ("sad", "sad"),
        ("angry", "angry"),
        ("happy", "happy"),
        (None, "happy"),
    ],
)
def test_moods_become_those_that_the_vendor_knows(said, sent):
    """Every mood of the documents is mapped, and nobody's wish is for a happy voice."""
    request = SpeechRequest(model="m", text="hello", emotion=said)
    assert json.loads(first(request, "minimax/speech-02-hd").request.body)["emotion"] == sent


@pytest.mark.parametrize(
    ("model", "request_", "param"),
    [
        ("qwen-image", ImageRequest(model="m", prompt=" "), "prompt"),
        ("qwen-image", ImageRequest(model="m", prompt="a", width=1025, height=1024), "size"),
        ("qwen-image", ImageRequest(model="m", prompt="a", n=2), "n"),
        ("kling-v2.5-turbo-std-5s", VideoRequest(model="m", prompt="a", n=2), "n"),
        ("minimax/voice-clone", SpeechRequest(model="m", text="a", instructions="slowly"), "instructions"),
        ("qwen-edit", edit(images=()), "image"),
        ("qwen-image", ImageRequest(model="m", prompt="a", guidance_scale=20.5), "guidance_scale"),
        ("flux-kontext-pro", edit(guidance_scale=0.5), "guidance_scale"),
        ("flux-kontext-pro", edit(seed=1), "seed"),
        ("flux-kontext-pro", edit(mask=FACE), "mask"),
        ("qwen-edit", edit(images=(BODY, FACE)), "image"),
        ("qwen-edit", edit(width=1537, height=1024), "size"),
        ("qwen-edit", edit(prompt=""), "prompt"),
        ("qwen-edit-plus", edit(images=(BODY, FACE, BODY), mask=FACE), "mask"),
        ("qwen-edit-plus", edit(task="outpaint"), "operation"),
        ("qwen-edit-plus", edit(images=(Link(url="https://a.test/1.png"),)), None),
        ("nano-banana-pro-edit-ultra", edit(seed=1), "seed"),
        ("nano-banana-pro-edit-ultra", edit(resolution="2k"), "resolution"),
        ("seedream-v4.5-edit", edit(images=(BODY,) * 11), "image"),
        ("image-face-swap-pro", FaceSwapRequest(model="m", image=BODY, face=FACE, gender="male"), "gender"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text=" "), "input"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="x" * 10_001), "input"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="a", voice="alloy"), "voice"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="a", emotion="bored"), "emotion"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="a", speed=2.1), "speed"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="a", pitch=13), "pitch"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="a", volume=0), "volume"),
        ("hunyuan-video-1.5", VideoRequest(model="m", prompt=""), "prompt"),
        ("hunyuan-video-1.5", VideoRequest(model="m", prompt="a", duration_s=6), "duration_s"),
        ("hunyuan-video-1.5", VideoRequest(model="m", prompt="a", aspect_ratio="1:1"), "aspect_ratio"),
        ("hunyuan-video-1.5", VideoRequest(model="m", prompt="a", image=BODY), "image"),
        ("ltx-2-pro", VideoRequest(model="m", prompt="a", duration_s=5), "duration_s"),
        ("ltx-2-pro", VideoRequest(model="m", prompt="a", resolution="1080p"), "resolution"),
        ("ltx-2-pro", VideoRequest(model="m", prompt="a", negative_prompt="b"), "negative_prompt"),
        ("ltx-2-fast", VideoRequest(model="m", prompt="a", seed=1), "seed"),
        ("veo3.1", VideoRequest(model="m", prompt="a", duration_s=5), "duration_s"),
        ("wan-2.5", VideoRequest(model="m", prompt="a", image=BODY, aspect_ratio="9:16"), "aspect_ratio"),
        (
            "wan-2.5",
            VideoRequest(model="m", prompt="a", image=Medium(data=bytes(10 * 2**20 + 1), type="image/png")),
            "image",
        ),
        (
            "wan-2.5",
            VideoRequest(model="m", prompt="a", audio=Medium(data=bytes(15 * 2**20 + 1), type="audio/wav")),
            "audio",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_anything_leaves(model, request_, param):
    """Bounds of the documents and inputs that a model does not know are the caller's to mend."""
    with pytest.raises(InvalidRequest) as caught:
        first(request_, model)
    assert caught.value.param == param


@pytest.mark.parametrize("status", ["completed", "succeeded"])
@pytest.mark.parametrize("key", ["outputs", "output"])
@pytest.mark.parametrize("as_list", [True, False])
def test_a_picture_that_is_there_at_once_is_fetched(status, key, as_list):
    """Both words for being done and both names of what was made are understood, also for one address alone."""
    url = "https://cdn.test/1.png"
    answer = task(status, **{key: [url] if as_list else url})
    steps, result = play(
        started(ImageRequest(model="m", prompt="a", seed=5), target_of("qwen-image")),
        [answer, make_reply(b"png", content_type="image/png; charset=x")],
    )
    assert steps[1:] == [Fetch(url=url)]
    (picture,) = result.pictures
    assert (picture.medium, picture.seed) == (Medium(data=b"png", type="image/png"), 5)


def unlisted(name, operation):
    """Return a target whose model the catalog knows nothing of."""
    model = Model(
        id="i",
        provider="wavespeed",
        name=name,
        label="",
        description="",
        operations=(operation,),
        listed=False,
    )
    return structs.replace(target_of("qwen-image"), model=model)


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (IMAGE, {"prompt": "a hill", **SYNC}),
        (edit(style="oil"), {"prompt": "make it night", "image": BODY_URI, "style": "oil", **SYNC}),
        (edit(mask=FACE), {"prompt": "make it night", "images": [BODY_URI, FACE_URI], **SYNC}),
        (
            FaceSwapRequest(model="m", image=BODY, face=FACE, face_index=0, gender="male", seed=2),
            {
                "image": BODY_URI,
                "face_image": FACE_URI,
                "target_index": 0,
                "target_gender": "male",
                "seed": 2,
                **SYNC,
            },
        ),
        (SAID, {"text": "hello", **SYNC}),
    ],
)
def test_a_model_that_is_not_listed_gets_what_is_asked(request_, payload):
    """Without an entry nothing is filled in, and the name is the address."""
    sent = next(started(request_, unlisted("vendor/new-model", request_.operation)))
    assert sent.request.url == f"{API}/vendor/new-model"
    assert json.loads(sent.request.body) == payload


def test_a_task_may_have_an_address_of_its_own():
    """The catalog's path of a task comes before that of pictures in general."""
    target = target_of("flux-kontext-pro")
    paths = {"inpaint": "vendor/fill", "image": "vendor/edit"}
    model = structs.replace(target.model, media=structs.replace(target.model.media, paths=paths))
    target = structs.replace(target, model=model)
    sent = [next(started(edit(task=name), target)) for name in ("inpaint", "general_edit")]
    assert [each.request.url for each in sent] == [f"{API}/vendor/fill", f"{API}/vendor/edit"]


def test_a_callers_own_field_comes_before_the_catalogs():
    """What the catalog fills in is only what nobody asked for."""
    request = ImageRequest(model="m", prompt="a hill", extra={"num_inference_steps": 40})
    assert json.loads(first(request, "qwen-image").request.body)["num_inference_steps"] == 40


@pytest.mark.parametrize(("name", "most"), [("image", 10 * 2**20), ("audio", 15 * 2**20)])
def test_media_of_the_largest_size_go_out(name, most):
    """The bound itself is allowed."""
    medium = Medium(data=bytes(most), type="x/y")
    sent = first(VideoRequest(model="m", prompt="a", **{name: medium}), "wan-2.5")
    assert json.loads(sent.request.body)[name].startswith("data:x/y;base64,")


def test_several_pictures_come_in_their_order():
    """Every output is fetched."""
    urls = ["https://cdn.test/1.png", "https://cdn.test/2.png"]
    pages = [make_reply(b"one", content_type="binary/octet-stream"), make_reply(b"two")]
    _, result = play(started(IMAGE, target_of("qwen-image")), [done(*urls), *pages])
    assert [picture.medium for picture in result.pictures] == [
        Medium(data=b"one", type="image/jpeg"),
        Medium(data=b"two", type="image/jpeg"),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        task("created"),
        task("processing"),
        task("completed"),
        task("processing", code=5004, error="Sync mode timed out"),
        task("failed", code=5004, error="Sync mode timed out"),
        make_reply({"code": 5004, "message": "timeout", "data": {"id": "t1", "status": "processing"}}),
        make_reply({"code": 200, "message": "success", "data": {"id": "t1"}}),
    ],
)
def test_what_is_not_done_at_once_is_asked_after(answer):
    """The task is looked at every second under its own id, at the address that is documented."""
    replies = [answer, task("processing"), done(), make_reply(b"png")]
    steps, result = play(started(IMAGE, target_of("qwen-image")), replies)
    look = f"{API}/predictions/t1/result"
    sent = [step for step in steps if isinstance(step, Send)]
    assert [(step.request.method, step.request.url, step.is_paid) for step in sent[1:]] == [
        ("GET", look, False),
        ("GET", look, False),
    ]
    assert [step.seconds for step in steps if isinstance(step, Wait)] == [1.0, 1.0]
    assert len(result.pictures) == 1


def test_looks_that_fail_are_repeated_with_longer_pauses():
    """Server errors, requests for patience and a silent network only delay a look, and a good one ends the delay."""
    lost = ProviderUnavailable("no way", provider="wavespeed")
    late = ProviderTimeout("no answer", provider="wavespeed")
    refused = make_reply({"code": 503, "message": "busy", "data": None})
    replies = [
        task("created"),
        make_reply(b"", 500),
        make_reply(b"", 429),
        lost,
        late,
        make_reply({}, 503),
        refused,
    ]
    replies += [
        task("processing"),
        make_reply({"code": 502, "message": "insufficient balance"}, 502),
        done(),
        make_reply(b"png"),
    ]
    steps, _ = play(started(IMAGE, target_of("qwen-image")), replies)
    assert [step.seconds for step in steps if isinstance(step, Wait)] == [1, 1, 2, 4, 8, 16, 30, 1, 1]


@pytest.mark.parametrize(
    ("request_", "model", "within_s"),
    [
        (IMAGE, "qwen-image", 240),
        (edit(), "qwen-edit", 180),
        (SWAP, "infinite-you", 180),
        (SAID, "minimax/speech-02-hd", 180),
    ],
)
def test_nobody_waits_without_end(request_, model, within_s):
    """After the time for it, the task is named as still running; nothing says that it was free."""
    exchanges = started(request_, target_of(model))
    waits, error = looks(exchanges, [task("created"), *[task("processing")] * 300])
    assert waits == [1.0] * within_s
    assert isinstance(error, ProviderTimeout)
    assert "t1" in error.message
    assert "processing" in error.message
    assert not error.is_unbilled
    assert error.status is None


def test_a_look_comes_back_when_the_vendor_wants_it():
    """The vendor's own wish for patience counts, up to the longest pause."""
    replies = [task("created"), make_reply(b"", 429, retry_after="7"), make_reply(b"", 503, retry_after="99")]
    steps, _ = play(started(IMAGE, target_of("qwen-image")), [*replies, done(), make_reply(b"png")])
    assert [step.seconds for step in steps if isinstance(step, Wait)] == [1, 7, 30]


def test_failing_looks_use_up_the_time_as_well():
    """A vendor that only fails is not asked for longer than one that works."""
    exchanges = started(IMAGE, target_of("qwen-image"))
    waits, error = looks(exchanges, [task("created"), *[make_reply(b"", 503)] * 300])
    assert waits[:8] == [1, 1, 2, 4, 8, 16, 30, 30]
    assert sum(waits) <= 240
    assert isinstance(error, ProviderTimeout)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_a_look_that_is_refused_ends_the_wait(status):
    """The error names the task, and does not claim that the accepted work was free."""
    refused = make_reply({"code": status, "message": "no such prediction"}, status)
    waits, error = looks(started(IMAGE, target_of("qwen-image")), [task("created"), refused])
    assert waits == [1.0]
    assert isinstance(error, BadProviderResponse)
    assert f"task t1 has status {status}" in error.message
    assert error.status is None
    assert not error.is_unbilled


def test_a_look_that_is_refused_in_an_envelope_ends_the_wait():
    """HTTP 200 with a caller's code counts as that."""
    refused = make_reply({"code": 404, "message": "no such prediction", "data": None})
    _, error = looks(started(IMAGE, target_of("qwen-image")), [task("created"), refused])
    assert isinstance(error, BadProviderResponse)
    assert error.status is None


@pytest.mark.parametrize(
    ("answer", "kind", "vendor_code"),
    [
        (task("failed", error="CUDA out of memory"), ProviderUnavailable, "server_error"),
        (task("failed", error=None, outputs=["nothing"]), ProviderUnavailable, "server_error"),
        (task("failed", error={"message": "broken"}), ProviderUnavailable, "server_error"),
        (task("failed", code=1405, error="failed"), ProviderUnavailable, "1405"),
        (task("failed", code=5003, error="down"), ProviderUnavailable, "5003"),
        (task("failed", code=1401, error="size is invalid"), ProviderRejected, "1401"),
        (task("failed", code=1402, error="no access to the medium"), ProviderRejected, "1402"),
        (task("failed", code=1200, error="sensitive"), ContentFiltered, "1200"),
        (task("failed", error="Content policy violation"), ContentFiltered, "content_filter"),
        (task("failed", has_nsfw_contents=[True]), ContentFiltered, "content_filter"),
        (task("failed", error="insufficient credits"), ProviderQuotaExhausted, "insufficient_quota"),
        (task("timeout"), ProviderTimeout, "5004"),
        (task("cancelled"), ProviderUnavailable, "server_error"),
        (task("deleted"), ProviderUnavailable, "server_error"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_task_that_failed_is_a_typed_error_and_free(answer, kind, vendor_code, at_once):
    """The vendor's own codes come before its words, and what it says failed was not billed."""
    _, error = looks(
        started(IMAGE, target_of("qwen-image")), [answer] if at_once else [task("created"), answer]
    )
    assert type(error) is kind
    assert error.vendor_code == vendor_code
    assert error.is_unbilled


def test_a_task_that_failed_late_is_a_timeout():
    """The code of a wait that was too long means the work itself once it comes with a look."""
    replies = [task("created"), task("failed", code=5004, error="too long")]
    _, error = looks(started(IMAGE, target_of("qwen-image")), replies)
    assert type(error) is ProviderTimeout
    assert error.is_unbilled


def test_indecent_pictures_may_be_held_back():
    """A task that is done, marked and shows nothing was filtered, too."""
    marked = task("completed", has_nsfw_contents=[True])
    _, error = looks(started(IMAGE, target_of("qwen-image")), [task("created"), marked])
    assert type(error) is ContentFiltered


@pytest.mark.parametrize("marks", [[True], [False, True], True])
@pytest.mark.parametrize("at_once", [True, False])
def test_indecent_pictures_are_not_handed_on(marks, at_once):
    """What is marked is filtered, and what was made may have been billed."""
    marked = task("completed", outputs=["https://cdn.test/1.png"], has_nsfw_contents=marks)
    _, error = looks(
        started(IMAGE, target_of("qwen-image")), [marked] if at_once else [task("created"), marked]
    )
    assert type(error) is ContentFiltered
    assert not error.is_unbilled


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": 400, "message": "prompt is required", "data": None}, ProviderRejected),
        ({"code": 400, "message": "Insufficient balance, please top up"}, ProviderQuotaExhausted),
        ({"code": 401, "message": "invalid key"}, ProviderAuthFailed),
        ({"code": 404, "message": "no such model"}, ProviderModelGone),
        ({"code": 429, "message": "too fast"}, ProviderRateLimited),
        ({"code": 500, "message": "oops"}, ProviderUnavailable),
        ({"code": 1401, "message": "bad size", "data": {}}, ProviderRejected),
        ({"code": 1200, "message": "no"}, ContentFiltered),
        ({"code": 5000, "message": "oops", "data": {"error": "inner"}}, ProviderUnavailable),
    ],
)
def test_a_refusal_with_http_200_is_an_error_and_free(body, kind):
    """The envelope's code counts where there is no task."""
    _, error = looks(started(IMAGE, target_of("qwen-image")), [make_reply(body)])
    assert type(error) is kind
    assert error.is_unbilled


@pytest.mark.parametrize(
    "name",
    [
        "../predictions/t1",
        "a/../b",
        "a?webhook=https://evil.test",
        "a#b",
        "predictions/delete",
        "Media/uploads",
        "a//b",
        "a/",
        "/a",
        "",
    ],
)
def test_a_name_that_is_no_model_goes_nowhere(name):
    """What a caller writes as an unlisted model's name reaches none of the vendor's other routes."""
    with pytest.raises(InvalidRequest) as caught:
        next(started(IMAGE, unlisted(name, "image")))
    assert caught.value.param == "model"


def test_a_balance_that_ran_out_with_a_task_is_told_apart():
    """A code like that of HTTP beside a task means what it means there."""
    body = {"code": 402, "message": "top up", "data": {"id": "t1", "status": "created"}}
    _, error = looks(started(IMAGE, target_of("qwen-image")), [make_reply(body)])
    assert type(error) is ProviderQuotaExhausted


def test_a_failure_of_the_envelope_fails_its_task():
    """A code of failure beside a task that says nothing of it is a failure all the same."""
    body = {"code": 500, "message": "no worker", "data": {"id": "t1", "status": "created"}}
    _, error = looks(started(IMAGE, target_of("qwen-image")), [make_reply(body)])
    assert type(error) is ProviderUnavailable
    assert "no worker" in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>gateway</html>",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        {"code": 200},
        {"code": 200, "data": None},
        {"code": 200, "data": []},
        {"code": 200, "data": {}},
        {"code": "200", "data": {"id": "t1", "status": "created"}},
        {"code": 200, "data": {"id": 7, "status": "created"}},
        {"code": 200, "data": {"id": "t1", "status": "dreaming"}},
        {"code": 200, "data": {"id": "../../other", "status": "created"}},
        {"code": 200, "data": {"id": "", "status": "created"}},
        {"code": 200, "data": {"id": "t" * 201, "status": "created"}},
        {"code": 200, "data": {"status": "created"}},
        {"code": 200, "data": {"id": "t1", "status": "completed", "outputs": {"url": "x"}}},
        {"code": 200, "data": {"id": "t1", "status": "completed", "outputs": [7]}},
        {"code": 200, "data": {"id": "t1", "status": "completed", "outputs": ["file:///etc/passwd"]}},
        {"code": 200, "data": {"id": "t1", "status": "completed", "outputs": ["aGVsbG8="]}},
    ],
)
def test_an_answer_that_is_none_is_not_trusted(body):
    """Whatever is not a task in its envelope is named as a broken contract."""
    _, error = looks(started(IMAGE, target_of("qwen-image")), [make_reply(body)])
    assert type(error) is BadProviderResponse


@pytest.mark.parametrize("body", [b"", b"<html></html>", task("completed").body, task("dreaming").body])
def test_a_look_that_tells_nothing_is_not_trusted(body):
    """A task that is done and made nothing is a broken contract, too."""
    _, error = looks(started(IMAGE, target_of("qwen-image")), [task("created"), make_reply(body)])
    assert type(error) is BadProviderResponse


@pytest.mark.parametrize(
    "page",
    [
        make_reply(b"", content_type="image/png"),
        make_reply(b"\n<!DOCTYPE html><html>", content_type="image/png"),
        make_reply(b"<HTML>"),
        make_reply(b"{}", content_type="application/json; charset=utf-8"),
    ],
)
@pytest.mark.parametrize(("request_", "model"), [(IMAGE, "qwen-image"), (SAID, "minimax/speech-02-hd")])
def test_what_was_made_is_no_web_page(page, request_, model):
    """A page in the place of a medium is a broken contract."""
    _, error = looks(started(request_, target_of(model)), [done(), page])
    assert type(error) is BadProviderResponse


@pytest.mark.parametrize(
    ("format_", "said", "type_"),
    [
        (None, "audio/mpeg", "audio/mpeg"),
        (None, "application/octet-stream", "audio/mpeg"),
        ("wav", "", "audio/wav"),
        ("flac", "binary/octet-stream", "audio/flac"),
        ("mp3", "audio/x-mp3", "audio/x-mp3"),
    ],
)
def test_a_voice_has_the_type_that_the_vendor_says_or_that_was_asked_for(format_, said, type_):
    """A storage's general type says nothing."""
    page = make_reply(b"voice", content_type=said)
    request = SpeechRequest(model="m", text="hello", format=format_)
    _, result = play(started(request, target_of("minimax/speech-02-hd")), [done(), page])
    assert result.audio == Medium(data=b"voice", type=type_)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": 400, "message": "size: out of range"}, ProviderRejected),
        (400, {"code": 400, "message": "Insufficient credits."}, ProviderQuotaExhausted),
        (402, {"code": 402, "message": "payment required"}, ProviderQuotaExhausted),
        (403, {"code": 403, "message": "your balance is too low"}, ProviderQuotaExhausted),
        (401, {"code": 401, "message": "invalid key"}, ProviderAuthFailed),
        (403, {"code": 403, "message": "forbidden"}, ProviderAuthFailed),
        (404, {"code": 404, "message": "no such model"}, ProviderModelGone),
        (429, {"code": 429, "message": "too many requests"}, ProviderRateLimited),
        (500, {"code": 500, "message": "oops"}, ProviderUnavailable),
        (502, b"<html>Bad gateway</html>", ProviderUnavailable),
        (503, b"", ProviderUnavailable),
        (504, b"null", ProviderTimeout),
        (400, {"code": 1200, "message": "no", "data": {"error": "sensitive content"}}, ContentFiltered),
        (400, {"data": {"code": 1401, "error": "size is wrong"}}, ProviderRejected),
        (500, [1], ProviderUnavailable),
    ],
)
def test_failures_are_sorted_by_status_code_and_words(status, body, kind):
    """A balance that is used up is the operator's, whatever status it comes with."""
    reply = make_reply(body, status, retry_after="7")
    error = PROVIDER.decode_error(reply, target_of("qwen-image"))
    assert type(error) is kind
    assert (error.status, error.retry_after_s) == (status, 7.0)


def test_the_words_of_a_failure_are_the_tasks_own():
    """What the task says is nearer than what its envelope says."""
    body = {"code": 400, "message": "bad request", "data": {"error": "size is wrong"}}
    assert PROVIDER.decode_error(make_reply(body, 400), target_of("qwen-image")).detail == "size is wrong"


def test_a_credential_in_an_error_is_masked():
    """What the vendor quotes back does not get further."""
    body = {"code": 400, "message": f"key {KEY} has no right to this"}
    error = PROVIDER.decode_error(make_reply(body, 400), target_of("qwen-image"))
    assert KEY not in error.message


@pytest.mark.parametrize(
    ("answer", "view"),
    [
        (task("created"), JobView(status="queued")),
        (task("processing"), JobView(status="running")),
        (done("https://cdn.test/f.mp4"), JobView(status="succeeded", data={"url": "https://cdn.test/f.mp4"})),
    ],
)
def test_a_film_under_way_is_looked_at(answer, view):
    """Each state of the vendor has one of ours, and what is done says where."""
    target = target_of("hunyuan-video-1.5")
    steps, seen = play(PROVIDER.jobs["video"].look(Ticket(id="t1"), target, FACTS), [answer])
    assert seen == view
    assert [step.request.url for step in steps] == [f"{API}/predictions/t1/result"]


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (task("failed", error="broken"), "failed", ProviderUnavailable),
        (task("timeout"), "failed", ProviderTimeout),
        (task("cancelled"), "cancelled", ProviderUnavailable),
        (
            task("completed", outputs=["https://a.test/f"], has_nsfw_contents=[True]),
            "failed",
            ContentFiltered,
        ),
    ],
)
def test_a_film_that_failed_says_why(answer, status, kind):
    """The end of a job that made nothing is a view with an error, not an error of the look."""
    target = target_of("hunyuan-video-1.5")
    _, seen = play(PROVIDER.jobs["video"].look(Ticket(id="t1"), target, FACTS), [answer])
    assert seen.status == status
    assert type(seen.error) is kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (make_reply(b"", 503), ProviderUnavailable),
        (make_reply(b"", 429), ProviderRateLimited),
        (make_reply({"code": 404, "message": "gone"}, 404), BadProviderResponse),
        (make_reply({"code": 500, "message": "oops", "data": None}), ProviderUnavailable),
        (make_reply(b"<html>"), BadProviderResponse),
        (task("completed"), BadProviderResponse),
    ],
)
def test_a_look_at_a_film_may_fail_without_the_film(answer, kind):
    """What is wrong with the look says nothing of the job."""
    target = target_of("hunyuan-video-1.5")
    _, error = looks(PROVIDER.jobs["video"].look(Ticket(id="t1"), target, FACTS), [answer])
    assert type(error) is kind
    assert not error.is_unbilled


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (task("failed", error="broken"), ProviderUnavailable),
        (make_reply({"code": 400, "message": "no"}), ProviderRejected),
        (make_reply({"code": 200, "data": {"status": "created"}}), BadProviderResponse),
        (make_reply(b"null"), BadProviderResponse),
    ],
)
def test_a_film_that_is_not_taken_in_is_an_error(answer, kind):
    """Without an id there is no ticket."""
    _, error = looks(started(FILM, target_of("hunyuan-video-1.5")), [answer])
    assert type(error) is kind


def test_a_film_cannot_be_called_off():
    """The vendor has no way, and is looked at every two seconds."""
    jobs = PROVIDER.jobs["video"]
    assert jobs.cancel(Ticket(id="t1"), target_of("hunyuan-video-1.5"), FACTS) is None
    assert jobs.look_every_s == 2.0


def test_a_picture_comes_over_the_network(fake):
    """Handed in once, asked after as long as it takes, and fetched without the credential."""
    fake.plan(QWEN, at_once=None, look_statuses=(503, 429))
    target, waits = target_of("qwen-image", fake.base_url), []
    result = drive(started(IMAGE, target), target, waits)
    assert [picture.medium for picture in result.pictures] == [Medium(data=png(), type="image/png")]
    assert waits == [1, 1, 2, 1, 1]
    assert fake.count(QWEN) == 1
    (made,) = fake.tasks.values()
    assert fake.looks[made.id] == 5
    assert [headers.get("authorization") for _, headers in fake.fetched] == [None]


@pytest.mark.parametrize(
    ("model", "request_", "type_"),
    [
        ("qwen-edit-plus", edit(mask=FACE), "image/png"),
        ("akool-face-swap", SWAP, "image/png"),
        ("minimax/speech-02-hd", SpeechRequest(model="m", text="hello", format="wav"), "audio/wav"),
    ],
)
def test_edits_swaps_and_voices_come_over_the_network(fake, model, request_, type_):
    """What is done at once is not asked after."""
    target = target_of(model, fake.base_url)
    result = drive(started(request_, target), target)
    medium = result.audio if isinstance(request_, SpeechRequest) else result.pictures[0].medium
    assert medium.type == type_
    assert not fake.looks


def test_a_film_comes_over_the_network(fake):
    """Handed in, looked at until it is done, collected: each with the ticket alone."""
    target, jobs = target_of("hunyuan-video-1.5", fake.base_url), PROVIDER.jobs["video"]
    ticket = drive(started(FILM, target), target)
    views = [drive(jobs.look(ticket, target, FACTS), target) for _ in range(3)]
    assert [view.status for view in views] == ["queued", "running", "succeeded"]
    film = drive(jobs.collect(ticket, views[-1], target, FACTS), target)
    assert film.type == "video/mp4"
    assert film.data[4:8] == b"ftyp"
    assert fake.count(HUNYUAN) == 1


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        ({"at_once": "failed"}, ProviderUnavailable),
        ({"at_once": None, "states": ("processing", "failed"), "code": 1200}, ContentFiltered),
        ({"nsfw": True}, ContentFiltered),
        ({"refusal": (402, 402, "Insufficient balance")}, ProviderQuotaExhausted),
        ({"refusal": (200, 400, "prompt is too long")}, ProviderRejected),
        ({"refusal": (429, 429, "too many requests")}, ProviderRateLimited),
        ({"body": b"<html>"}, BadProviderResponse),
        ({"at_once": "created", "look_body": b""}, BadProviderResponse),
        ({"at_once": "created", "look_statuses": (404,)}, BadProviderResponse),
    ],
)
def test_failures_come_over_the_network(fake, plan, kind):
    """None of them makes a second submission."""
    fake.plan(QWEN, **plan)
    target = target_of("qwen-image", fake.base_url)
    with pytest.raises(ProviderError) as caught:
        drive(started(IMAGE, target), target)
    assert type(caught.value) is kind
    assert fake.count(QWEN) == 1


def official(fake, key=KEY):
    return Client(api_key=key, base_url=fake.root, max_connection_retries=3, retry_interval=0.01)


@pytest.mark.parametrize("is_sync", [True, False])
def test_the_official_client_gets_its_picture(fake, is_sync):
    """The vendor's own client is content with the fake, so the fake speaks its contract."""
    fake.plan(QWEN, look_statuses=() if is_sync else (500, 429))
    found = official(fake).run(QWEN, {"prompt": "a hill"}, enable_sync_mode=is_sync, poll_interval=0.01)
    (url,) = found["outputs"]
    assert called(Request(url)).body == png()
    assert fake.count(QWEN) == 1
    assert sum(fake.looks.values()) == (0 if is_sync else 5)


def test_the_official_client_reads_the_failures(fake):
    """A failed task, a sync wait that was too long and a wrong key look to it as they do at the vendor."""
    client = official(fake)
    fake.plan(QWEN, states=("processing", "failed"), error="the model broke down")
    assert client.run_no_throw(QWEN, {"prompt": "a"}, poll_interval=0.01)["error"].endswith(
        "the model broke down"
    )
    fake.plan(QWEN, at_once=None)
    late = client.run_no_throw(QWEN, {"prompt": "a"}, enable_sync_mode=True)
    assert (late["status"], late["outputs"]) == ("processing", None)
    assert client.get_result(late["task_id"])["data"]["status"] == "created"
    with pytest.raises(RuntimeError, match="401"):
        official(fake, "wrong").run(QWEN, {"prompt": "a"})


def test_the_official_client_uploads(fake, tmp_path):
    """Files go up by the two steps of the vendor."""
    file = tmp_path / "face.png"
    file.write_bytes(png())
    url = official(fake).upload(str(file))
    assert called(Request(url)).body == png()
