"""Addresses of pages, uploads and downloads."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from pluto_dist.server.db import display_id
from pluto_dist.server.db.files import DOWNLOAD_S, UPLOAD_S, UrlSigner

_NOT_QUOTED = "!'()*"  # JavaScript's encodeURIComponent leaves these as they are


def project_path(organization: str, project: str) -> str:
    """The path of a project's page."""
    return f"/o/{quote(organization, safe='')}/projects/{quote(project, safe='')}"


def run_path(organization: str, project: str, run: int) -> str:
    """The path of a run's page."""
    return f"{project_path(organization, project)}/{display_id.sqid_of_run(run)}"


@lru_cache(1024)  # every rank of a job requests the same URL
def run_url(public_url: str, organization: str, project: str, run: int) -> str:
    """The URL of a run's page, quoted like the hosted tracker's."""
    return f"{public_url}/o/{organization}/projects/{quote(project, safe=_NOT_QUOTED)}/{display_id.sqid_of_run(run)}"


def upload_url(public_url: str, signer: UrlSigner, file: int) -> str:
    """The URL that accepts a file's bytes for an hour. The access log omits the query with the signature."""
    return f"{public_url}/files/{file}?{signer.sign('PUT', file, UPLOAD_S)}"


def download_url(public_url: str, signer: UrlSigner, file: int) -> str:
    """The URL that serves a file without a key for five days."""
    return f"{public_url}/files/{file}?{signer.sign('GET', file, DOWNLOAD_S)}"
