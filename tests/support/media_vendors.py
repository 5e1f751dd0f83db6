"""Makers of media on one real socket, each under its own path, that check what they are sent before they answer.

What breaks a vendor's contract is answered with 400 and kept in `violations`, which tests expect to be empty.
Contracts: the vendors' own documents as quoted in the specification, 17.1, 17.3 and 17.5 to 17.6.
"""

import base64
import io
import json
import re
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from support.pictures import in_base64, picture
from support.upstream import Answer
from support.wavespeed_fake import KEY, WaveSpeedFake, mp4

KEYS = {
    "OPENAI_API_KEY": "k-openai-0123456789",
    "GEMINI_API_KEY": "k-gemini-0123456789",
    "STABILITY_API_KEY": "k-stability-0123456789",
    "HF_TOKEN": "k-hf-0123456789",
    "XAI_API_KEY": "k-xai-0123456789",
    "WAVESPEED_API_KEY": KEY,
}
"""The keys that the vendors know, by the variables that hold them."""

TRANSCRIPT = "The quick brown fox."
FILM = mp4() + b"film" * 1000
RATE = 24_000
"""Samples a second of every voice."""

_MEGABYTE = bytes(1_048_576)
_RATIOS = {"1:1", "16:9", "9:16", "21:9", "9:21", "3:2", "2:3", "5:4", "4:5"}
_GEMINI_RATIOS = {"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
_GEMINI_SIDES = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}
_GPT_IMAGE = {"model", "prompt", "n", "size", "quality", "background", "output_format", "user"}
_SD3 = {"sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "sd3.5-flash"}
_STABILITY_FIELDS = {
    "ultra": {"prompt", "negative_prompt", "aspect_ratio", "seed", "output_format", "style_preset"},
    "core": {"prompt", "negative_prompt", "aspect_ratio", "seed", "output_format", "style_preset"},
    "sd3": {"prompt", "negative_prompt", "aspect_ratio", "seed", "output_format", "style_preset"}
    | {"model", "mode", "image", "strength", "cfg_scale"},
    "inpaint": {"image", "mask", "prompt", "negative_prompt", "seed", "output_format", "style_preset"},
    "erase": {"image", "mask", "seed", "output_format"},
    "outpaint": {"image", "left", "right", "up", "down", "prompt", "seed", "output_format", "style_preset"},
    "remove-background": {"image", "output_format"},
    "search-and-replace": {"image", "prompt", "search_prompt", "negative_prompt", "seed", "output_format"},
    "search-and-recolor": {"image", "prompt", "select_prompt", "negative_prompt", "seed", "output_format"},
    "replace-background-and-relight": {"subject_image", "background_prompt", "negative_prompt", "seed"}
    | {"output_format"},
}
_STABILITY_NEEDS = {
    "ultra": {"prompt"},
    "core": {"prompt"},
    "sd3": {"prompt"},
    "inpaint": {"image", "prompt"},
    "erase": {"image"},
    "outpaint": {"image"},
    "remove-background": {"image"},
    "search-and-replace": {"image", "prompt", "search_prompt"},
    "search-and-recolor": {"image", "prompt", "select_prompt"},
    "replace-background-and-relight": {"subject_image", "background_prompt"},
}
_HUB = {
    "black-forest-labs/FLUX.1-Krea-dev": ("fal-ai/flux/krea", "text-to-image"),
    "black-forest-labs/FLUX.1-Kontext-dev": ("fal-ai/flux-kontext/dev", "image-to-image"),
    "tencent/HunyuanVideo": ("fal-ai/hunyuan-video", "text-to-video"),
}


class Violation(Exception):
    """A request that breaks a vendor's contract."""


@dataclass(frozen=True)
class File:
    """A file of a form."""

    name: str
    type: str
    data: bytes


@dataclass(frozen=True)
class Heard:
    """A request as it came in; header names are lower case."""

    vendor: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        need(
            self.headers.get("content-type", "").startswith("application/json"),
            "the body is not told as JSON",
        )
        document = json.loads(self.body)
        need(isinstance(document, dict), "the body is no object")
        return document

    @cached_property
    def form(self) -> dict[str, list[str | File]]:
        """The body as a form."""
        said = self.headers.get("content-type", "")
        need(
            said.startswith("multipart/form-data; boundary="), f"the body is told as {said!r}, not as a form"
        )
        parsed = message_from_bytes(f"Content-Type: {said}\r\n\r\n".encode() + self.body)
        need(parsed.is_multipart() and not parsed.defects, f"the form is faulty: {parsed.defects}")
        found: dict[str, list[str | File]] = defaultdict(list)
        for part in parsed.get_payload():
            name, data = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
            file = part.get_filename()
            is_file = file is not None
            found[name].append(File(file, part.get_content_type(), data) if is_file else data.decode())
        return dict(found)

    def plain(self, name: str) -> str | None:
        """Return the text of a form's field that stands there once at most."""
        values = self.form.get(name, [])
        need(len(values) <= 1 and all(isinstance(each, str) for each in values), f"{name}: is no single text")
        return values[0] if values else None


@dataclass(frozen=True)
class Flood:
    """An answer of `total` bytes after a beginning; it is `promised` by its length, or comes in chunks."""

    total: int
    head: bytes = b""
    type: str = "application/json"
    promised: bool = True


def need(is_so: object, otherwise: str) -> None:
    """Refuse the request unless something is so."""
    if not is_so:
        raise Violation(otherwise)


@dataclass
class MediaVendors:
    """The server. `plan` replaces the next answers of a vendor; `heard` is everything that came in, in order."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    flooded: int = 0
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    queued: dict[str, str] = field(default_factory=dict)
    planned: dict[str, list[Answer | Flood]] = field(default_factory=lambda: defaultdict(list))
    lock: Lock = field(default_factory=Lock)

    @property
    def host(self) -> str:
        """The server's host and port."""
        return urlsplit(self.url).netloc

    def plan(self, vendor: str, *answers: Answer | Flood) -> None:
        """Say what a vendor answers next, whatever it would have; "files" are all downloads."""
        self.planned[vendor] = list(answers)

    def forget(self) -> None:
        """Forget what was heard and planned."""
        self.heard.clear()
        self.planned.clear()

    def count(self, vendor: str, method: str = "POST") -> int:
        """Return how often a vendor heard a method."""
        return sum(1 for each in self.heard if (each.vendor, each.method) == (vendor, method))

    def answer(self, heard: Heard) -> Answer | Flood:
        """Note a request, check it, and answer."""
        with self.lock:
            self.heard.append(heard)
            try:
                usual = _VENDORS[heard.vendor](self, heard)
            except (Violation, KeyError, TypeError, ValueError, AttributeError) as broken:
                text = f"{heard.method} {heard.path}: {type(broken).__name__}: {broken}"
                self.violations.append(text)
                return Answer.json({"error": {"message": text}}, 400)
            planned = self.planned.get(heard.vendor)
            return planned.pop(0) if planned else usual

    def keep(self, type_: str, data: bytes) -> str:
        """Keep a file, and return its address."""
        name = f"file{len(self.files)}"
        self.files[name] = (type_, data)
        return f"{self.url}/files/{name}"

    def looked(self, name: str) -> int:
        """Count a look at some work, and return how many there were."""
        self.looks[name] += 1
        return self.looks[name]


def sound(seconds: float = 0.5) -> bytes:
    """Return samples of 16 bits without a head."""
    return bytes(range(256)) * round(seconds * RATE * 2 / 256)


def in_wav(samples: bytes) -> bytes:
    """Return samples as a WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples)
    return out.getvalue()


def _bears(heard: Heard, variable: str) -> None:
    need(heard.headers.get("authorization") == f"Bearer {KEYS[variable]}", "the credential is wrong")
    need("x-goog-api-key" not in heard.headers, "another vendor's credential came along")


def _is_picture(given: object) -> None:
    need(isinstance(given, File), "a picture is no file")
    need(
        given.type.startswith("image/") and "." in given.name,
        f"a picture is told as {given.name} {given.type}",
    )
    Image.open(io.BytesIO(given.data)).load()


def _openai(vendors: MediaVendors, heard: Heard) -> Answer:
    _bears(heard, "OPENAI_API_KEY")
    route = (heard.method, heard.path.removeprefix("/openai/v1/"))
    need(not heard.query, "there is a query")
    match route:
        case ("POST", "images/generations"):
            return _openai_pictures(heard.json)
        case ("POST", "images/edits"):
            images = heard.form.get("image[]", []) + heard.form.get("image", [])
            need(images, "image: there is none")
            for each in images + heard.form.get("mask", []):
                _is_picture(each)
            plain = {name: heard.plain(name) for name in heard.form.keys() - {"image", "image[]", "mask"}}
            return _openai_pictures(
                plain | ({"n": int(plain["n"])} if "n" in plain else {}), shown=len(images)
            )
        case ("POST", "audio/speech"):
            said = heard.json
            need(
                said.keys() <= {"model", "input", "voice", "response_format", "speed", "instructions"},
                str(said),
            )
            need(
                isinstance(said["voice"], str) and 1 <= len(said["input"]) <= 4096, "input or voice is wrong"
            )
            if said.get("response_format", "mp3") == "wav":
                return Answer(headers={"content-type": "audio/wav"}, body=in_wav(sound()))
            return Answer(
                headers={"content-type": "audio/mpeg"}, body=(b"\xff\xfb\x90\x64" + bytes(413)) * 40
            )
        case ("POST", "audio/transcriptions"):
            return _openai_transcript(heard)
        case ("POST", "videos"):
            said = heard.json
            need(said.keys() <= {"model", "prompt", "seconds", "size"} and said["prompt"], f"fields: {said}")
            need(said.get("seconds", "4") in {"4", "8", "12"}, f"seconds: {said.get('seconds')!r}")
            return Answer.json({"id": "video_1", "object": "video", "status": "queued", "progress": 0})
        case ("GET", "videos/video_1"):
            status = "completed" if vendors.looked("video_1") > 1 else "in_progress"
            return Answer.json({"id": "video_1", "object": "video", "status": status, "progress": 50})
        case ("GET", "videos/video_1/content"):
            return Answer(headers={"content-type": "video/mp4"}, body=FILM)
    raise Violation("no such route")


def _openai_pictures(said: Mapping[str, Any], shown: int = 0) -> Answer:
    need(said.keys() <= _GPT_IMAGE, f"fields: {sorted(said)}")
    need(said["prompt"] and said["model"].startswith("gpt-image"), "prompt or model is wrong")
    n = said.get("n", 1)
    need(isinstance(n, int) and 1 <= n <= 10, f"n: {n!r}")
    size = said.get("size", "1024x1024")
    width, height = map(int, re.fullmatch(r"(\d+)x(\d+)", size).groups())
    need(width % 16 == 0 and height % 16 == 0 and max(width, height) <= 3840, f"size: {size}")
    need(said.get("quality", "auto") in {"low", "medium", "high", "auto"}, "quality")
    kind = said.get("output_format", "png")
    data = in_base64(picture(width, height, kind.upper(), "green"))
    usage = {
        "input_tokens": 10 + 100 * shown,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 100 * shown},
        "output_tokens": 1_000 * n,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 1_000 * n},
        "total_tokens": 10 + 100 * shown + 1_000 * n,
    }
    made = [{"b64_json": data} for _ in range(n)]
    return Answer.json({"created": 1, "data": made, "output_format": kind, "size": size, "usage": usage})


def _openai_transcript(heard: Heard) -> Answer:
    (file,) = heard.form["file"]
    need(re.search(r"\.(flac|mp3|mp4|mpeg|mpga|m4a|ogg|wav|webm)$", file.name), f"file: {file.name}")
    known = {"file", "model", "language", "prompt", "response_format", "temperature"}
    need(heard.form.keys() <= known | {"timestamp_granularities[]"}, f"fields: {sorted(heard.form)}")
    need(heard.plain("model"), "model: there is none")
    with wave.open(io.BytesIO(file.data)) as opened:
        seconds = opened.getnframes() / opened.getframerate()
    if heard.plain("response_format") == "verbose_json":
        need(heard.plain("model") == "whisper-1", "verbose_json is for whisper-1 alone")
        told = {"duration": seconds, "language": "english", "segments": [], "task": "transcribe"}
        return Answer.json({"text": TRANSCRIPT, **told})
    details = {"text_tokens": 0, "audio_tokens": 10}
    usage = {"type": "tokens", "input_tokens": 10, "input_token_details": details, "output_tokens": 5}
    return Answer.json({"text": TRANSCRIPT, "usage": {**usage, "total_tokens": 15}})


def _xai(vendors: MediaVendors, heard: Heard) -> Answer:
    del vendors
    _bears(heard, "XAI_API_KEY")
    said, path = heard.json, heard.path.removeprefix("/xai/v1/")
    need(heard.method == "POST" and path in {"images/generations", "images/edits"}, "no such route")
    known = {"model", "prompt", "n", "aspect_ratio", "resolution", "response_format"}
    need(said.keys() <= known | ({"image", "images"} if path == "images/edits" else set()), f"{sorted(said)}")
    need(said["prompt"] and said["model"].startswith("grok-imagine-image"), "prompt or model is wrong")
    if path == "images/edits":
        _linked(said.get("image") or said["images"][0])
    made = [{"b64_json": in_base64(picture(64, 64, "JPEG"))} for _ in range(said.get("n", 1))]
    return Answer.json({"data": made})


def _linked(given: Mapping[str, str]) -> None:
    need(given["type"] == "image_url", f"image: {given['type']}")
    head, _, data = given["url"].partition(";base64,")
    need(head.startswith("data:image/"), f"image: {head}")
    Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()


def _gemini(vendors: MediaVendors, heard: Heard) -> Answer:
    need(heard.headers.get("x-goog-api-key") == KEYS["GEMINI_API_KEY"], "the credential is wrong")
    need("authorization" not in heard.headers, "another credential came along")
    path = heard.path.removeprefix("/gemini/v1beta/")
    if heard.method == "GET" and path == "files/film:download":
        return Answer(headers={"content-type": "video/mp4"}, body=FILM)
    if heard.method == "GET" and re.fullmatch(r"models/veo-[\w.-]+/operations/op1", path):
        uri = f"{vendors.url}/gemini/v1beta/files/film:download?alt=media"
        response = {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": uri}}]}}
        return Answer.json({"name": path, "done": True, "response": response})
    model, _, method = path.removeprefix("models/").partition(":")
    need(heard.method == "POST", "no such route")
    if method == "predictLongRunning":
        (instance,), wishes = heard.json["instances"], heard.json["parameters"]
        known = {"durationSeconds", "resolution", "aspectRatio", "negativePrompt", "seed"}
        need(instance["prompt"] and wishes.keys() <= known, f"parameters: {wishes}")
        need(wishes.get("durationSeconds", 8) in {4, 6, 8}, "durationSeconds")
        return Answer.json({"name": f"models/{model}/operations/op1"})
    need(method == "generateContent", "no such route")
    (content,), settings = heard.json["contents"], heard.json["generationConfig"]
    need(
        content["role"] == "user" and any(part.get("text") for part in content["parts"]), "there are no words"
    )
    given = [part["inlineData"] for part in content["parts"] if "inlineData" in part]
    if model.endswith("-image"):
        return _gemini_picture(model, settings, given)
    if model.endswith("-tts"):
        need(settings["responseModalities"] == ["AUDIO"], f"modalities: {settings}")
        part = {"inlineData": {"mimeType": f"audio/L16;codec=pcm;rate={RATE}", "data": in_base64(sound())}}
        return _gemini_answer(model, [part], "AUDIO", 12)
    (audio,) = given
    need(audio["mimeType"].startswith("audio/"), f"audio: {audio['mimeType']}")
    wave.open(io.BytesIO(base64.b64decode(audio["data"], validate=True))).close()
    return _gemini_answer(model, [{"text": TRANSCRIPT}], "TEXT", 5)


def _gemini_picture(model: str, settings: Mapping[str, Any], given: list[Mapping[str, str]]) -> Answer:
    need("IMAGE" in settings["responseModalities"], f"modalities: {settings}")
    wishes = settings.get("imageConfig", {})
    ratio, side = wishes.get("aspectRatio", "1:1"), _GEMINI_SIDES[wishes.get("imageSize", "1K")]
    need(ratio in _GEMINI_RATIOS and wishes.keys() <= {"aspectRatio", "imageSize"}, f"imageConfig: {wishes}")
    for each in given:
        need(each["mimeType"].startswith("image/"), "a picture is told as something else")
        Image.open(io.BytesIO(base64.b64decode(each["data"], validate=True))).load()
    wide, high = map(int, ratio.split(":"))
    data = in_base64(picture(side, round(side * high / wide), "PNG", "blue"))
    return _gemini_answer(model, [{"inlineData": {"mimeType": "image/png", "data": data}}], "IMAGE", 1120)


def _gemini_answer(model: str, parts: list[Any], modality: str, tokens: int) -> Answer:
    usage = {
        "promptTokenCount": 8,
        "candidatesTokenCount": tokens,
        "totalTokenCount": 8 + tokens,
        "candidatesTokensDetails": [{"modality": modality, "tokenCount": tokens}],
    }
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    return Answer.json({"candidates": [candidate], "usageMetadata": usage, "modelVersion": model})


def _stability(vendors: MediaVendors, heard: Heard) -> Answer:
    _bears(heard, "STABILITY_API_KEY")
    need(
        heard.headers.get("accept") in {"application/json", "image/*"},
        f"accept: {heard.headers.get('accept')}",
    )
    shown = {"image": in_base64(picture(96, 64)), "finish_reason": "SUCCESS", "seed": 7}
    if heard.method == "GET":
        need(heard.path == "/stability/v2beta/results/" + "a" * 64, "no such route")
        return Answer.json({"result": shown.pop("image"), **shown})
    family, what = heard.path.removeprefix("/stability/v2beta/stable-image/").split("/")
    need(family == ("generate" if what in {"ultra", "core", "sd3"} else "edit"), "no such route")
    said = heard.form.keys()
    need(said <= _STABILITY_FIELDS[what], f"fields: {sorted(said - _STABILITY_FIELDS[what])}")
    need(said >= _STABILITY_NEEDS[what], f"fields that lack: {sorted(_STABILITY_NEEDS[what] - said)}")
    for name in said & {"image", "mask", "subject_image"}:
        _is_picture(heard.form[name][0])
    need((heard.plain("aspect_ratio") or "1:1") in _RATIOS, "aspect_ratio")
    need((heard.plain("output_format") or "png") in {"png", "jpeg", "webp"}, "output_format")
    if what == "sd3":
        need(heard.plain("model") in _SD3, f"model: {heard.plain('model')}")
        is_edit = heard.plain("mode") == "image-to-image"
        need(is_edit == ("image" in said) == ("strength" in said), "mode, image and strength do not fit")
        need(not (is_edit and "aspect_ratio" in said), "aspect_ratio: not for image-to-image")
    if what == "outpaint":
        need(said & {"left", "right", "up", "down"}, "outpaint needs a side")
    if what == "replace-background-and-relight":
        return Answer.json({"id": "a" * 64}, 202)
    return Answer.json(shown)


def _hub(vendors: MediaVendors, heard: Heard) -> Answer:
    del vendors
    _bears(heard, "HF_TOKEN")
    need(heard.method == "GET", "no such route")
    need(parse_qs(heard.query) == {"expand[]": ["inferenceProviderMapping"]}, f"query: {heard.query}")
    model = heard.path.removeprefix("/api/models/")
    path, task = _HUB[model]
    places = {"fal-ai": {"status": "live", "providerId": path, "task": task}}
    return Answer.json({"id": model, "inferenceProviderMapping": places})


def _fal(vendors: MediaVendors, heard: Heard) -> Answer:
    _bears(heard, "HF_TOKEN")
    path, is_queue = heard.path.removeprefix("/fal-ai/"), heard.query == "_subdomain=queue"
    need(is_queue or not heard.query, f"query: {heard.query}")
    if heard.method == "GET":
        app, _, rest = path.partition("/requests/")
        number, _, status = rest.partition("/")
        need(is_queue and path.startswith(vendors.queued[number]), "there is no such work")
        if status:
            need(status == "status", "no such route")
            return Answer.json({"status": "COMPLETED" if vendors.looked(number) > 1 else "IN_PROGRESS"})
        if app == "fal-ai/hunyuan-video":
            return Answer.json(
                {"video": {"url": vendors.keep("video/mp4", FILM), "content_type": "video/mp4"}}
            )
        return _fal_pictures(vendors, 1, 80, 60)
    known = dict(_HUB.values())
    said, task = heard.json, known[path]
    need(is_queue == (task != "text-to-image"), f"{task} by the wrong way")
    need(said["prompt"], "prompt: there is none")
    if is_queue:
        if task == "image-to-image":
            need(said["image_url"].startswith("data:image/"), "image_url")
        number = f"work-{len(vendors.queued)}"
        app = "/".join(path.split("/")[:2])
        vendors.queued[number] = f"{app}/requests/{number}"
        url = f"https://queue.fal.run/{app}/requests/{number}"
        return Answer.json({"request_id": number, "response_url": url, "status": "IN_QUEUE"})
    size = said.get("image_size", {"width": 1024, "height": 1024})
    return _fal_pictures(vendors, said.get("num_images", 1), size["width"], size["height"])


def _fal_pictures(vendors: MediaVendors, n: int, width: int, height: int) -> Answer:
    urls = [vendors.keep("image/jpeg", picture(width, height, "JPEG")) for _ in range(n)]
    images = [{"url": url, "width": width, "height": height, "content_type": "image/jpeg"} for url in urls]
    return Answer.json({"images": images, "seed": 3, "has_nsfw_concepts": [False] * n})


def _files(vendors: MediaVendors, heard: Heard) -> Answer:
    need(heard.method == "GET", "no such route")
    secret = {"authorization", "x-goog-api-key", "x-api-key"} & heard.headers.keys()
    need(not secret, "a credential came to a foreign address")
    type_, data = vendors.files[heard.path.removeprefix("/files/")]
    return Answer(headers={"content-type": type_}, body=data)


_VENDORS: Mapping[str, Callable[[MediaVendors, Heard], Answer]] = {
    "openai": _openai,
    "xai": _xai,
    "gemini": _gemini,
    "stability": _stability,
    "api": _hub,
    "fal-ai": _fal,
    "files": _files,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    vendors: MediaVendors

    def do_POST(self) -> None:
        self._work()

    def do_GET(self) -> None:
        self._work()

    def do_PUT(self) -> None:
        self._work()

    def _work(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        vendor = parts.path.split("/")[1]
        answer = self.vendors.answer(Heard(vendor, self.command, parts.path, parts.query, headers, body))
        if isinstance(answer, Flood):
            self._flood(answer)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _flood(self, flood: Flood) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", flood.type)
        told = ("content-length", str(flood.total)) if flood.promised else ("transfer-encoding", "chunked")
        self.send_header(*told)
        self.end_headers()
        with suppress(OSError):
            piece = flood.head.ljust(len(_MEGABYTE), b"A")
            while self.vendors.flooded < flood.total:
                self.wfile.write(piece if flood.promised else b"%x\r\n%b\r\n" % (len(piece), piece))
                self.vendors.flooded += len(piece)
                piece = b"A" * len(_MEGABYTE)
            if not flood.promised:
                self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def media_vendors() -> Iterator[MediaVendors]:
    """Run the vendors on a free port of 127.0.0.1."""
    vendors = MediaVendors()

    class Handler(_Handler):
        pass

    Handler.vendors = vendors
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    vendors.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield vendors
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)


def settings_at(vendors: MediaVendors, wavespeed: WaveSpeedFake) -> str:
    """Return a gateway's settings that lead to these vendors and a WaveSpeed instead of the real ones."""
    places = {
        "openai": f"{vendors.url}/openai/v1",
        "xai": f"{vendors.url}/xai/v1",
        "gemini": f"{vendors.url}/gemini/v1beta",
        "stability": f"{vendors.url}/stability",
        "huggingface": f"{vendors.url}/v1",
        "wavespeed": wavespeed.base_url,
    }
    said = [f'[media]\ntrusted_hosts = ["{vendors.host}", "{urlsplit(wavespeed.root).netloc}"]']
    said += [f'[providers.{name}]\nbase_url = "{url}"' for name, url in places.items()]
    return "\n".join(said) + "\n"
