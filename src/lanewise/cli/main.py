"""`lanewise`: finds the verb, imports it and nothing else, and turns errors into exit codes.

0    done
1    a bug in Lanewise
2    the input is at fault: one message on standard error
130  interrupted
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from lanewise import __version__
from lanewise.cli import terminal
from lanewise.errors import LanewiseError

# Verb → (module with `add(parser)` and `run(args) -> int`, what it does in one line).
VERBS: dict[str, tuple[str, str]] = {
    "nets": ("lanewise.cli.nets", "list the published networks that come with Lanewise"),
    "size": ("lanewise.cli.size", "every size of a network, with its formula"),
    "train": ("lanewise.cli.train", "train a network on images"),
    "test": ("lanewise.cli.test", "how well a trained network does, class by class"),
    "predict": ("lanewise.cli.predict", "labels for images or folders"),
    "verify": ("lanewise.cli.verify", "a network against PyTorch: values and gradients"),
    "convert": ("lanewise.cli.convert", "a network as text, PyTorch source or ONNX, checked"),
    "bench": ("lanewise.cli.bench", "this machine's peak, and each layer's share of it"),
}

HELP = """\
Convolutional neural networks on a CPU: sized exactly, compiled and trained.

usage: lanewise VERB ...          lanewise VERB --help explains one

{verbs}

examples:
  lanewise size lenet5
  lanewise size "input 1x28x28; conv 6 k5 pad2; relu; maxpool 2"
  lanewise train                              on the built-in digits
  lanewise train photos/ --run run            on a folder of class folders
  lanewise predict run holiday.jpg
"""


class UsageError(LanewiseError):
    """The command line itself is wrong."""


class Parser(ArgumentParser):
    """argparse, except that a mistake is one message that says where the help is."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's) and gives its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Started with closed streams (`>&-`), as some services do: what is printed goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot write ⌊ shall still show the rest.
            stream.reconfigure(errors="replace")
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except LanewiseError as error:
        return _complain(str(error), 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _machine_refused(error)
    except Exception as error:
        return _out_of_memory(error) if _lacks_memory(error) else _bug(error)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"lanewise {__version__}")
        return 0
    _check_flags()
    verb, *rest = arguments
    return _run_verb(verb, rest)


def _run_verb(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb}; {_nearest(verb, list(VERBS))}see `lanewise --help`")
    path, summary = VERBS[verb]
    module = import_module(path)
    parser = Parser(
        prog=f"lanewise {verb}",
        description=summary[0].upper() + summary[1:] + ".",
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    module.add(parser)
    try:
        args = _parse(parser, arguments)
    except SystemExit as leave:  # argparse leaves this way after --help
        return int(leave.code or 0)
    return int(module.run(args))


def _formatter(prog: str) -> RawDescriptionHelpFormatter:
    return RawDescriptionHelpFormatter(prog, width=terminal.width())


def _parse(parser: Parser, arguments: list[str]) -> Namespace:
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        hint = _nearest(unknown[0], known)
        raise UsageError(f"unknown argument {unknown[0]}; {hint}see `{parser.prog} --help`")
    return args


def _nearest(word: str, known: list[str]) -> str:
    from lanewise.net.parse import nearest

    return nearest(word, known)


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items())
    return HELP.format(verbs=verbs)


def _check_flags() -> None:
    """Refuses LANEWISE_… variables that do not exist; imports their table only if there are any."""
    if any(name.startswith("LANEWISE_") for name in os.environ):
        from lanewise import flags

        flags.check_environment()


def _complain(message: str, code: int) -> int:
    print(f"lanewise: {message}", file=sys.stderr)
    return code


def _reader_gone() -> int:
    """Whoever read our output has seen enough (`lanewise nets | head -1`): that is no error."""
    # Python flushes standard output once more at its end, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _machine_refused(error: OSError) -> int:
    """A file or a full disk that no room has turned into its own message."""
    if _debugging():
        _show_place(error)
    what = f"{error.filename}: " if error.filename else ""
    return _complain(f"{what}{error.strerror or error}", 2)


def _lacks_memory(error: Exception) -> bool:
    # torch has no class of its own for it.
    told = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return told or isinstance(error, MemoryError)


def _out_of_memory(error: Exception) -> int:
    """A network, an image or a batch that is larger than the machine."""
    if _debugging():
        _show_place(error)
    told = str(error).rpartition("DefaultCPUAllocator: ")[2] or "no more is free"
    return _complain(f"not enough memory ({told}); use a smaller network, image or batch", 2)


def _bug(error: Exception) -> int:
    told = f"a bug in Lanewise: {type(error).__name__}: {error}"
    if _debugging():
        _show_place(error)
        return _complain(told, 1)
    return _complain(f"{told}\nLANEWISE_DEBUG=1 before the command shows where", 1)


def _show_place(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)


def _debugging() -> bool:
    from lanewise import flags

    return flags.value("LANEWISE_DEBUG") > 0


if __name__ == "__main__":
    sys.exit(main())
