"""Search vendors on one real socket, each under its own path, that check what they are sent before they answer.

What breaks a vendor's contract is answered with 400 and kept in `violations`, which tests expect to be empty.
Contracts: the specification, 17.10, and the vendors' own references (docs.tavily.com, serper.dev, exa.ai/docs).
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from support.media_vendors import Violation, need
from support.upstream import Answer

KEYS = {
    "TAVILY_API_KEY": "tvly-0123456789abcdef",
    "EXA_API_KEY": "exa-0123456789abcdef",
    "SERPER_API_KEY": "serper-0123456789abcdef",
}
"""The keys that the vendors know, by the variables that hold them."""

_TAVILY = {
    "query", "topic", "search_depth", "max_results", "include_domains", "exclude_domains", "start_date", "end_date",
    "time_range", "country", "include_answer", "include_raw_content", "include_usage", "include_images",
    "auto_parameters", "chunks_per_source",
}  # fmt: skip
_SERPER = {"q", "gl", "hl", "num", "tbs", "page", "location", "autocorrect"}
_EXA = {
    "query", "type", "numResults", "includeDomains", "excludeDomains", "startPublishedDate", "endPublishedDate",
    "category", "userLocation", "contents", "additionalQueries", "moderation",
}  # fmt: skip
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Heard:
    """A request as it came in; header names are lower case."""

    vendor: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass
class SearchVendors:
    """The server. `plan` replaces the next answers of a vendor; `heard` is everything that came in, in order."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    planned: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    lock: Lock = field(default_factory=Lock)

    @property
    def toml(self) -> str:
        """The settings that lead a gateway here."""
        names = ("tavily", "exa", "serper")
        return "".join(f'[providers.{name}]\nbase_url = "{self.url}/{name}"\n' for name in names)

    def plan(self, vendor: str, *answers: Answer) -> None:
        """Say what a vendor answers next, whatever it would have."""
        self.planned[vendor] = list(answers)

    def forget(self) -> None:
        """Forget what was heard and planned."""
        self.heard.clear()
        self.strays.clear()
        self.planned.clear()

    def order(self) -> list[str]:
        """Return the vendors that were asked, in their order."""
        return [each.vendor for each in self.heard]

    @property
    def only(self) -> dict[str, Any]:
        """The body of the one request that came in."""
        assert len(self.heard) == 1, self.heard
        return self.heard[0].body

    def answer(self, vendor: str, path: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Note a request, check it, and answer."""
        with self.lock:
            try:
                need(headers.get("content-type") == "application/json", "the body is not told as JSON")
                heard = Heard(vendor, path, headers, json.loads(raw))
                self.heard.append(heard)
                usual = _VENDORS[vendor](heard)
            except (Violation, KeyError, TypeError, ValueError, AttributeError) as broken:
                text = f"{vendor}/{path}: {type(broken).__name__}: {broken}"
                self.violations.append(text)
                return Answer.json({"error": text, "message": text, "detail": {"error": text}}, 400)
            planned = self.planned.get(vendor)
            return planned.pop(0) if planned else usual


def _tavily(heard: Heard) -> Answer:
    said = heard.body
    need(heard.headers.get("authorization") == f"Bearer {KEYS['TAVILY_API_KEY']}", "the credential is wrong")
    need(heard.path == "search", "no such route")
    need(said.keys() <= _TAVILY, f"fields: {sorted(said.keys() - _TAVILY)}")
    need(0 < len(said["query"]) <= 400, "query is too long")
    need(said.get("topic", "general") in {"general", "news", "finance"}, "topic")
    need(said.get("search_depth", "basic") in {"basic", "advanced", "fast", "ultra-fast"}, "search_depth")
    most = said.get("max_results", 5)
    need(isinstance(most, int) and 0 <= most <= 20, "max_results")
    need("country" not in said or said["topic"] == "general", "country is for general searches")
    need(said.get("country", "france").islower(), "country")
    for name in ("start_date", "end_date"):
        need(name not in said or _DAY.fullmatch(said[name]), name)
    billed = 2 if said.get("search_depth") == "advanced" else 1
    results = [
        {
            "title": f"Page {number}",
            "url": f"https://found.example/{number}",
            "content": f"Snippet {number}",
            "score": round(1 - number / 100, 4),
            "raw_content": f"All of page {number}" if said.get("include_raw_content") else None,
            "favicon": f"https://found.example/{number}.ico",
            **({"published_date": "Tue, 11 Nov 2025 09:30:00 GMT"} if said.get("topic") == "news" else {}),
        }
        for number in range(1, most + 1)
    ]
    return Answer.json(
        {
            "query": said["query"],
            "answer": "Forty-two." if said.get("include_answer") else None,
            "images": [],
            "results": results,
            "response_time": 0.5,
            "request_id": "r-1",
            **({"usage": {"credits": billed}} if said.get("include_usage") else {}),
        }
    )


def _serper(heard: Heard) -> Answer:
    said = heard.body
    need(heard.headers.get("x-api-key") == KEYS["SERPER_API_KEY"], "the credential is wrong")
    need("authorization" not in heard.headers, "another credential came along")
    need(heard.path in {"search", "news", "images", "scholar"}, "no such route")
    need(said.keys() <= _SERPER, f"fields: {sorted(said.keys() - _SERPER)}")
    need(said["q"], "q")
    most = said.get("num", 10)
    need(isinstance(most, int) and 1 <= most <= 100, "num")
    need(said.get("tbs", "qdr:d").startswith(("qdr:", "cdr:1")), "tbs")
    results = [
        {
            "title": f"Hit {number}",
            "link": f"https://google.example/{heard.path}/{number}",
            "position": number,
            **({} if heard.path == "images" else {"snippet": f"About {number}", "date": "May 23, 2024"}),
            **({"imageUrl": f"https://pictures.example/{number}.jpg"} if heard.path == "images" else {}),
            **({"year": 2017, "citedBy": 9} if heard.path == "scholar" else {}),
        }
        for number in range(1, most + 1)
    ]
    for result in results if heard.path == "scholar" else ():
        del result["date"]
    name = heard.path if heard.path in {"news", "images"} else "organic"
    return Answer.json(
        {
            "searchParameters": {"q": said["q"], "type": heard.path, "engine": "google"},
            name: results,
            "relatedSearches": [{"query": "more"}],
            "credits": 2 if most > 10 else 1,
        }
    )


def _exa(heard: Heard) -> Answer:
    said = heard.body
    need(heard.headers.get("x-api-key") == KEYS["EXA_API_KEY"], "the credential is wrong")
    match heard.path:
        case "search":
            return _exa_search(said)
        case "contents":
            need(said.keys() <= {"urls", "text", "highlights", "summary", "maxAgeHours"}, f"fields: {said}")
            need(1 <= len(said["urls"]) <= 100, "urls")
            bad = [url for url in said["urls"] if "missing" in url]
            read = [url for url in said["urls"] if url not in bad]
            statuses = [{"id": url, "status": "success", "source": "cached"} for url in read]
            error = {"tag": "CRAWL_NOT_FOUND", "httpStatusCode": 404}
            statuses += [{"id": url, "status": "error", "error": error} for url in bad]
            results = [
                {"id": url, "url": url, "title": "Read", "text": f"The text of {url}", "author": None}
                for url in read
            ]
            cost = {"total": round(0.001 * len(read), 3), "contents": {"text": 0.001 * len(read)}}
            return Answer.json(
                {"requestId": "c-1", "results": results, "statuses": statuses, "costDollars": cost}
            )
        case "answer":
            need(said.keys() <= {"query", "text", "systemPrompt", "outputSchema"}, f"fields: {said}")
            citations = [
                {
                    "id": "1",
                    "url": "https://exa.example/source",
                    "title": "Source",
                    "publishedDate": "2025-01-02",
                }
            ]
            return Answer.json(
                {
                    "requestId": "a-1",
                    "answer": f"About {said['query']}: yes.",
                    "citations": citations,
                    "costDollars": {"total": 0.005},
                }
            )
    raise Violation("no such route")


def _exa_search(said: dict[str, Any]) -> Answer:
    need(said.keys() <= _EXA, f"fields: {sorted(said.keys() - _EXA)}")
    need(
        said["query"] and said.get("type", "auto") in {"auto", "fast", "instant", "neural", "deep"},
        "query, type",
    )
    most = said.get("numResults", 10)
    need(isinstance(most, int) and 1 <= most <= 100, "numResults")
    need(said.get("category", "news") in {"news", "research paper", "company", "pdf"}, "category")
    need(re.fullmatch(r"[A-Z]{2}", said.get("userLocation", "FR")), "userLocation")
    contents = said.get("contents", {})
    results = [
        {
            "id": f"https://exa.example/{number}",
            "url": f"https://exa.example/{number}",
            "title": f"Found {number}",
            "publishedDate": "2025-12-29T00:00:00.000Z",
            "author": "Somebody",
            **({"highlights": [f"High {number}", "light"]} if contents.get("highlights") else {}),
            **({"text": f"Text {number}\nand more"} if contents.get("text") else {}),
        }
        for number in range(1, most + 1)
    ]
    total = (0.012 if said.get("type") == "deep" else 0.007) + 0.001 * max(0, most - 10)
    return Answer.json(
        {
            "requestId": "s-1",
            "resolvedSearchType": "neural",
            "results": results,
            "searchTime": 321.5,
            "costDollars": {"total": round(total, 4), "search": {"neural": total}},
        }
    )


_VENDORS = {"tavily": _tavily, "serper": _serper, "exa": _exa}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a head and its body wait for each other
    vendors: SearchVendors

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        vendor, _, path = self.path.strip("/").partition("/")
        answer = self.vendors.answer(vendor, path, headers, raw)
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if answer.cut:
            self.close_connection = True

    def do_GET(self) -> None:
        """Note what nobody should have asked for: a page that was found."""
        self.vendors.strays.append(self.path)
        self.send_error(404)

    def log_message(self, *_args: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        """Stay silent: callers who hang up are part of the tests."""


@contextmanager
def search_vendors() -> Iterator[SearchVendors]:
    """Run the vendors on a free port of 127.0.0.1."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    vendors = SearchVendors(f"http://127.0.0.1:{server.server_address[1]}")
    handler.vendors = vendors
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield vendors
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
