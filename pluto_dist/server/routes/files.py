"""``/files``: announce files, send their bytes, fetch them again.

``POST /files`` needs the key and answers, under each log name, one address for each file. The bytes go
to that address by PUT; a GET address comes with the list of a run's files. Neither needs the key, both are
signed. A file always leaves as an attachment of no particular type, so that no browser runs what a job
uploaded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract import run_requests
from pluto_dist.contract.validation import ContractError, Issue, Json, unstorable
from pluto_dist.server.db import files, run_updates
from pluto_dist.server.db.blobs import Blobs, TooLargeError
from pluto_dist.server.db.database import Database
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.auth import Access, run_in_header
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.bodies import AnnouncedFile, UploadRequest
from pluto_dist.server.transport.responses import AnswerError, AsciiJSONResponse, failure, invalid

FILES_LIMIT = 1000
NAME_LIMIT = 1000
_HEADERS = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-store"}


class FilesApi:
    """The handlers under ``/files``."""

    def __init__(
        self, database: Database, access: Access, signatures: files.Signatures, public_url: str, file_limit: int
    ) -> None:
        self._database = database
        self._access = access
        self._signatures = signatures
        self._public_url = public_url
        self._file_limit = file_limit
        self._blobs = Blobs(database.path)

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/files", self.announce, methods=["POST"]),
            Route("/files/{file:int}", self.upload, methods=["PUT"]),
            Route("/files/{file:int}", self.download, methods=["GET"]),
        ]

    async def announce(self, request: Request) -> Response:
        organization, _, body = await self._access.read(request, UploadRequest)
        number = run_in_header(request)
        wanted = _announced(body)
        answer: dict[str, list[dict[str, str]]] = {}
        with self._database.transaction():
            run = run_updates.existing(self._database, organization, number)
            ids = [files.announce(self._database, run.id, each) for each in wanted]
        for each, file in zip(wanted, ids, strict=True):
            url = urls.upload_url(self._public_url, self._signatures, file)
            answer.setdefault(each.log_name, []).append({each.file_name: url})
        return AsciiJSONResponse(answer)

    async def upload(self, request: Request) -> Response:
        file = self._signed(request, "PUT")
        declared = query_params.parsed(request.headers.get("content-length", "0"))
        if declared is None or declared > self._file_limit:
            raise AnswerError(_too_large(self._file_limit))
        try:
            blob = await self._blobs.write(_chunks(request), self._file_limit)
        except TooLargeError as error:
            raise AnswerError(_too_large(self._file_limit)) from error
        except ClientDisconnect as error:
            raise AnswerError(failure(400, "the upload broke off")) from error
        files.arrived(self._database, file.id, blob)
        return PlainTextResponse("")

    async def download(self, request: Request) -> Response:
        file = self._signed(request, "GET")
        path = None if file.digest is None else self._blobs.path(file.digest)
        if path is None or not path.is_file():
            raise AnswerError(failure(404, "the file's bytes never arrived"))
        return FileResponse(
            path,
            media_type="application/octet-stream",
            filename=file.file_name,
            content_disposition_type="attachment",
            headers=_HEADERS,
        )

    def _signed(self, request: Request, method: str) -> files.StoredFile:
        """The file that the address names, if the address is one that this server made and still holds."""
        number = request.path_params["file"]
        expires, signature = (request.query_params.get(name, "") for name in ("expires", "signature"))
        if number > query_params.LARGEST or not self._signatures.are_valid(method, number, expires, signature):
            raise AnswerError(failure(403, "this address is not signed for that, or has expired; ask for a new one"))
        file = files.find(self._database, number)
        if file is None:
            raise AnswerError(failure(404, "File not found"))
        return file


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


def _announced(body: dict[str, Json]) -> list[AnnouncedFile]:
    listed = body.get("files")
    if not isinstance(listed, list):
        detail = {"code": "invalid_type", "expected": "array", "received": "undefined"}
        raise AnswerError(invalid((Issue(("files",), "Expected array", detail),)))
    if len(listed) > FILES_LIMIT:
        raise AnswerError(failure(400, f"{len(listed)} files are announced at once; at most {FILES_LIMIT} can be"))
    found = []
    for index, each in enumerate(listed):
        try:
            found.append(AnnouncedFile.from_json(each))
        except ContractError as error:
            issues = tuple(Issue(("files", index, *i.path), i.message, i.detail) for i in error.issues)
            raise AnswerError(invalid(issues)) from error
        if why := _unstorable(found[-1]):
            raise AnswerError(failure(400, f"files[{index}]: {why}"))
    return found


def _unstorable(file: AnnouncedFile) -> str | None:
    for text in (file.file_name, file.log_name, file.type):
        if len(text) > NAME_LIMIT:
            return f"a name has {len(text)} characters; at most {NAME_LIMIT} can be stored"
    for text in (file.file_name, file.log_name, file.type, file.caption or "", file.annotations or ""):
        if bad := unstorable(text):
            return f"a text contains {bad}"
    if max(file.size, file.step or 0, file.sample or 0) > query_params.LARGEST or file.time > run_requests.LATEST_MS:
        return "a number is beyond what can be stored"
    return None


def _too_large(limit: int) -> Response:
    return failure(413, f"a file can have at most {limit} bytes")
