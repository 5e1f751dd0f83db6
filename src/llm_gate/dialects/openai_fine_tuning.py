"""Fine-tuning in the OpenAI wire format, outbound, for OpenAI itself and for vendors whose description says how near.

Theory of operation: files live here and go to the vendor with the job that needs them. A vendor that refuses the job
keeps none of them, and one that has ended it is asked to remove them.
"""

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._multipart import Field, form_request
from llm_gate.dialects.openai_fine_tuning_wire import (
    checkpoints_of,
    events_of,
    id_of,
    read_object,
    tuning_of,
    view_of,
)
from llm_gate.domain.catalog import FineTuningSpec
from llm_gate.domain.errors import FineTuningEnded, InvalidRequest, ProviderError, ProviderRejected
from llm_gate.domain.fine_tuning import (
    FineTuneRequest,
    Steering,
    TrainingFile,
    TuningCheckpoint,
    TuningEvent,
)
from llm_gate.domain.media import Medium
from llm_gate.domain.provider import (
    Do,
    Exchanges,
    Facts,
    HttpReply,
    HttpRequest,
    JobView,
    Send,
    Steered,
    Target,
    Ticket,
    Trained,
    Wait,
)

_OK = 300
_REFUSALS = (400, 403, 404, 410)
_NOT_THERE = (400, 404, 405, 410)
_TRAINING = re.compile(r"fine[\s_-]?tun|training", re.IGNORECASE)
_ENDED = re.compile(
    r"no longer|not (?:available|accessible|allowed|permitted|eligible|supported|enabled)|wind(?:ing)?[\s-]?down|"
    r"wound down|deprecat|discontinu|sunset|retire|has ended|is ending|cannot create|can't create|"
    r"(?:does not|doesn't) have access|unavailable",
    re.IGNORECASE,
)
_ENDED_CODES = frozenset({"fine_tuning_ended", "fine_tuning_not_available", "training_not_available"})
_LINES = "application/jsonl"
_UNREADY = frozenset({"pending", "running", "notrunning", "uploaded_pending", "processing"})
_READY_EVERY_S, _MOST_ASKED = 1.0, 90
_MOST_EVENTS = 1_000
_DEFAULT_FIELDS = ("model", "training_file", "validation_file", "suffix", "seed", "metadata", "method")


class OpenAIFineTuning:
    """The training of every provider that speaks this dialect.

    `address` makes the URL of a path, `base` names the model that is trained.
    """

    look_every_s = 10.0
    longest_s = 7 * 24 * 3_600.0

    def __init__(
        self, address: Callable[[Target, str], str], *, base: Callable[[Target], str] | None = None
    ) -> None:
        self._address = address
        self._base = base or _wire_model

    def submit(self, request: FineTuneRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:
        """Hand the files in, wait until the vendor has looked at them, and hand the job in.

        Raises:
            InvalidRequest: it asks for what the vendor has no word for.
            FineTuningEnded: the vendor trains no more models, or none for this account.
            ProviderError: an answer is not what it should be.
        """
        spec = tuning_of(target)
        self._body(request, target, {})
        sent: dict[str, str] = {}
        try:
            for each in (request.training, request.validation):
                if each is not None:
                    sent[each.id] = yield from self._upload(each, target, spec, facts)
            wanted = self._json("POST", target, spec.jobs, self._body(request, target, sent))
            reply = yield Send(request=wanted, is_paid=True, reads_failures=True)
            if reply is None or reply.status >= _OK:
                raise _refusal(reply, target)
        except ProviderError:
            yield from self._remove(sent.values(), target)
            raise
        found = read_object(reply, target)
        return Ticket(id=id_of(found, target), data={"files": json.dumps(list(sent.values()))})

    def _upload(
        self, file: TrainingFile, target: Target, spec: FineTuningSpec, facts: Facts
    ) -> Generator[Do, HttpReply | None, str]:
        medium = Medium(data=file.data, type=_LINES, name=file.name)
        fields = [
            Field(name="purpose", value="fine-tune"),
            *(Field(name=name, value=value.format(name=file.name)) for name, value in spec.upload.items()),
            Field(name="file", value=medium),
        ]
        wanted = form_request(self._address(target, spec.files), fields, boundary=facts.token, headers={})
        # Read here, so that what went there before is taken away again.
        reply = yield Send(request=wanted, reads_failures=True)
        if reply is not None and reply.status >= _OK:
            raise target.deployment.codecs.decode_error(reply, target)
        found = read_object(reply, target)
        name = id_of(found, target)
        for _ in range(_MOST_ASKED):
            status = str(found.get("status") or "").lower()
            if status in {"error", "failed"}:
                raise _unread(found, target)
            if status not in _UNREADY:
                return name
            yield Wait(seconds=_READY_EVERY_S)
            found = read_object((yield Send(request=self._get(target, f"files/{_part(name)}"))), target)
        raise bad_response(target, "says that the file is not ready")

    def _body(self, request: FineTuneRequest, target: Target, sent: Mapping[str, str]) -> Mapping[str, Any]:
        """Return what is sent to make a job; `sent` holds the vendor's ids of files, by ours."""
        spec = tuning_of(target)
        if request.method not in spec.methods:
            raise _not_carried("method", target)
        if request.suffix is not None and len(request.suffix) > spec.longest_suffix:
            raise InvalidRequest(
                f"suffix: {target.provider} takes at most {spec.longest_suffix} characters", param="suffix"
            )
        said: dict[str, Any] = {
            "model": self._base(target),
            "training_file": _file_field(spec, sent.get(request.training_file, ""), is_training=True),
            "validation_file": None
            if request.validation_file is None
            else _file_field(spec, sent.get(request.validation_file, ""), is_training=False),
            "suffix": request.suffix,
            "seed": request.seed,
            "metadata": dict(request.metadata) or None,
        }
        body: dict[str, Any] = {}
        for name in _DEFAULT_FIELDS:
            if said.get(name) is None:
                continue
            theirs = spec.fields.get(name, name)
            if theirs:
                body[theirs] = said[name]
            elif name != "metadata":
                # Metadata are the caller's own notes, and are kept here.
                raise _not_carried(name, target)
        return {**spec.fixed, **body, **_method(request, spec, target)}

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:
        """Ask how it stands; raises ProviderError where the answer is no job."""
        del facts
        found = read_object((yield Send(request=self._get(target, _job(target, ticket)))), target)
        id_of(found, target)
        return view_of(found, target)

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Trained]:
        """Fetch the files that tell of the training, and the names of all models that came of it."""
        del facts
        files: list[Medium] = []
        for number, name in enumerate(json.loads(view.data.get("result_files", "[]"))):
            reply = yield from _asked(self._get(target, f"files/{_part(name)}/content"), target)
            if reply is not None:
                files.append(Medium(data=reply.body, type="text/csv", name=f"step_metrics_{number}.csv"))
        models = [view.data["model"]] if "model" in view.data else []
        if "checkpoints" in tuning_of(target).abilities:
            reply = yield from _asked(self._checkpoints_of(ticket, target), target)
            listed = [] if reply is None else _listed(read_object(reply, target).get("data"))
            models += [each.model for each in checkpoints_of(listed) if each.model]
        return Trained(files=tuple(files), models=tuple(dict.fromkeys(models)))

    def steer(self, ticket: Ticket, way: Steering, target: Target, facts: Facts) -> Exchanges[Steered]:
        """Tell it to stop, to pause or to go on; raises what the vendor says."""
        del facts
        if way != "cancel" and way not in tuning_of(target).abilities:
            raise InvalidRequest(
                f"provider {target.provider!r} offers no {way} of fine-tuning", code="unsupported_operation"
            )
        wanted = HttpRequest(
            method="POST", url=self._address(target, f"{_job(target, ticket)}/{way}"), body=b""
        )
        found = read_object((yield Send(request=wanted)), target)
        return Steered(ticket=Ticket(id=id_of(found, target), data=ticket.data), view=view_of(found, target))

    def events(self, ticket: Ticket, target: Target) -> Exchanges[Sequence[TuningEvent]]:
        """Ask what has happened."""
        spec = tuning_of(target)
        if "events" in spec.inline:
            found = read_object((yield Send(request=self._get(target, _job(target, ticket)))), target)
            return events_of(_listed(found.get("events")))
        if "events" not in spec.abilities:
            return ()
        found = read_object(
            (yield Send(request=self._get(target, f"{_job(target, ticket)}/events", "limit=100"))), target
        )
        events = _listed(found.get("data"))
        # A long training has more than one page of them.
        while found.get("has_more") is True and events and len(events) < _MOST_EVENTS:
            last = events[-1].get("id") if isinstance(events[-1], dict) else None
            if not isinstance(last, str):
                break
            query = f"limit=100&after={_part(last)}"
            wanted = self._get(target, f"{_job(target, ticket)}/events", query)
            found = read_object((yield Send(request=wanted)), target)
            more = _listed(found.get("data"))
            if not more:
                break
            events += more
        return events_of(events)

    def checkpoints(self, ticket: Ticket, target: Target) -> Exchanges[Sequence[TuningCheckpoint]]:
        """Ask for the models that stand between."""
        spec = tuning_of(target)
        if "checkpoints" in spec.inline:
            found = read_object((yield Send(request=self._get(target, _job(target, ticket)))), target)
            return checkpoints_of(_listed(found.get("checkpoints")))
        if "checkpoints" not in spec.abilities:
            return ()
        found = read_object((yield Send(request=self._checkpoints_of(ticket, target))), target)
        return checkpoints_of(_listed(found.get("data")))

    def _checkpoints_of(self, ticket: Ticket, target: Target) -> HttpRequest:
        return self._get(target, f"{_job(target, ticket)}/checkpoints", "limit=100")

    def tidy(self, ticket: Ticket, target: Target) -> Exchanges[None]:
        """Remove the files that went there with the job."""
        yield from self._remove(json.loads(ticket.data.get("files", "[]")), target)

    def _remove(self, names: Any, target: Target) -> Generator[Do, HttpReply | None, None]:
        for name in names:
            url = self._address(target, f"files/{_part(name)}")
            try:
                yield Send(request=HttpRequest(method="DELETE", url=url, body=b""), reads_failures=True)
            except ProviderError:
                # It stays there; nothing depends on it.
                continue

    def _get(self, target: Target, path: str, query: str = "") -> HttpRequest:
        url = self._address(target, path)
        if query:
            url += ("&" if "?" in url else "?") + query
        return HttpRequest(method="GET", url=url, body=b"")

    def _json(self, method: str, target: Target, path: str, body: Mapping[str, Any]) -> HttpRequest:
        return HttpRequest(
            method=method,
            url=self._address(target, path),
            headers={"content-type": "application/json"},
            body=msgspec.json.encode(body),
        )


def _asked(request: HttpRequest, target: Target) -> Generator[Do, HttpReply | None, HttpReply | None]:
    """Ask for what may not be there, which must not cost a training that has succeeded; None where it is not."""
    reply = yield Send(request=request, reads_failures=True)
    if reply is None or reply.status in _NOT_THERE:
        return None
    if reply.status >= _OK:
        raise target.deployment.codecs.decode_error(reply, target)
    return reply


def _wire_model(target: Target) -> str:
    return target.wire_model


def _job(target: Target, ticket: Ticket) -> str:
    return f"{tuning_of(target).jobs}/{_part(ticket.id)}"


def _part(name: str) -> str:
    return quote(name, safe="")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _file_field(spec: FineTuningSpec, name: str, *, is_training: bool) -> Any:
    value: Any = {spec.file_key: name} if spec.file_key is not None and is_training else name
    return [value] if spec.file_lists else value


def _method(request: FineTuneRequest, spec: FineTuningSpec, target: Target) -> Mapping[str, Any]:
    """Return how the vendor is told what to do and with which hyperparameters."""
    if spec.form == "method":
        # What nobody said is left out, so that the vendor's own way of the day holds.
        if request.method == "supervised" and not request.options:
            return {}
        return {"method": {"type": request.method, request.method: dict(request.options)}}
    unknown = set(request.options) - {"hyperparameters"}
    if unknown:
        raise _not_carried(f"method.{request.method}.{min(unknown)}", target)
    given: dict[str, Any] = {}
    for name, value in request.hyperparameters.items():
        theirs = spec.hyperparameters.get(name, name)
        if value == "auto":
            continue
        if not theirs:
            raise _not_carried(f"hyperparameters.{name}", target)
        given[theirs] = value
    told = (
        {}
        if spec.method_field is None
        else {spec.method_field: {"method": spec.method_words.get(request.method, request.method)}}
    )
    return {**given, **told} if spec.form == "flat" else {"hyperparameters": given, **told}


def _not_carried(name: str, target: Target) -> InvalidRequest:
    return InvalidRequest(
        f"{name}: cannot be carried over to {target.name}", param=name, code="unsupported_parameter"
    )


def _unread(found: Mapping[str, Any], target: Target) -> ProviderError:
    reason = found.get("status_details")
    text = f": {reason}" if isinstance(reason, str) and reason else ""
    return ProviderRejected(
        f"provider {target.provider!r} cannot use the training file{text}",
        provider=target.provider,
        model=target.wire_model,
        param="training_file",
    )


def _refusal(reply: HttpReply | None, target: Target) -> ProviderError:
    """Return why a job was not taken: also that the vendor trains no more models, for anybody or for this account."""
    if reply is None:
        return bad_response(target, "is missing")
    error = target.deployment.codecs.decode_error(reply, target)
    text = reply.body.decode(errors="replace")
    says_so = (error.vendor_code or "").lower() in _ENDED_CODES
    if reply.status in _REFUSALS and (
        says_so or (_TRAINING.search(text) is not None and _ENDED.search(text) is not None)
    ):
        return FineTuningEnded(
            f"provider {target.provider!r} takes no more fine-tuning jobs"
            + (f": {error.detail}" if error.detail else " from the gateway's account"),
            provider=target.provider,
            model=target.wire_model,
            status=reply.status,
            detail=error.detail,
            vendor_code=error.vendor_code,
        )
    return error
