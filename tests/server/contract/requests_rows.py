"""Rows about single create requests: fields, bodies, API keys and paths."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

from server.contract.row import LIMIT, REASON, VALID, AnyOf, Better, Row
from server.contract.target import CREATE, Answer, Target, new_project, observed

RUN = Answer(200, "run")
FAILED = Answer(500, "A", "Failed to create run")
BROKEN = Answer(500, "A", "Internal Server Error")
NO_JSON = Answer(400, "A", "Invalid JSON format in request body")
MALFORMED = Answer(400, "A", "Malformed JSON in request body")


def A(text: str) -> Answer:  # noqa: N802  # the name of the shape
    return Answer(400, "A", text)


def C(text: str = "") -> Answer:  # noqa: N802
    return Answer(400, "C", text)


def new(
    name: str,
    fields: dict[str, Any],
    hosted: Any,
    embedded: Any = None,
    better: Better = "",
    *,
    lost: bool | None = None,
) -> Row:
    """A create request for a new run. ``lost``: whether a rejected request took a run number on the hosted tracker."""

    def observe(target: Target) -> Any:
        project = new_project()
        body = {"runName": "run", "projectName": project, **fields}
        found = observed(target.send(CREATE, body))
        if lost is None or body["projectName"] != project:
            return found
        return found, target.create_run(project)["number"]

    if lost is None:
        return Row("requests", name, observe, hosted, embedded, better)
    return Row("requests", name, observe, (hosted, 2), (embedded, 1), better)


def again(name: str, fields: dict[str, Any], hosted: Any, embedded: Any = None, better: Better = "") -> Row:
    """A create request with an existing external id; the stored run must not change."""

    def observe(target: Target) -> Any:
        project = new_project()
        first = target.create_run(project, "job", config='{"kept":1}', tags=["first"])
        answer = target.create(project, "job", **fields)
        found = target.details(first["runId"])
        unchanged = (found["name"], found["tags"], found["config"]) == ("run", ["first"], {"kept": 1})
        same = answer.status_code != 200 or (answer.json()["runId"], answer.json()["resumed"]) == (first["runId"], True)
        return observed(answer), unchanged, same

    return Row(
        "requests", f"resume: {name}", observe, (hosted, True, True), (embedded, True, True) if better else None, better
    )


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


NUL = r'{"a":"\u0000"}'
FIELDS = [
    new("new", {}, AnyOf("200, resumed false", lambda a: a.is_like(RUN) and '"resumed": false' in a.text)),
    new('externalId ""', {"externalId": ""}, C("String must contain at least 1 character(s)")),
    new("externalId null", {"externalId": None}, RUN),
    new("externalId a number", {"externalId": 7}, C("Expected string, received number")),
    new("externalId a blank", {"externalId": " "}, RUN),
    new("externalId of 255 characters", {"externalId": "x" * 255}, RUN),
    new("externalId of 255 emoji", {"externalId": "🚀" * 255}, RUN),
    new("externalId of 256 characters", {"externalId": "x" * 256}, FAILED, A("externalId"), REASON, lost=True),
    new("runName of 255 characters", {"runName": "n" * 255}, RUN),
    new("runName of 300 characters", {"runName": "n" * 300}, FAILED, A("runName"), REASON, lost=True),
    new("runName empty", {"runName": ""}, RUN),
    new("runName null", {"runName": None}, C("Expected string, received null")),
    new("projectName null", {"projectName": None}, C("Expected string, received null")),
    new("50 tags", {"tags": ["t"] * 50}, RUN),
    new("51 tags", {"tags": ["t"] * 51}, C("A run can have at most 50 tags")),
    new("tags a string", {"tags": "a"}, C("Expected array, received string")),
    new("tags with a number", {"tags": [1]}, C("Expected string, received number")),
    new("tags null", {"tags": None}, RUN),
    new("two group tags", {"tags": ["group:a", "group:b"]}, A("A run can have at most one group:* tag.")),
    new("one group tag twice", {"tags": ["group:a", "group:a"]}, A("A run can have at most one group:* tag.")),
    new("Group: is no group", {"tags": ["group:a", "Group:b"]}, RUN),
    new("config not JSON", {"config": "{"}, NO_JSON),
    new("systemMetadata not JSON", {"systemMetadata": "x"}, NO_JSON),
    new("loggerSettings not JSON", {"loggerSettings": "x"}, NO_JSON),
    new("config an object", {"config": {}}, C("Expected string, received object")),
    new("systemMetadata an object", {"systemMetadata": {}}, C("Expected string, received object")),
    new("systemMetadata an array", {"systemMetadata": "[1]"}, RUN),
    new("NUL in config", {"config": NUL}, FAILED, A("NUL"), REASON, lost=True),
    new("NUL in a key of config", {"config": r'{"\u0000":1}'}, FAILED, A("NUL"), REASON, lost=True),
    new("NUL in systemMetadata", {"systemMetadata": NUL}, FAILED, A("NUL"), REASON, lost=True),
    new("NUL in runName", {"runName": "a\0"}, FAILED, A("runName contains a NUL"), REASON),
    new("NUL in a tag", {"tags": ["a\0"]}, FAILED, A("tags[0] contains a NUL"), REASON),
    new("NUL in externalId", {"externalId": "a\0"}, BROKEN, A("externalId contains a NUL"), REASON),
    new("NUL in projectName", {"projectName": "a\0"}, BROKEN, A("projectName contains a NUL"), REASON),
    new("lone surrogate in config", {"config": r'{"a":"\ud800"}'}, FAILED, A("lone surrogate"), REASON),
    new("lone surrogate in runName", {"runName": "\ud800"}, FAILED, A("lone surrogate"), REASON),
    new("lone surrogate in externalId", {"externalId": "\ud800"}, BROKEN, A("lone surrogate"), REASON),
    new("NaN in config", {"config": '{"a":NaN}'}, NO_JSON),
    new("Infinity in config", {"config": '{"a":Infinity}'}, NO_JSON),
    new("NaN in systemMetadata", {"systemMetadata": "[NaN]"}, NO_JSON),
    new("config nested 123 deep", {"config": deep(123)}, RUN),
    new("config nested 124 deep", {"config": deep(124)}, FAILED, RUN, VALID),
    new("createdAt -1", {"createdAt": -1}, C()),
    new("createdAt 1.5", {"createdAt": 1.5}, C()),
    new("createdAt an ISO string", {"createdAt": "2026-01-01T00:00:00Z"}, C()),
    new("createdAt beyond any date", {"createdAt": 8640000000000001}, C()),
    new("createdAt 0", {"createdAt": 0}, RUN),
    new("createdAt 1700000000000.0", {"createdAt": 1700000000000.0}, RUN),
    new("createdAt at the end of 9999", {"createdAt": 253402300799999}, RUN),
    new("createdAt in the year 10000", {"createdAt": 253402300800000}, BROKEN, A("9999"), REASON),
    new("createdAt at the last date", {"createdAt": 8640000000000000}, BROKEN, A("9999"), REASON),
    new("unknown fields", {"colour": "blue"}, RUN),
    new("forkRunId without forkStep", {"forkRunId": 1}, A("forkStep is required when forkRunId is provided")),
    new("fork of a missing parent", {"forkRunId": 10**9, "forkStep": 1}, A("Fork parent run not found in this")),
    new("forkRunId 0", {"forkRunId": 0, "forkStep": 1}, RUN),
    new("forkStep without forkRunId", {"forkStep": 1}, RUN),
    new("forkRunId 1.5", {"forkRunId": 1.5, "forkStep": 1}, BROKEN, A("forkRunId"), REASON),
    new("forkStep 1.5", {"forkRunId": 1, "forkStep": 1.5}, BROKEN, A("forkStep"), REASON),
    new("forkRunId a string", {"forkRunId": "1", "forkStep": 1}, C("Expected number, received string")),
    new("project of 256 characters", {"projectName": "q" * 256}, BROKEN, A("projectName"), REASON),
    new("project whose prefix grows in upper case", {"projectName": "ﬃ ﬃ ﬃ ﬃ ﬃ"}, BROKEN, RUN, VALID),
    new(
        "systemMetadata of 100 MB", {"systemMetadata": '"' + "x" * 100_000_000 + '"'}, FAILED,
        Answer(413, "A"), LIMIT, lost=True,
    ),
    new(
        "a metadata key of 600 characters", {"systemMetadata": json.dumps({"k" * 600: 1})}, RUN,
    ),
]  # fmt: skip
RESUMES = [
    again("unchanged", {}, RUN),
    again("other runName and tags", {"runName": "other", "tags": ["z"]}, RUN),
    again("runName of 300 characters", {"runName": "n" * 300}, RUN),
    again("51 tags", {"tags": ["t"] * 51}, C("A run can have at most 50 tags")),
    again("two group tags", {"tags": ["group:a", "group:b"]}, A("A run can have at most one group:* tag.")),
    again("config not JSON", {"config": "{"}, BROKEN, NO_JSON, REASON),
    again("systemMetadata not JSON", {"systemMetadata": "x"}, RUN),
    again("loggerSettings not JSON", {"loggerSettings": "x"}, RUN),
    again("config an array", {"config": "[1]"}, RUN),
    again("NaN in config", {"config": "[NaN]"}, BROKEN, NO_JSON, REASON),
    again("NaN in systemMetadata", {"systemMetadata": "[NaN]"}, RUN),
    again("NUL in config", {"config": NUL}, RUN, A("NUL"), REASON),
    again("createdAt in the year 10000", {"createdAt": 253402300800000}, RUN),
    again("createdAt", {"createdAt": 5}, RUN),
    again("fork of a missing parent", {"forkRunId": 10**9, "forkStep": 1}, RUN),
    again("forkRunId without forkStep", {"forkRunId": 3}, RUN),
]


def body(name: str, content_type: str, raw: bytes, hosted: Any, embedded: Any = None, better: Better = "") -> Row:
    def observe(target: Target) -> Answer:
        return observed(target.send(CREATE, raw=raw, headers={"Content-Type": content_type}))

    return Row("requests", f"body: {name}", observe, hosted, embedded, better)


GOOD = b'{"runName":"r","projectName":"contract bodies"}'
JSON = "application/json"
BODIES = [
    body("empty", JSON, b"", MALFORMED),
    body("not JSON", JSON, b"{", MALFORMED),
    body("gzip", JSON, gzip.compress(GOOD), MALFORMED),
    body("NaN", JSON, b'{"createdAt":NaN}', MALFORMED),
    body("an array", JSON, b"[]", C("Expected object, received array")),
    body("no runName", JSON, b'{"projectName":"r"}', C("Required")),
    body("no projectName", JSON, b'{"runName":"r"}', C("Required")),
    body("no Content-Type", "", GOOD, BROKEN, A("Content-Type"), REASON),
    body("text/plain", "text/plain", GOOD, BROKEN, A("Content-Type"), REASON),
    body("charset", "application/json; charset=utf-8", GOOD, RUN),
    body("vnd.api+json", "application/vnd.api+json", GOOD, RUN),
]
PLAIN, UNKNOWN = Answer(401, "A", '{"error": "Unauthorized"}'), Answer(401, "B", "Key not found")


def auth(name: str, header: str, hosted: Answer, *, content: bytes = GOOD, needs: str = "") -> Row:
    """``KEY`` in the header is replaced by the target's key, ``{needs}`` by the key that the row needs."""

    def observe(target: Target) -> Answer:
        value = header.replace("KEY", target.key).replace("{needs}", target.keys.get(needs, ""))
        return observed(target.send(CREATE, key="", raw=content, headers={"Authorization": value}))

    return Row("requests", f"auth: {name}", observe, hosted, needs=needs)


AUTH = [
    auth("no key", "", PLAIN),
    auth("Bearer and nothing", "Bearer ", PLAIN),
    auth("key without scheme", "KEY", PLAIN),
    auth("two blanks", "Bearer  KEY", PLAIN),
    auth("wrong mlps_ key", "Bearer mlps_wrong", UNKNOWN),
    auth("wrong mlpi_ key", "Bearer mlpi_wrong", UNKNOWN),
    auth("wrong prefix", "Bearer sk-123", Answer(401, "B", "Invalid API key")),
    auth("revoked", "Bearer {needs}", Answer(401, "B", "API key has been revoked"), needs="revoked"),
    auth("expired", "Bearer {needs}", Answer(401, "B", "API key has expired"), needs="expired"),
    auth("Basic", "Basic KEY", RUN),
    auth("bearer", "bearer KEY", RUN),
    auth("bad key and bad body", "Bearer mlps_wrong", UNKNOWN, content=b"{"),
]


def path(name: str, method: str, location: str, hosted: Answer) -> Row:
    return Row("requests", name, lambda target: observed(target.send(location, method=method, raw=GOOD)), hosted)


PATHS = [
    path("GET create is a sqid", "GET", CREATE, Answer(200, "ok", '{"runId": 642064977}')),
    path("PUT create", "PUT", CREATE, Answer(404, "text", "404 Not Found")),
    path("POST create/", "POST", f"{CREATE}/", Answer(404, "text", "404 Not Found")),
]


def _other_project(target: Target) -> Any:
    one, two = new_project(), new_project()
    first, second = target.create_run(one, "job"), target.create_run(two, "job")
    return second["resumed"], first["runId"] != second["runId"]


def _other_organization(target: Target) -> Any:
    project = new_project()
    first = target.create_run(project, "job")
    fields = {"runName": "run", "projectName": project, "externalId": "job"}
    second = target.send(CREATE, fields, key=target.keys["another organization"]).json()
    return second["resumed"], first["runId"] != second["runId"]


def _exact_ids(target: Target) -> int:
    project = new_project()
    return len({target.create_run(project, each)["runId"] for each in ("x1", "X1", "x1 ")})


def _unicode(target: Target) -> Any:
    project, name, tag, external_id = new_project() + " Ω日", "Ω/ü 🚀", "é", "日本"
    run = target.create_run(project, external_id, runName=name, tags=[tag])
    found = target.details(run["runId"])
    return (found["name"], found["tags"], found["projectName"]) == (name, [tag], project)


def _normal_forms(target: Target) -> int:
    project = new_project()
    return len({target.create_run(project + each, "job")["runId"] for each in ("\u00e9", "e\u0301")})


def _slash(target: Target) -> bool:
    project = f"{new_project()}/a"
    return bool(quote(project, safe="") in target.create_run(project)["url"])


def _prefix(name: str) -> Row:
    def observe(target: Target) -> str:
        return str(target.create_run(name)["displayId"]).partition("-")[0]

    return Row("requests", f"project {name!r} has prefix RUN", observe, "RUN")


def _metadata(megabytes: int) -> Row:
    def observe(target: Target) -> bool:
        document = {"blob": "x" * (megabytes * 1_000_000)}
        run = target.create_run(new_project(), systemMetadata=json.dumps(document))
        return bool(target.details(run["runId"])["systemMetadata"] == document)

    return Row("requests", f"systemMetadata of {megabytes} MB is readable in details", observe, True)


def _many_keys(count: int) -> Row:
    def observe(target: Target) -> int:
        run = target.create_run(new_project(), systemMetadata=json.dumps({f"key{n}": n for n in range(count)}))
        return len(target.details(run["runId"])["systemMetadata"])

    return Row("requests", f"{count} flat metadata keys are stored", observe, count)


def _many_hosts(target: Target) -> int:
    hosts = [{"host": f"node-{n:03}", "gpus": [{"uuid": f"GPU-{n}-{g}"} for g in range(8)]} for n in range(128)]
    run = target.create_run(new_project(), systemMetadata=json.dumps({"hosts": hosts}))
    return len(target.details(run["runId"])["systemMetadata"]["hosts"])


def _created_at(target: Target) -> str:
    return str(target.details(target.create_run(new_project(), createdAt=1700000000123)["runId"])["createdAt"])


def _no_number_for_bad_json(target: Target) -> int:
    project = new_project()
    target.create(project, config="{")
    return int(target.create_run(project)["number"])


def _no_project_for_two_groups(target: Target) -> Any:
    project = new_project()
    target.create(project, tags=["group:a", "group:b"])
    return target.create_run(project)["number"]


def _repeated_tags(target: Target) -> Any:
    return target.details(target.create_run(new_project(), tags=["a", "a", ""])["runId"])["tags"]


def _project_255(target: Target) -> Answer:
    return observed(target.create((new_project() + "q" * 255)[:255]))


OTHERS = [
    Row("requests", "same externalId in another project", _other_project, (False, True)),
    Row(
        "requests", "same externalId in another organization", _other_organization, (False, True),
        needs="another organization",
    ),
    Row("requests", "externalIds differ by case and blanks", _exact_ids, 3),
    Row("requests", "unicode round-trips", _unicode, True),
    Row("requests", "NFC and NFD project names are two projects", _normal_forms, 2),
    Row("requests", "a slash is %2F in url", _slash, True),
    Row("requests", "project of 255 characters", _project_255, RUN),
    *(_prefix(name) for name in ("", " ", "---")),
    *(_metadata(megabytes) for megabytes in (1, 5, 20)),
    *(_many_keys(count) for count in (4000, 40000)),
    Row("requests", "128 hosts of 8 GPUs in metadata", _many_hosts, 128),
    Row("requests", "createdAt keeps milliseconds", _created_at, "2023-11-14T22:13:20.123Z"),
    Row("requests", "invalid JSON takes no run number", _no_number_for_bad_json, 1),
    Row("requests", "two group tags create no project", _no_project_for_two_groups, 1),
    Row("requests", "tags are stored unchanged", _repeated_tags, ["a", "a", ""]),
]  # fmt: skip
ROWS = [*FIELDS, *RESUMES, *BODIES, *AUTH, *PATHS, *OTHERS]
