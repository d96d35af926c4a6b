"""``python -m pluto_dist``: its options, which ``pluto-dist run`` has too, as arguments of ``init()``."""

from __future__ import annotations

import ast
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from pluto_dist.cli.examples import examples
from pluto_dist.contract.validation import merged
from pluto_dist.errors import ConfigurationError
from pluto_dist.launcher import script as runner
from pluto_dist.serialization.source import read_mapping
from pluto_dist.settings.arguments import Arguments, resolve
from pluto_dist.version import __version__

PROGRAM = "python -m pluto_dist"

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--project", metavar="NAME", help="Project of the run; made where it does not exist."),
    click.option("--name", metavar="NAME", help="Name of the run."),
    click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag of the run. Repeatable."),
    click.option(
        "--config",
        "configs",
        metavar="FILE|KEY=VALUE",
        multiple=True,
        help="A .json or .yaml file, or one value, as in `optim.lr=0.1`: JSON or a Python literal, else text. "
        "Repeatable; later ones win.",
    ),
    click.option("--run-id", metavar="ID", help="External id of the run, verbatim; or the number of one, or DIG-7."),
    click.option("--resume/--no-resume", default=None, help="Go on with the run of an earlier launch of this job."),
    click.option("--offline", is_flag=True, help="Ask no tracker."),
)


def run_options(command: F) -> F:
    """Adds the options that become arguments of ``init()`` by :func:`init_arguments`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def init_arguments(**options: Any) -> dict[str, Any]:
    """The options of :func:`run_options` as arguments of ``init()``; pure, except that config files are read.

    >>> init_arguments(tags=["cpu"], configs=["optim.lr=1e-3", "optim.name=adam"], resume=False)
    {'tags': ['cpu'], 'config': {'optim': {'lr': 0.001, 'name': 'adam'}}, 'resume': False}

    Raises:
        ConfigurationError: lists all that is wrong with them.
    """
    given = {
        "project": options.get("project"),
        "name": options.get("name"),
        "tags": list(options.get("tags", ())) or None,
        "config": _config(options.get("configs", ())) or None,
        "run_id": options.get("run_id"),
        "resume": options.get("resume"),
        "mode": "offline" if options.get("offline") else None,
    }
    arguments = {argument: value for argument, value in given.items() if value is not None}
    resolve(Arguments(**arguments), {})
    return arguments


def _config(texts: Iterable[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for text in texts:
        key, is_value, value = text.partition("=")
        if is_value and "/" not in key:  # a slash before the = is one of a path
            update: Any = _value(value)
            for name in reversed(key.split(".")):
                if not name:
                    raise ConfigurationError(f"--config needs a KEY before the =; it is {text[:100]!r}")
                update = {name: update}
        elif text.lower().endswith((".json", ".yaml", ".yml")):
            update, _ = read_mapping(text, "--config")
        else:
            raise ConfigurationError(
                f"--config takes the path of a .json, .yaml or .yml file, or KEY=VALUE; it is {text[:100]!r}"
            )
        config = merged(config, update)
    return config


def _value(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a text need not be Python
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
    return text


class _Command(click.Command):
    """Shows both ways to start it in its usage."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        formatter.write_usage("torchrun [TORCHRUN OPTIONS] -m pluto_dist", "[OPTIONS] SCRIPT [ARGS]...")
        formatter.write_usage("torchrun [TORCHRUN OPTIONS] -m pluto_dist", "[OPTIONS] -m MODULE [ARGS]...", "       ")


@click.command(
    cls=_Command,
    context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False},
    epilog=examples(
        "torchrun --nproc-per-node=8 -m pluto_dist --project digits train.py --lr 0.1",
        "torchrun --nproc-per-node=8 -m pluto_dist --tag ddp -m package.train",
    ),
)
@click.option("--local_rank", hidden=True)  # deepspeed puts it before the script
@click.option("--local-rank", "dashed", hidden=True)  # and torch.distributed.launch
@click.option("-m", "is_module", is_flag=True, help="Run a module, as python -m does.")
@run_options
@click.argument("script", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SCRIPT")
@click.version_option(__version__, prog_name=PROGRAM)
def wrap(*, is_module: bool, script: tuple[str, ...], **options: Any) -> tuple[runner.Target, dict[str, Any]]:
    """Run a Python script whose ranks all are in one run of the tracker.

    Calls pluto_dist.init() before the script's first line, and puts what the script dies of into the run and into
    torchrun's report. All else is as if the script had been started directly; what follows it on the command line is
    its own. A script that calls init() itself opens the run there: these options win over the same arguments of that
    call, config and tags are merged. Else trouble with the tracker is a warning, and the script runs.

    Where torchrun starts no Python (--no-python), let the command itself wrap the script: torchrun --no-python sh -c
    'python -m pluto_dist train.py'. Variables that `import torch` reads, such as OMP_NUM_THREADS, must be set outside
    of the script: torch has been imported before it.
    """
    name, *arguments = script
    given = {"--local_rank": options.pop("local_rank"), "--local-rank": options.pop("dashed")}
    arguments[:0] = [f"{option}={value}" for option, value in given.items() if value is not None]
    try:
        return runner.Target(name, tuple(arguments), is_module), init_arguments(**options)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


def main(folder: str | None, modules: frozenset[str]) -> None:
    """Run the script on the command line.

    Args:
        folder: the first entry that python had added to ``sys.path``.
        modules: names of the modules that were loaded before any of ours.
    """
    try:
        given = wrap.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the other ranks of the node have nothing to add
            error.show()
        sys.exit(error.exit_code)
    if isinstance(given, int):  # --help and --version
        sys.exit(given)
    target, options = given
    runner.run(target, options, os.environ.get("TORCHELASTIC_ERROR_FILE", ""), runner.Start(folder, modules))
