"""Where this server's runs and files are, as addresses for people and for clients."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from pluto_dist.server.db import display_id
from pluto_dist.server.db.files import DOWNLOAD_S, UPLOAD_S, Signatures


@lru_cache(1024)  # every rank of a job asks for the same one
def run_url(public_url: str, organization: str, project: str, run: int) -> str:
    """The address of a run's page, written as the hosted server writes it."""
    return f"{public_url}/o/{organization}/projects/{quote(project, safe=_LEFT_AS_IS)}/{display_id.code_of_run(run)}"


def upload_url(public_url: str, signatures: Signatures, file: int) -> str:
    """Where the bytes of an announced file go, for an hour. The signature is in the query, out of the access log."""
    return f"{public_url}/files/{file}?{signatures.query('PUT', file, UPLOAD_S)}"


def download_url(public_url: str, signatures: Signatures, file: int) -> str:
    """Where a file can be fetched without a key, for five days."""
    return f"{public_url}/files/{file}?{signatures.query('GET', file, DOWNLOAD_S)}"


_LEFT_AS_IS = "!'()*"  # what JavaScript's encodeURIComponent leaves, beyond what Python does
