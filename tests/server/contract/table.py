"""All rows of the contract, and a report of the results of one tracker.

``python -m server.contract.table`` (run in tests/ by ``scripts/contract``) checks the tracker at
PLUTO_DIST_CONTRACT_URL with the key PLUTO_DIST_CONTRACT_KEY, and its service of heartbeats at PLUTO_DIST_CONTRACT_PY;
without them it starts an embedded tracker. With ``--closed-list`` it prints the table of the server's README.md.
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
from server.contract import fork_rows, query_rows, race_rows, requests_rows, status_rows, update_rows
from server.contract.row import Row, Verdict, check, closed_list
from server.contract.target import Target

ROWS: tuple[Row, ...] = (
    *requests_rows.ROWS,
    *fork_rows.ROWS,
    *race_rows.ROWS,
    *status_rows.ROWS,
    *update_rows.ROWS,
    *query_rows.ROWS,
)
URL, KEY, PY = "PLUTO_DIST_CONTRACT_URL", "PLUTO_DIST_CONTRACT_KEY", "PLUTO_DIST_CONTRACT_PY"


@contextmanager
def target(environ: Mapping[str, str]) -> Iterator[Target]:
    """The tracker that the environment variables name, or an embedded tracker."""
    if url := environ.get(URL):
        yield Target(url.rstrip("/"), environ[KEY], heartbeats=environ.get(PY, "").rstrip("/"))
        return
    with LocalServer() as server, target_of(server) as asked:
        yield asked


@contextmanager
def target_of(server: LocalServer) -> Iterator[Target]:
    """A server in this process, with further keys."""
    with closing(Database(server.db)) as database:
        keys = {name: f"mlps_{name.replace(' ', '-')}" for name in ("another organization", "revoked", "expired")}
        database.add_key(keys["another organization"], organization="another")
        database.add_key(keys["revoked"])
        database.revoke_key(keys["revoked"])
        database.add_key(keys["expired"], expires_at=now_ms() - 1)
        yield Target(server.url, server.api_key, keys, heartbeats=server.url)


def summary(verdicts: list[Verdict]) -> str:
    """One line with the number of rows of each outcome."""
    words = Counter(verdict.word for verdict in verdicts)
    better = Counter(verdict.row.better for verdict in verdicts if verdict.word == "better")
    counts = ", ".join(f"{words[word]} {word}" for word in ("same", "better", "differs", "skipped") if words[word])
    reasons = "; ".join(f"{count} {reason}" for reason, count in better.most_common())
    return f"{len(verdicts)} rows: {counts}" + (f" ({reasons})" if reasons else "")


def main() -> int:
    if sys.argv[1:] == ["--closed-list"]:
        print("\n".join(closed_list(ROWS)))
        return 0
    verdicts = []
    with target(os.environ) as tracker:
        print(f"the contract, checked at {tracker.url}")
        for row in ROWS:
            verdicts.append(check(row, tracker))
            print(verdicts[-1], flush=True)
    print(summary(verdicts))
    return int(any(verdict.word == "differs" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
