"""The media codecs: pictures in one exchange, edits and films by way of the queue."""

from llm_gate.dialects._failures import bad_response
from llm_gate.domain.errors import ProviderError, ProviderTimeout
from llm_gate.domain.media import ImageEditRequest, ImageRequest, ImageResult, Medium, VideoRequest
from llm_gate.domain.provider import Exchanges, Facts, HttpRequest, JobView, Send, Target, Ticket, Wait
from llm_gate.providers.huggingface.answers import File, Made, fetched, pictures_of, read
from llm_gate.providers.huggingface.payloads import film_payload, picture_payload
from llm_gate.providers.huggingface.places import path_at_maker
from llm_gate.providers.huggingface.queue import (
    FIRST_FAILURE_STATUS,
    QUEUED,
    RUNNING,
    hand_in,
    post,
    queue_url,
    result_of,
    standing_of,
)

_LOOK_EVERY_S, _LOOKS = 0.5, 600


class HuggingFacePictures:
    """Makes pictures from words, in one exchange."""

    def run(self, request: ImageRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:  # noqa: ARG002
        """Make them.

        Raises:
            ProviderError: nobody serves the model, an answer is not what the contract says, or tells of a failure.
        """
        path = yield from path_at_maker(target, "text-to-image")
        reply = yield Send(request=post(target, path, picture_payload(request, target)), is_paid=True)
        made = read(reply, Made, target, "holds no picture")
        return (yield from pictures_of(made, target))


class HuggingFaceEdits:
    """Changes pictures, by way of the queue."""

    def run(self, request: ImageEditRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:  # noqa: ARG002
        """Change them; the queue is asked twice a second, for five minutes at most.

        Raises:
            ProviderError: nobody serves the model, an answer is not what the contract says, or tells of a failure.
        """
        ticket = yield from hand_in(target, "image-to-image", picture_payload(request, target))
        for _ in range(_LOOKS):
            yield Wait(seconds=_LOOK_EVERY_S)
            standing = yield from standing_of(ticket, target)
            if standing.status not in {QUEUED, RUNNING}:
                result = yield from result_of(ticket, standing, target)
                if isinstance(result, ProviderError):
                    raise result
                return (yield from pictures_of(result, target))
        late = ProviderTimeout(
            f"provider {target.provider!r} was not done within {_LOOKS * _LOOK_EVERY_S:.0f} s",
            provider=target.provider,
            model=target.wire_model,
        )
        late.may_repeat = False
        raise late


class HuggingFaceFilms:
    """Makes films, by way of the queue."""

    look_every_s = 2.0

    def submit(self, request: VideoRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:  # noqa: ARG002
        """Hand the film in.

        Raises:
            ProviderError: nobody serves the model, or the answer is not what the contract says.
        """
        task = "text-to-video" if request.image is None else "image-to-video"
        return (yield from hand_in(target, task, film_payload(request, target)))

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:  # noqa: ARG002
        """Ask how it stands, and once it is done, where it is.

        Raises:
            ProviderError: that cannot be told now.
        """
        standing = yield from standing_of(ticket, target)
        if standing.status == QUEUED:
            return JobView(status="queued")
        if standing.status == RUNNING:
            return JobView(status="running")
        result = yield from result_of(ticket, standing, target)
        if isinstance(result, ProviderError):
            is_off = (standing.status or "").startswith("CANCEL")
            return JobView(status="cancelled" if is_off else "failed", error=result)
        if result.video is None:
            return JobView(status="failed", error=bad_response(target, "holds no film"))
        return JobView(
            status="succeeded",
            progress=100.0,
            data={"url": result.video.url, "type": result.video.content_type or ""},
        )

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Medium]:  # noqa: ARG002
        """Fetch the film from the address that `look` was told.

        Raises:
            BadProviderResponse: there is no film.
        """
        url = view.data.get("url")
        if not url:
            raise bad_response(target, "names no address of the film")
        return (yield from fetched(File(url=url, content_type=view.data.get("type")), "video", target))

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[bool]:  # noqa: ARG002
        """Call it off; what is done already stays done."""
        request = HttpRequest(method="PUT", url=queue_url(ticket, target, "/cancel"), body=b"")
        reply = yield Send(request=request, reads_failures=True)
        return reply is not None and reply.status < FIRST_FAILURE_STATUS
