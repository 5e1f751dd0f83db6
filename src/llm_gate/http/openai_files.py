"""Files in the OpenAI surface: `/v1/files`."""

from typing import Any

import msgspec
from msgspec import Struct

from llm_gate.dialects.openai_files import (
    FileDeleted,
    FileList,
    FileObject,
    decode_upload,
    encode_file,
    encode_files,
)
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.domain.errors import InvalidRequest
from llm_gate.engine.files import FileDesk
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.forms import read_form
from llm_gate.http.openai import TAG, OpenAISurface
from llm_gate.http.query import Query
from llm_gate.http.routes import Parameter, Route

_MOST_LISTED = 10_000
_ORDERS = ("desc", "asc")
_CONTENT_TYPE = "application/octet-stream"
_ID = Parameter(name="id", place="path", description="The file's id")


class FileRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of files."""

    files: FileDesk

    async def create(self, exchange: Exchange) -> None:
        """Take a file in."""
        form = await read_form(exchange)
        upload = decode_upload(form.fields, form.files)
        caller = exchange.caller()

        async def work() -> None:
            file = await self.files.put(
                caller.tenant,
                caller.application,
                caller.user,
                purpose=upload.purpose,
                name=upload.name,
                data=upload.data,
                expires_after_s=upload.expires_after_s,
            )
            await exchange.reply(Reply(body=encode_file(file)))

        await watched(exchange, work())

    async def listed(self, exchange: Exchange) -> None:
        """List the files of the caller's tenant."""
        query = Query(exchange)
        query.only("after", "limit", "order", "purpose")
        limit = query.whole("limit", _MOST_LISTED, least=1, most=_MOST_LISTED)
        order = query.text("order") or "desc"
        if order not in _ORDERS:
            raise InvalidRequest(f"order: must be one of {', '.join(_ORDERS)}", param="order")
        found = await self.files.listed(
            exchange.caller().tenant,
            purpose=query.text("purpose"),
            limit=limit + 1,
            after=query.text("after") or "",
            newest_first=order == "desc",
        )
        await exchange.reply(Reply(body=encode_files(found[:limit], has_more=len(found) > limit)))

    async def one(self, exchange: Exchange) -> None:
        """Show a file."""
        file = await self.files.describe(exchange.caller().tenant, exchange.path_value)
        await exchange.reply(Reply(body=encode_file(file)))

    async def content(self, exchange: Exchange) -> None:
        """Hand a file out."""
        tenant = exchange.caller().tenant
        file = await self.files.describe(tenant, exchange.path_value)
        data = await self.files.read(tenant, file.id)
        # Nothing that a browser would run, whatever the file holds.
        headers = {"content-disposition": "attachment"}
        await exchange.reply(Reply(body=data, content_type=_CONTENT_TYPE, headers=headers))

    async def delete(self, exchange: Exchange) -> None:
        """Remove a file."""
        await self.files.remove(exchange.caller().tenant, exchange.path_value)
        await exchange.reply(Reply(body=msgspec.json.encode(FileDeleted(id=exchange.path_value))))

    def routes(self) -> list[Route]:
        """Return the rows of files."""
        shared: dict[str, Any] = {
            "surface": OpenAISurface(),
            "tag": TAG,
            "error_type": ErrorShape,
            "needs": "inference",
        }
        one: dict[str, Any] = {**shared, "parameters": (_ID,)}
        return [
            Route(
                method="POST",
                path="/v1/files",
                endpoint=self.create,
                summary="Hand a file in, for fine-tuning or a batch",
                form={"file": "file", "purpose": "text"},
                response_type=FileObject,
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/files",
                endpoint=self.listed,
                summary="List your files",
                response_type=FileList,
                parameters=_LISTING,
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/files/{id}",
                endpoint=self.one,
                summary="Show a file",
                response_type=FileObject,
                **one,
            ),
            Route(
                method="GET",
                path="/v1/files/{id}/content",
                endpoint=self.content,
                summary="Fetch what a file holds",
                content=_CONTENT_TYPE,
                **one,
            ),
            Route(
                method="DELETE",
                path="/v1/files/{id}",
                endpoint=self.delete,
                summary="Remove a file",
                response_type=FileDeleted,
                **one,
            ),
        ]


_LISTING = (
    Parameter(name="after", place="query", description="The last file of the page before", required=False),
    Parameter(name="limit", place="query", description="How many, 1 to 10000", required=False),
    Parameter(name="order", place="query", description="desc (the newest first) or asc", required=False),
    Parameter(name="purpose", place="query", description="Only files for this", required=False),
)
