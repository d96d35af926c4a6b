"""Secrets are removed, by their names and by their formats."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.inventory import redaction

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
NAMED = ("token", "key", "secret", "password", "passwd", "auth", "credential")
# A secret that a person chose; "=" and similar characters end a value within a text.
SECRETS = st.text(string.ascii_letters + string.digits + "!#$%^*()_+./?|~-", min_size=6).filter(
    lambda text: not text.startswith("-") and not text.replace(".", "").replace("_", "").isdigit()
)
USERS = st.text(string.ascii_letters + string.digits + "._-@%", max_size=12)
AFFIXES = st.text(string.ascii_lowercase + "-_", max_size=6)


@pytest.mark.parametrize(
    ("words", "redacted"),
    [
        (("train.py", "--lr", "1e-3"), ("train.py", "--lr", "1e-3")),
        (("--api-key", "s3cr3t", "--lr", "1"), ("--api-key", "***", "--lr", "1")),
        (("--api-key=s3cr3t",), ("--api-key=***",)),
        (("--hf_token", "s3cr3t"), ("--hf_token", "***")),
        (("-token", "s3cr3t"), ("-token", "***")),
        (("--token", "--password", "s3cr3t"), ("--token", "--password", "***")),
        (("--db-password", "-s3cr3t"), ("--db-password", "***")),
        (("--wandb.passwd", "s3cr3t"), ("--wandb.passwd", "***")),
        (("--basic-auth", "me:s3cr3t"), ("--basic-auth", "***")),
        (("--credentials", "/k.json"), ("--credentials", "***")),
        (("WANDB_API_KEY=s3cr3t", "python"), ("WANDB_API_KEY=***", "python")),
        (("env.HF_TOKEN=s3cr3t", "model.lr=1"), ("env.HF_TOKEN=***", "model.lr=1")),
        (("+db.password='s3 cr3t'",), ("+db.password=***",)),
        (("-c", "import x; x.login(token='s3cr3t', lr=1)"), ("-c", "import x; x.login(token=***, lr=1)")),
        (('{"api_key": "s3 cr3t", "lr": 1}',), ('{"api_key": ***, "lr": 1}',)),
        (("--url", "https://me:s3cr3t@h/p"), ("--url", "https://***@h/p")),
        (("--url=postgresql+psycopg://me:s3/cr@3t@h:5432/db",), ("--url=postgresql+psycopg://***@h:5432/db",)),
        (("git+https://s3cr3t@github.com/o/r@main",), ("git+https://***@github.com/o/r@main",)),
        (("https://h/x?lr=1&access_token=s3cr3t&b=2",), ("https://h/x?lr=1&access_token=***&b=2",)),
        (("-H", "Authorization: Basic bWU6czNjcjN0"), ("-H", "Authorization: ***")),
        (("-H", "X-Auth: s3cr3t"), ("-H", "X-Auth: ***")),
        (("say Bearer abc.def-ghi",), ("say Bearer ***",)),
        # Harmless values with similar names.
        (("--tokenizer", "gpt2", "--tokenizer=gpt2"), ("--tokenizer", "gpt2", "--tokenizer=gpt2")),
        (("--max-tokens", "512", "--num_key_value_heads=8"), ("--max-tokens", "512", "--num_key_value_heads=8")),
        (("--author", "me", "--monkey", "7"), ("--author", "me", "--monkey", "7")),
        (("--keyframe=3", "--seq-len", "4"), ("--keyframe=3", "--seq-len", "4")),
        (("user@host:path", "a@b.c", "/data/x@2"), ("user@host:path", "a@b.c", "/data/x@2")),
        (("--max-tokens", "s3cr3t"), ("--max-tokens", "***")),
        (("a\x00b",), ("ab",)),
        ((), ()),
    ],
)
def test_command_lines(words, redacted):
    """Each form of a secret in a command line, and harmless words of the same form."""
    assert redaction.argv(words) == redacted


@pytest.mark.parametrize(
    "key",
    [
        "mlps_abcdefghijklmnop",
        "mlpi_abcdefghijklmnop",
        "hf_AbCdEfGhIjKlMnOpQrStUvWx",
        "sk-proj-abcdefghijklmnop",
        "sk-ant-api03-abcdefgh",
        "sk_live_abcdefgh",
        "ghp_abcdefghijklmnopqrst",
        "github_pat_11ABC_def",
        "glpat-abcdefghijklmnopqrst",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "AIzaSyA1234567890abcdefghijklm",
        "ya29.a0AfH6SM",
        "xoxb-123-abc",
        JWT,
    ],
)
@pytest.mark.parametrize("around", ["{}", "--x={}", "see {}, please", "'{}'", "/home/{}/x", "a:{}"])
def test_tokens_are_recognized_by_their_format(key, around):
    """A token of a known service is removed from any text."""
    redacted = redaction.text(around.format(key))

    assert "***" in redacted and key[-8:] not in redacted


@given(AFFIXES, st.sampled_from(NAMED), AFFIXES, SECRETS, st.sampled_from(["--{}|{}", "--{}={}", "{}={}"]))
def test_values_of_secret_names(before, name, after, secret, form):
    """The value of an option or a variable is removed, whatever surrounds the word in its name."""
    spelt = f"{before}{name}{after}".strip("-")
    if redaction.is_secret_name(spelt):  # not "tokenizer" and others, which are in the table
        words = form.format(spelt, secret).split("|", 1) if "|" in form else [form.format(spelt, secret)]
        assert secret not in " ".join(redaction.argv(["x", *words, "y"])).replace(spelt, "")


@given(st.sampled_from(["http", "ssh", "socks5h", "postgresql", "s3"]), USERS, SECRETS, st.text(max_size=5))
def test_user_and_password_in_urls(scheme, user, password, before):
    """They are removed from a URL of any scheme, anywhere in a text."""
    redacted = redaction.text(f"{before} {scheme}://{user}:{password}@host.example/path")

    assert redacted.endswith(f"{scheme}://***@host.example/path")


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)))))
def test_any_command_line(words):
    """The result has as many words, without NUL."""
    redacted = redaction.argv(words)

    assert len(redacted) == len(words) and "\x00" not in "".join(redacted)


def test_long_texts_are_fast():
    """Neither a long word nor many near-secrets make redaction slow: its patterns do not backtrack far."""
    for text in (
        "a" * 10**6,
        "key" * 10**5,
        "://" * 10**5,
        "x=" * 10**5,
        "eyJ" * 10**5,
        "token.-" * 10**5,
        "@:" * 10**5,
    ):
        assert len(redaction.text(text)) <= 2 * redaction.TEXT_LIMIT


def test_the_environment_by_allowlist():
    """The variables of CUDA, NCCL and torch are kept, except for secrets; all others are removed."""
    environ = {
        "NCCL_DEBUG": "INFO",
        "NCCL_FOO_TOKEN": "s3cr3t",
        "CUDA_VISIBLE_DEVICES": "GPU-5fd4f087,MIG-1",
        "TORCH_SECRET": "s3cr3t",
        "TORCH_HOME": "s3://me:s3cr3t@bucket/x",
        "TORCHELASTIC_RUN_ID": "none",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "OMP_NUM_THREADS": "8",
        "OMP_NUM_THREADS_SECRET": "s3cr3t",
        "FI_PROVIDER": "efa\x00",
        "UCX_TLS": "é" * 200,
        "HTTPS_PROXY": "http://me:s3cr3t@proxy",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "PLUTO_API_KEY": "mlps_s3cr3t",
        "HOME": "/root",
        "MY_NCCL_DEBUG": "x",
    }

    assert redaction.environment(environ, ("CUDA_",)) == {
        "CUDA_VISIBLE_DEVICES": "GPU-5fd4f087,MIG-1",
        "FI_PROVIDER": "efa",
        "NCCL_DEBUG": "INFO",
        "OMP_NUM_THREADS": "8",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCH_HOME": "s3://***@bucket/x",
        "UCX_TLS": "é" * 128,
    }


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=300)))
def test_any_environment(environ):
    """The result has only listed variables, and no value above 256 bytes."""
    prefixed = {f"NCCL_{name}": value for name, value in environ.items()}
    redacted = redaction.environment({**environ, **prefixed})

    assert all(redaction.ALLOWED.fullmatch(name) for name in redacted)
    assert all(len(value.encode()) <= 256 and "\x00" not in value for value in redacted.values())


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://me:s3cr3t@github.com/o/r.git", "https://github.com/o/r.git"),
        ("https://s3cr3t@github.com:8443/o/r.git?token=s3cr3t#s3cr3t", "https://github.com:8443/o/r.git"),
        ("https://ghp_s3cr3ts3cr3ts3cr3t@github.com/o/r.git", "https://github.com/o/r.git"),
        ("https://me:s3@cr3t@h/o", "https://h/o"),
        ("ssh://git@h:2222/o/r.git", "ssh://h:2222/o/r.git"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ("me@h:o/r.git", None),
        ("/srv/git/r.git", None),
        ("../r.git", None),
        ("file:///srv/r.git", None),
        ("ext::sh -c s3cr3t", None),
        ("git@h:o r", None),
        ("https://", None),
        ("https://h:port/x", None),
        ("https://[::1/x", None),
        ("", None),
    ],
)
def test_remotes(remote, url):
    """Only a URL that the UI's ``new URL`` accepts, without password."""
    assert redaction.url(remote) == url


def test_a_child_inherits_no_secret():
    """Git does not inherit variables with a secret's name; it inherits all others."""
    environ = {"PATH": "/bin", "PLUTO_API_KEY": "x", "MLOP_API_TOKEN": "x", "HF_TOKEN": "x", "HOME": "/root"}

    assert redaction.without_secrets(environ) == {"PATH": "/bin", "HOME": "/root"}
