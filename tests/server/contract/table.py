"""The whole contract: every row, and a report of how a server answers it.

``python -m server.contract.table`` (from tests/, as ``scripts/contract`` does it) asks the server at
PLUTO_DIST_CONTRACT_URL with PLUTO_DIST_CONTRACT_KEY; without them an embedded tracker of its own.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import now_ms
from server.contract import fork_rows, race_rows, requests_rows, status_rows
from server.contract.row import Row, Verdict, judge
from server.contract.target import Target

ROWS: tuple[Row, ...] = (*requests_rows.ROWS, *fork_rows.ROWS, *race_rows.ROWS, *status_rows.ROWS)
URL, KEY = "PLUTO_DIST_CONTRACT_URL", "PLUTO_DIST_CONTRACT_KEY"


@contextmanager
def target(environ: Mapping[str, str]) -> Iterator[Target]:
    """The server that the environment names, or an embedded tracker for as long as it takes."""
    if url := environ.get(URL):
        yield Target(url.rstrip("/"), environ[KEY])
        return
    with LocalServer() as server, closing(Database(server.db)) as database:
        keys = {what: f"mlps_{what.replace(' ', '-')}" for what in ("another organization", "revoked", "expired")}
        database.add_key(keys["another organization"], organization="another")
        database.add_key(keys["revoked"])
        database.revoke_key(keys["revoked"])
        database.add_key(keys["expired"], expires_at=now_ms() - 1)
        yield Target(server.url, server.api_key, keys)


def summary(verdicts: list[Verdict]) -> str:
    words = Counter(verdict.word for verdict in verdicts)
    better = Counter(verdict.row.better for verdict in verdicts if verdict.word == "better")
    counts = ", ".join(f"{words[word]} {word}" for word in ("same", "better", "differs", "not asked") if words[word])
    reasons = "; ".join(f"{count} {reason}" for reason, count in better.most_common())
    return f"{len(verdicts)} rows: {counts}" + (f" ({reasons})" if reasons else "")


def main() -> int:
    verdicts = []
    with target(os.environ) as asked:
        print(f"the contract, asked of {asked.url}")
        for row in ROWS:
            verdicts.append(judge(row, asked))
            print(verdicts[-1], flush=True)
    print(summary(verdicts))
    return int(any(verdict.word == "differs" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
