"""Print a script for a shell that completes commands, tools and their options.

examples:
  source <(usdtkit completion bash)                              in ~/.bashrc
  usdtkit completion zsh > "${fpath[1]}/_usdtkit"
  usdtkit completion fish > ~/.config/fish/completions/usdtkit.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from usdtkit.cli import COMMANDS, command, tool_names

Parsers = dict[str, argparse.ArgumentParser]

BASH = """\
_usdtkit() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
  if (( COMP_CWORD == 1 )); then
    words={names}
  else
    case "${{COMP_WORDS[1]}} $before" in
{values}
      *' -p' | *' --pid') words=$(cd /proc && echo [0-9]*) ;;
      *) case ${{COMP_WORDS[1]}} in
{options}
      esac ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _usdtkit usdtkit
"""
ZSH = """\
#compdef usdtkit
_usdtkit() {{
  local -a names options
  if (( CURRENT == 2 )); then
    names=(
{names}
    )
    _describe -t commands command names
    return
  fi
  case $words[2] in
{options}
  esac
  if [[ $PREFIX == -* ]]; then _describe -t options option options; else _files; fi
}}
compdef _usdtkit usdtkit
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    parsers = {name: command(name)[1] for name in [*COMMANDS, *tool_names()]}
    write = {"bash": bash, "zsh": zsh, "fish": fish}[options.shell]
    print(write(parsers), end="")
    return 0


def bash(parsers: Parsers) -> str:
    """The script for bash: a function, and a `complete` that names it."""
    values, options = [], []
    for name, parser in parsers.items():
        words = [flag for action in parser._actions for flag in action.option_strings]
        for action in parser._actions:
            choices = _choices(action)
            if choices and action.option_strings:
                flags = " | ".join(_quoted(f"{name} {flag}") for flag in action.option_strings)
                values.append(f"      {flags}) words={_quoted(' '.join(choices))} ;;")
            elif choices:
                words += choices
        options.append(f"        {name}) words={_quoted(' '.join(words))} ;;")
    names = _quoted(" ".join(parsers))
    return BASH.format(names=names, values="\n".join(values), options="\n".join(options))


def zsh(parsers: Parsers) -> str:
    """The script for zsh: a function for its completion system, which describes each name and option."""
    names = [f"      {_described(name, parser.description)}" for name, parser in parsers.items()]
    options = []
    for name, parser in parsers.items():
        flags = [
            _described(flag, _help(parser, action)) for action in parser._actions for flag in action.option_strings
        ]
        options.append(f"    {name}) options=({' '.join(flags)}) ;;")
    return ZSH.format(names="\n".join(names), options="\n".join(options))


def fish(parsers: Parsers) -> str:
    """The script for fish: a `complete` for each name and each option."""
    return "\n".join(_fish(parsers)) + "\n"


def _fish(parsers: Parsers) -> Iterator[str]:
    for name, parser in parsers.items():
        yield f"complete -c usdtkit -n __fish_use_subcommand -f -a {name} -d {_escaped(parser.description)}"
        for action in parser._actions:
            words = ["complete -c usdtkit", f"-n '__fish_seen_subcommand_from {name}'"]
            for flag in action.option_strings:
                words.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
            if choices := _choices(action):
                words.append(f"-a {_escaped(' '.join(choices))}")
            if action.option_strings and action.nargs != 0:
                words.append("-x" if choices else "-r")
            if action.option_strings or choices:
                yield " ".join([*words, f"-d {_escaped(_help(parser, action))}"])


def _choices(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or ()]


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def _quoted(text: str) -> str:
    """One word of bash or zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _escaped(text: str | None) -> str:
    """One word of fish."""
    return "'" + (text or "").replace("\\", "\\\\").replace("'", "\\'") + "'"


def _described(word: str, text: str | None) -> str:
    """A word and its description, for zsh's _describe."""
    return _quoted(f"{word.replace(':', chr(92) + ':')}:{text or ''}")
