"""The command line. Imports happen where they are needed: a fast start is worth more than tidiness at the top."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import CompileError, TcptunedError

if TYPE_CHECKING:
    from agent.config import Config

__all__ = ["command_line", "main"]

INSTALLED_CONFIG = Path("/etc/tcptuned/tcptuned.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 fine, 1 failed, 2 wrong usage or configuration."""
    options = command_line().parse_args(arguments)
    try:
        result: int = options.function(options)
    except TcptunedError as error:
        print(error, file=sys.stderr)
        if isinstance(error, CompileError) and error.text and options.verbose:
            print(error.text, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # The reader of a pipe left, as `head` does; the interpreter must not complain while it flushes.
        sys.stderr.close()
        return 1
    return result


def command_line() -> argparse.ArgumentParser:
    """The parser; completion and the man page are made from it."""
    parser = argparse.ArgumentParser(
        prog="tcptuned", description="Learns, per remote network, how to run TCP best, and proves the gain."
    )
    parser.add_argument("--version", action="version", version=f"tcptuned {version('tcptuned')}")
    _verbose_option(parser, default=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: object, text: str, *, json: bool = False, config: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        # A default here would take the place of what stands before the command.
        _verbose_option(sub, default=argparse.SUPPRESS)
        if json:
            sub.add_argument("--json", action="store_true", help="print JSON")
        if config:
            sub.add_argument(
                "--config", type=Path, help=f"the configuration file (default: {INSTALLED_CONFIG}, if it exists)"
            )
        return sub

    run = command("run", _run, "Run the agent in the foreground.")
    run.add_argument("--dry-run", action="store_true", help="decide and show everything, apply nothing")
    command("check", _check, "Check a configuration file; list every mistake with its place.", json=True)
    command("doctor", _doctor, "Show what this host can do, and what follows from it.", json=True)
    status = command("status", _status, "Show what the running agent does.", json=True)
    status.add_argument(
        "--watch", type=_interval, nargs="?", const=2.0, metavar="SECONDS",
        help="show it again and again, until Ctrl-C (default: every 2 seconds)",
    )  # fmt: skip
    explain = command("explain", _explain, "Show what is known and decided for an address, and why.", json=True)
    explain.add_argument("address", help="a remote IPv4 or IPv6 address")
    text = "Take every tcptuned program off this host's cgroups, whoever holds it."
    command("detach", _detach, text, json=True, config=False)
    text = "Show in a minute what the agent gains, on three emulated paths."
    demo = command("demo", _demo, text, json=True, config=False)
    demo.add_argument("--seconds", type=float, default=60.0, help="how long it may take, roughly (default: 60)")
    report = command("report", _report, "Write what was gained, tried and decided as one HTML file.", json=True)
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="where to (default: tcptuned-report.html; with --json: stdout)"
    )
    bench = commands.add_parser("bench", help="Measure in the laboratory.", description="Measure in the laboratory.")
    _bench_parser(bench)
    for name, function, text in (
        ("schema", _schema, "Print the JSON schema of the configuration file, for editors."),
        ("completion", _completion, "Print what makes a shell complete this command line."),
        ("man", _man, "Print a manual page: tcptuned man | man -l -"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        _verbose_option(sub, default=argparse.SUPPRESS)
        if name == "completion":
            sub.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
        elif name == "man":
            sub.add_argument(
                "page", nargs="?", choices=("tcptuned.8", "tcptuned.yaml.5"), default="tcptuned.8", metavar="PAGE",
                help="tcptuned.8, the command, or tcptuned.yaml.5, the configuration (default: tcptuned.8)",
            )  # fmt: skip
    return parser


def _verbose_option(parser: argparse.ArgumentParser, *, default: object) -> None:
    text = "show debug messages, and the compiler's text on errors"
    parser.add_argument("--verbose", action="store_true", default=default, help=text)


def _bench_parser(bench: argparse.ArgumentParser) -> None:
    bench.set_defaults(function=_bench)
    _verbose_option(bench, default=argparse.SUPPRESS)
    bench.add_argument(
        "--only", action="extend", type=_names, default=[], metavar="ID,...", help="paths by their ids (default: all)",
    )  # fmt: skip
    bench.add_argument(
        "--workloads", "--workload", action="extend", type=_names, default=[], metavar="NAME,...",
        help="10KB, 30KB, 100KB, 1MB, websearch, mixed, rate-changes, queue-changes, bulk, competing, or all "
        "(default: 100KB)",
    )  # fmt: skip
    bench.add_argument(
        "--contenders", action="extend", type=_names, default=[], metavar="NAME,...",
        help="who takes part besides the default and tcptuned (default: all that the workload has)",
    )  # fmt: skip
    bench.add_argument("--paths", type=Path, metavar="FILE", help="other paths, in agent/lab/paths.yaml's form")
    bench.add_argument("--quick", action="store_true", help="three paths in three minutes, with wide intervals")
    bench.add_argument(
        "--output", type=Path, metavar="DIR", help="keep what is measured there and go on from it; figures, index.html"
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    benches = bench.add_subparsers(metavar="paper")
    text = "Repeat the experiments of 'Beyond socket options' (Tran and Bonaventure, 2019)."
    paper = benches.add_parser("paper", help=text, description=text)
    paper.set_defaults(function=_bench_paper)
    paper.add_argument(
        "--only", action="append", default=[], metavar="EXPERIMENT",
        help="overhead, window, congestion or ack; may be given more than once (default: all)",
    )  # fmt: skip
    paper.add_argument("--quick", action="store_true", help="three minutes, with wide intervals")
    paper.add_argument("--output", type=Path, metavar="DIR", help="write results.json, figures and index.html there")
    paper.add_argument("--json", action="store_true", help="print JSON")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"must be 0.1 to 86400 seconds, not {text[:40]!r}")
    return seconds


def _config(options: argparse.Namespace) -> Config:
    from agent import config_file
    from agent.config import default

    path = _config_path(options)
    return default() if path is None else config_file.load(path)


def _config_path(options: argparse.Namespace) -> Path | None:
    path: Path | None = options.config
    return path or (INSTALLED_CONFIG if INSTALLED_CONFIG.exists() else None)


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, format="%(levelname)s %(message)s")
    # APScheduler logs every run of every job at INFO.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    # numpy's OpenBLAS would start a thread for each processor, and the systemd unit allows 64 tasks.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    config = _config(options)
    from agent.loader import Loader, map_sizes
    from agent.preflight import require_system

    require_system()
    # Compiling takes longest: it goes on beside the imports below.
    loader = Loader(map_sizes(config))
    from agent.service import Service

    Service(config, loader, path=_config_path(options), dry_run=options.dry_run).run()
    return 0


def _check(options: argparse.Namespace) -> int:
    from agent.errors import ConfigurationError, UsageError
    from agent.web_security import load

    path = _config_path(options)
    if path is None:
        raise UsageError("name the file to check: tcptuned check --config FILE")
    problems: list[str] = []
    try:
        load(_config(options).web.config_file)
    except ConfigurationError as error:
        problems = error.problems
    if options.json:
        import json

        print(json.dumps({"file": str(path), "ok": not problems, "problems": problems}))
    elif problems:
        print("\n".join(problems), file=sys.stderr)
    else:
        print(f"{path}: no mistakes")
    return 2 if problems else 0


def _doctor(options: argparse.Namespace) -> int:
    from agent.doctor import show_doctor

    return show_doctor(_config(options), as_json=options.json)


def _status(options: argparse.Namespace) -> int:
    from agent.show import show_status

    if options.watch is not None:
        from agent.watch import watch_status

        watch_status(_config(options), options.watch, as_json=options.json)
    else:
        show_status(_config(options), as_json=options.json)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from agent.show import show_explain

    show_explain(_config(options), options.address, as_json=options.json)
    return 0


def _detach(options: argparse.Namespace) -> int:
    from agent.detach import show_detach

    return show_detach(as_json=options.json)


def _report(options: argparse.Namespace) -> int:
    from agent.report import show_report

    show_report(_config(options), options.output, as_json=options.json)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from agent.lab.demo import show_demo

    return show_demo(seconds=options.seconds, as_json=options.json)


def _bench(options: argparse.Namespace) -> int:
    from agent.lab.bench.command import show_bench

    return show_bench(
        only=options.only, workloads=options.workloads, paths=options.paths, quick=options.quick,
        output=options.output, as_json=options.json, contenders=options.contenders,
    )  # fmt: skip


def _bench_paper(options: argparse.Namespace) -> int:
    from agent.lab.paper.command import show_paper

    return show_paper(only=options.only, quick=options.quick, output=options.output, as_json=options.json)


def _schema(_options: argparse.Namespace) -> int:
    import json

    from agent.config_schema import config_schema

    print(json.dumps(config_schema(), indent=2))
    return 0


def _completion(options: argparse.Namespace) -> int:
    from agent.completion import completion_script

    print(completion_script(command_line(), options.shell), end="")
    return 0


def _man(options: argparse.Namespace) -> int:
    from agent.manual import manual_page

    print(manual_page(options.page, command_line()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
