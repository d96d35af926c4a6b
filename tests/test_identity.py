"""The identity of a run: the table of launches, and the facts that must never influence the decision."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.contract.run_ref import Reference, reference
from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import NoStableIdError
from pluto_dist.identity import TOKEN, Named, NeedsLaunchToken, decide, slug

UUID = "cc9f1e1c-3a4b-4a53-9d2e-0d5f0f4f6a10"
UUID_AS_INT = "271920368236409116923454098231104537824"
WORLD = Topology(rank=0, world_size=4, local_rank=0, local_world_size=2, node_rank=0, node_count=2)


def launch(launcher: str = "torchrun", **facts: object) -> LaunchContext:
    return LaunchContext(launcher=launcher, topology=WORLD, **facts)  # type: ignore[arg-type]


LAUNCHES = {
    "torchrun, 123": launch(rendezvous_id="123"),
    "torchrun, a name": launch(rendezvous_id="my job/7"),
    "torchrun, unicode": launch(rendezvous_id="作業"),
    "torchrun, uuid": launch(rendezvous_id=UUID, rendezvous_is_random=True),
    "torchrun, uuid as int": launch(rendezvous_id=UUID_AS_INT, rendezvous_is_random=True),
    "torchrun, dropped id": launch(rendezvous_id=UUID, rendezvous_is_random=True, chosen_id="nightly"),
    "torchrun, none": launch(),
    "torchrun, none, dropped id": launch(chosen_id="nightly"),
    "process group": launch("process_group"),
    "environment": launch("environment"),
    "single": launch("single"),
}
PREFIXES = {
    "torchrun, 123": "torchrun-123",
    "torchrun, a name": "torchrun-my-job-7",
    "torchrun, unicode": "torchrun-x",
    "torchrun, uuid": "torchrun-cc9f1e1c",
    "torchrun, uuid as int": "torchrun-27192036",
    "torchrun, dropped id": "torchrun-nightly",
    "torchrun, none": "torchrun",
    "torchrun, none, dropped id": "torchrun-nightly",
    "process group": "process-group",
    "environment": "environment",
    "single": "single",
}
STABLE = {
    "torchrun, 123",
    "torchrun, a name",
    "torchrun, unicode",
    "torchrun, dropped id",
    "torchrun, none, dropped id",
}


@pytest.mark.parametrize("resume", [None, False])
@pytest.mark.parametrize("name", LAUNCHES)
def test_a_new_launch_is_a_new_run(name, resume):
    """Without run_id and resume, every launch needs a token of its own; its rendezvous id only decorates it."""
    decision = decide(LAUNCHES[name], resume=resume)

    assert isinstance(decision, NeedsLaunchToken)
    assert decision.prefix == PREFIXES[name]
    assert "fresh id" in decision.source or "token of this launch" in decision.source


@pytest.mark.parametrize("name", LAUNCHES)
def test_resume_needs_what_names_the_job(name):
    """resume=True names the run by the id that the user chose; without one, the error says what to set."""
    if name in STABLE:
        decision = decide(LAUNCHES[name], resume=True)
        assert isinstance(decision, Named)
        assert re.fullmatch(re.escape(PREFIXES[name]) + "-[0-9a-f]{16}", decision.reference.value)
        assert decision.reference.kind == "external id"
        return
    with pytest.raises(NoStableIdError, match="PLUTO_RUN_ID"):
        decide(LAUNCHES[name], resume=True)


@pytest.mark.parametrize("resume", [None, True, False])
@pytest.mark.parametrize("name", LAUNCHES)
@pytest.mark.parametrize(
    ("run_id", "kind"),
    [("ablation-7", "external id"), ("123", "number"), ("MMP-12", "display id"), (" x ", "external id")],
)
def test_run_id_is_used_verbatim(name, resume, run_id, kind):
    """The user's own id wins over every fact of the launch, and is not changed."""
    decision = decide(LAUNCHES[name], run_id=run_id, resume=resume)
    assert decision == Named(Reference(kind, run_id), "run_id (argument or PLUTO_RUN_ID), used verbatim", "run_id")


@pytest.mark.parametrize("seen", ["no rendezvous id was given", "looks random"])
def test_the_error_has_what_was_seen(seen):
    """The message of resume without a stable id says why the rendezvous id is not enough."""
    context = launch() if seen == "no rendezvous id was given" else LAUNCHES["torchrun, uuid"]
    with pytest.raises(NoStableIdError, match=seen):
        decide(context, resume=True)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)  # surrogates and control characters too
RENDEZVOUS_IDS = st.one_of(
    ANY_TEXT.filter(lambda text: text.strip() not in ("", "none")),
    st.integers(0, 10**6).map(str),
    st.sampled_from(["MMP-12", "x" * 10_000, "-", "\x00", "\ud800", "作業" * 100, "A", "none ", "0", "\x1b[31m", "\n"]),
)
RANDOM_IDS = st.one_of(st.uuids(version=4).map(str), st.uuids(version=4).map(lambda u: str(u.int)))
CONTEXTS = st.one_of(
    RENDEZVOUS_IDS.map(lambda name: launch(rendezvous_id=name)),
    RENDEZVOUS_IDS.map(lambda name: launch(chosen_id=name)),
    RANDOM_IDS.map(lambda name: launch(rendezvous_id=name, rendezvous_is_random=True)),
    st.builds(
        lambda name, chosen: launch(rendezvous_id=name, rendezvous_is_random=True, chosen_id=chosen),
        RANDOM_IDS,
        RENDEZVOUS_IDS,
    ),
    st.sampled_from(["torchrun", "process_group", "environment", "single"]).map(launch),
)
TOKENS = st.from_regex(TOKEN, fullmatch=True)


def outcome(context: LaunchContext, resume: bool | None) -> object:
    try:
        return decide(context, resume=resume)
    except NoStableIdError as error:
        return str(error)


@given(
    context=CONTEXTS,
    resume=st.sampled_from([None, True, False]),
    topology=st.builds(
        Topology,
        rank=st.integers(0, 99_999),
        world_size=st.integers(100_000, 200_000),
        local_rank=st.none() | st.integers(0, 7),
        local_world_size=st.none() | st.integers(8, 16),
        node_rank=st.integers(0, 9999),
        node_count=st.none() | st.integers(10_000, 20_000),
    ),
    host=st.sampled_from(["node-a", "10.0.0.7"]),
    port=st.integers(1, 65_535),
    restart_count=st.none() | st.integers(0, 99),
    max_restarts=st.none() | st.integers(0, 99),
)
def test_what_differs_between_ranks_never_decides(context, resume, topology, host, port, restart_count, max_restarts):
    """Rank, host, port, folder, restart count, local rank and world size never influence the decision."""
    elsewhere = replace(
        context,
        topology=topology,
        store_address=(host, port),
        attempt_folder=f"/{host}/attempt_{restart_count}",
        restart_count=restart_count,
        max_restarts=max_restarts,
    )
    assert outcome(context, resume) == outcome(elsewhere, resume)


@given(context=CONTEXTS, resume=st.sampled_from([None, True, False]))
def test_equal_facts_give_equal_decisions(context, resume):
    """Deciding has no memory and no clock."""
    assert outcome(context, resume) == outcome(replace(context), resume)


def assert_is_a_good_generated_id(external_id: str) -> None:
    assert re.match(r"[a-z]+-", external_id), external_id
    assert external_id.isascii()
    assert external_id.isprintable()
    assert " " not in external_id
    assert len(external_id) <= 255
    assert not external_id.isdigit()
    assert reference(external_id) == Reference("external id", external_id)


@given(context=CONTEXTS, token=TOKENS, nth=st.integers(1, 10**9))
def test_generated_ids_of_a_launch(context, token, nth):
    """Starts with a lower-case word, printable, at most 255 characters, never like a number or a display id."""
    decision = decide(context)
    assert isinstance(decision, NeedsLaunchToken)
    assert_is_a_good_generated_id(decision.external_id(token, nth))
    assert decision.source.isprintable()


@given(chosen=RENDEZVOUS_IDS)
def test_generated_ids_of_a_resumed_job(chosen):
    """The same shape for ids that come from the user's rendezvous id alone."""
    decision = decide(launch(rendezvous_id=chosen), resume=True)
    assert isinstance(decision, Named)
    assert_is_a_good_generated_id(decision.reference.value)
    assert decision.source.isprintable()


@given(context=CONTEXTS, tokens=st.lists(TOKENS, min_size=2, max_size=2, unique=True), nth=st.integers(1, 99))
def test_launches_never_share_a_generated_id(context, tokens, nth):
    """Two launches with the same rendezvous id are two runs, and so are two runs of one launch."""
    decision = decide(context)
    assert isinstance(decision, NeedsLaunchToken)
    ids = {decision.external_id(token, n) for token in tokens for n in (nth, nth + 1)}
    assert len(ids) == 4


@given(one=RENDEZVOUS_IDS, other=RENDEZVOUS_IDS)
def test_different_ids_are_different_jobs(one, other):
    """Under resume=True two ids name one run only if they are equal."""
    first, second = (decide(launch(rendezvous_id=name), resume=True) for name in (one, other))
    assert (first == second) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a b"),
        ("作業", "実験"),
        ("x" * 48, "x" * 49),
        ("a", "A"),
        ("job", "job-"),
        ("\ud800", "\ud801"),
        ("e\u0301", "é"),
    ],
)
def test_ids_with_the_same_slug_stay_apart(one, other):
    """The slug is for readers; the digest of the whole id separates jobs."""
    first, second = (decide(launch(rendezvous_id=name), resume=True) for name in (one, other))
    assert isinstance(first, Named)
    assert isinstance(second, Named)
    assert first.reference != second.reference


@given(text=ANY_TEXT)
def test_slugs_are_plain(text):
    """A slug holds letters, digits, dots, underscores and inner dashes, is short and never empty."""
    assert re.fullmatch(r"[A-Za-z0-9._]([A-Za-z0-9._-]{0,46}[A-Za-z0-9._])?", slug(text))


def as_the_sdk_reads(run_id: str) -> str:
    """The official SDK's rule: str.isdigit() is the tracker's number, [A-Z0-9]{1,4}-[0-9]+ a display id."""
    if run_id.isdigit():
        return "number"
    return "display id" if re.fullmatch(r"[A-Z0-9]{1,4}-\d+", run_id) else "external id"


@given(run_id=st.one_of(st.text(st.characters(codec="ascii"), min_size=1), st.from_regex(r"[A-Z0-9]{1,5}-[0-9a]{1,4}")))
def test_ids_mean_what_they_mean_in_the_sdk(run_id):
    """For ASCII, an id is a number, a display id or an external id exactly as the official SDK has it."""
    if not run_id.endswith("\n"):  # the SDK's $ lets one pass; a display id never ends so
        assert reference(run_id).kind == as_the_sdk_reads(run_id)
    assert reference(run_id).value == run_id


@pytest.mark.parametrize(
    "run_id",
    [
        "\u0661\u0662\u0663",
        "\uff11\uff12",
        "²",
        "MMP-\u0661\u0662",
        "①",
        "MMP-\uff11\uff12",
        "12\n",
        "MMP-12\n",
        "",
        "-1",
        "+1",
        "1_0",
    ],
)
def test_only_plain_digits_are_a_number(run_id):
    """Digits of other scripts are an external id: the SDK's int() accepts some of them and fails on others."""
    assert reference(run_id) == Reference("external id", run_id)
