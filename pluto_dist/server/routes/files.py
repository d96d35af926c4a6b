"""Endpoints under ``/files``: create upload URLs, upload and download files.

``POST /files`` requires the API key and answers one URL for each file, grouped by log name; the client
sends the bytes there with PUT. Download URLs come with the list of a run's files. Both URLs are signed and
need no key. Files are sent as attachments of type ``application/octet-stream``, so that no browser executes
what a job uploaded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from pluto_dist.contract import run_requests
from pluto_dist.contract.validation import ContractError, Issue, Json, unstorable
from pluto_dist.server.db import files, run_updates
from pluto_dist.server.db.blobs import BlobStore, TooLargeError
from pluto_dist.server.openapi.schemas import RUN_IN_HEADER, TEXT, in_path, in_query, schema
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.auth import run_in_header
from pluto_dist.server.routes.endpoint import PLAIN_TEXT, Endpoint, Routes, Services
from pluto_dist.server.settings import LARGEST_INTEGER, NAME_LIMIT
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import (
    AsciiJSONResponse,
    ResponseError,
    error_response,
    validation_response,
)
from pluto_dist.server.transport.sdk_requests import FileUpload, UploadRequest

FILES_LIMIT = 1000  # of one request
_OCTET_STREAM = "application/octet-stream"
_HEADERS = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-store"}


_SIGNED = (
    in_path("file", {"type": "integer"}),
    in_query("expires", required=True),
    in_query("signature", required=True),
)


class FileRoutes(Routes):
    """The handlers of these endpoints."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._file_limit = services.settings.file_limit
        self._blobs = BlobStore(services.database.path)

    @Endpoint(
        "POST",
        "/files",
        "Create upload URLs for files",
        body=UploadRequest,
        body_fields={"files": {"type": "array", "items": schema(FileUpload)}},
        parameters=(RUN_IN_HEADER,),
        errors=(404,),
    )
    async def create_uploads(self, request: Request) -> Response:
        organization, _, body = await self._auth.read_record(request, UploadRequest)
        number = run_in_header(request)
        uploads = _uploads(body)
        urls_of: dict[str, list[dict[str, str]]] = {}
        with self._database.transaction():
            run = run_updates.get_run(self._database, organization, number)
            ids = [files.register(self._database, run.id, upload) for upload in uploads]
        for upload, file in zip(uploads, ids, strict=True):
            url = urls.upload_url(self._public_url, self._signer, file)
            urls_of.setdefault(upload.log_name, []).append({upload.file_name: url})
        return AsciiJSONResponse(urls_of)

    @Endpoint(
        "PUT",
        "/files/{file:int}",
        "Upload a file",
        answer=TEXT,
        answer_type=PLAIN_TEXT,
        parameters=_SIGNED,
        errors=(400, 403, 404, 413),
        needs_key=False,
    )
    async def upload(self, request: Request) -> Response:
        file = self._signed(request, "PUT")
        declared = query_params.parse_integer(request.headers.get("content-length", "0"))
        if declared is None or declared > self._file_limit:
            raise ResponseError(_too_large(self._file_limit))
        try:
            blob = await self._blobs.write(_chunks(request), self._file_limit)
        except TooLargeError as error:
            raise ResponseError(_too_large(self._file_limit)) from error
        except ClientDisconnect as error:
            raise ResponseError(error_response(400, "the upload ended too early")) from error
        files.set_content(self._database, file.id, blob)
        return PlainTextResponse("")

    @Endpoint(
        "GET",
        "/files/{file:int}",
        "Download a file",
        answer=TEXT,
        answer_type=_OCTET_STREAM,
        parameters=_SIGNED,
        errors=(403, 404),
        needs_key=False,
    )
    async def download(self, request: Request) -> Response:
        file = self._signed(request, "GET")
        path = None if file.digest is None else self._blobs.path(file.digest)
        if path is None or not path.is_file():
            raise ResponseError(error_response(404, "the file was never uploaded"))
        return FileResponse(
            path,
            media_type=_OCTET_STREAM,
            filename=file.file_name,
            content_disposition_type="attachment",
            headers=_HEADERS,
        )

    def _signed(self, request: Request, method: str) -> files.StoredFile:
        """The file of a signed URL.

        Raises:
            ResponseError: 403 for an invalid or expired signature, 404 if there is no such file.
        """
        number = request.path_params["file"]
        expires, signature = (request.query_params.get(name, "") for name in ("expires", "signature"))
        if number > LARGEST_INTEGER or not self._signer.is_valid(method, number, expires, signature):
            raise ResponseError(
                error_response(403, "the signature of this URL is invalid or has expired; request a new URL")
            )
        file = files.find(self._database, number)
        if file is None:
            raise ResponseError(error_response(404, "File not found"))
        return file


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


def _uploads(body: dict[str, Json]) -> list[FileUpload]:
    listed = body.get("files")
    if not isinstance(listed, list):
        detail = {"code": "invalid_type", "expected": "array", "received": "undefined"}
        raise ResponseError(validation_response((Issue(("files",), "Expected array", detail),)))
    if len(listed) > FILES_LIMIT:
        raise ResponseError(
            error_response(400, f"the request has {len(listed)} files; at most {FILES_LIMIT} are allowed")
        )
    found = []
    for index, each in enumerate(listed):
        try:
            found.append(FileUpload.from_json(each))
        except ContractError as error:
            issues = tuple(Issue(("files", index, *i.path), i.message, i.detail) for i in error.issues)
            raise ResponseError(validation_response(issues)) from error
        if reason := _unstorable_reason(found[-1]):
            raise ResponseError(error_response(400, f"files[{index}]: {reason}"))
    return found


def _unstorable_reason(file: FileUpload) -> str | None:
    for text in (file.file_name, file.log_name, file.type):
        if len(text) > NAME_LIMIT:
            return f"a name has {len(text)} characters; at most {NAME_LIMIT} can be stored"
    for text in (file.file_name, file.log_name, file.type, file.caption or "", file.annotations or ""):
        if bad := unstorable(text):
            return f"a text contains {bad}"
    if max(file.size, file.step or 0, file.sample or 0) > LARGEST_INTEGER or file.time > run_requests.LATEST_MS:
        return "a number is beyond what can be stored"
    return None


def _too_large(limit: int) -> Response:
    return error_response(413, f"a file can have at most {limit} bytes")
