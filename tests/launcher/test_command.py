"""What `pluto-dist run` starts: torchrun's own command line, with the script inside our runner."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner
from torch.distributed.run import get_args_parser
from torch.distributed.run import parse_args as torchruns_own

from pluto_dist.cli import main
from pluto_dist.cli.run import run as run_command
from pluto_dist.launcher.command import parse, why_not_wrapped, wrapped

# Every option of this torch's torchrun, as its parser has it.
OPTIONS = {
    action.option_strings[-1]: action
    for action in get_args_parser()._actions
    if action.option_strings and action.dest not in ("help", "print_completion")  # these print, and end
}
VALUES = {"--nnodes": "1:2", "--rdzv-conf": "timeout=3", "--nproc-per-node": "2", "--redirects": "3", "--tee": "3"}


def with_value(option: str) -> list[str]:
    """The option as a user would type it."""
    action = OPTIONS[option]
    if action.nargs == 0:
        return [option]
    known = next((VALUES[name] for name in action.option_strings if name in VALUES), None)
    choices = list(action.choices or ())
    return [option, known or (str(choices[0]) if choices else "3")]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_torchrun_passes_through(option):
    """What torchrun makes of its option is what we start; only the script is another, and the script's own arguments
    go with it."""
    typed = [*with_value(option), "train.py", "--project", "x", option]
    asked = parse(typed)
    assert vars(asked) == vars(torchruns_own(typed))
    if why_not_wrapped(asked):
        assert wrapped(asked, ["--offline"]) is asked
        return
    started = vars(wrapped(asked, ["--offline"]))
    changed = {name: value for name, value in started.items() if value != vars(asked)[name]}
    script = ["-m", "train.py"] if asked.module else ["--", "train.py"]
    expected = {"training_script_args": ["--offline", *script, "--project", "x", option]}
    assert changed.pop("training_script") == "pluto_dist"
    assert changed.pop("module", True) is True
    assert changed == expected


@pytest.mark.parametrize("option", OPTIONS)
def test_our_command_line_hands_torchruns_options_on(option):
    """After our own options, torchrun's go on as they were typed, `--opt value` and `--opt=value` alike."""
    typed = with_value(option)
    for form in (typed, ["=".join(typed)]):
        if option.startswith("--") or len(form) == 2 or len(typed) == 1:
            done = CliRunner().invoke(main, ["run", "--dry-run", "--project=p", *form, "train.py", "--name", "n"])
            assert done.exit_code == 0, done.output
            assert shlex.join([*form, "train.py", "--name", "n"]) in done.output


def test_our_options_are_none_of_torchruns():
    """No option of ours takes one of torchrun's away."""
    ours = {name for parameter in run_command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    theirs = {name for action in get_args_parser()._actions for name in action.option_strings}
    assert ours & theirs <= {"-h", "--help"}


@pytest.mark.parametrize(
    ("typed", "told"), [(["--no-python", "sh"], "python -m pluto_dist"), (["--run-path", "x.py"], "--run-path")]
)
def test_what_cannot_be_wrapped_is_said(typed, told):
    """What starts no Python script of its own is left as it is, and the user hears how to do it."""
    done = CliRunner().invoke(main, ["run", "--dry-run", *typed])
    assert done.exit_code == 0
    assert told in done.output


@pytest.mark.parametrize(
    ("typed", "told"),
    [([], "name a script"), (["--config", "x", "s.py"], "--config takes"), (["--project", "", "s.py"], "project")],
)
def test_a_wrong_command_line_starts_nothing(typed, told):
    """Usage errors are told before anything runs, with exit code 2."""
    done = CliRunner().invoke(main, ["run", *typed])
    assert done.exit_code == 2
    assert told in done.output
