"""Print a script for a shell that completes commands, tools, their options, and what they trace.

After -p it offers the programs that run, and where a probe or function is expected, those of this machine: after
`c:mal`, malloc. Names with characters that a shell would interpret are left out.

examples:
  source <(usdtkit completion bash)                              in ~/.bashrc
  usdtkit completion zsh > "${fpath[1]}/_usdtkit"
  usdtkit completion fish > ~/.config/fish/completions/usdtkit.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from usdtkit.cli import COMMANDS, command, tool_names
from usdtkit.errors import UsageError

Parsers = dict[str, argparse.ArgumentParser]

# What `usdtkit.cli.offers` offers for an argument, by what its help calls it.
KINDS = {
    "PID": "process",
    "pid": "process",
    **dict.fromkeys(("SPEC", "PATTERN", "TARGET", "START", "END", "FUNCTION"), "place"),
}
# Of tools whose words mean something else by these names.
OWN_KINDS = {("libcalls", "FUNCTION"): "function"}

# Bash splits words at colons too, and completes the last part: the parts before it are cut from what is offered, unless
# a quotation holds the word together.
BASH = """\
_usdtkit_offer() {{
  local typed=${{COMP_LINE:0:COMP_POINT}} cut= line
  typed=${{typed##*[[:space:]]}}
  case $typed in
    [\\'\\"]*) typed=${{typed:1}} ;;
    *:*) [[ $COMP_WORDBREAKS == *:* ]] && cut=${{typed%"${{typed##*:}}"}} ;;
  esac
  while IFS= read -r line; do
    COMPREPLY+=("${{line#"$cut"}}")
    [[ $line == *: ]] && compopt -o nospace 2>/dev/null
  done < <(usdtkit completion --offer "$1" "$typed" 2>/dev/null)
}}
_usdtkit() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words= kind= before
  local -a typed
  read -ra typed <<<"${{COMP_LINE:0:COMP_POINT}}x"
  before=${{typed[-2]}} COMPREPLY=()
  if (( ${{#typed[@]}} == 2 )); then
    words={names}
  else
    case "${{typed[1]}} $before" in
{values}
{offered}
      *' -p' | *' --pid') kind=process ;;
      *) case ${{typed[1]}} in
{options}
      esac ;;
    esac
  fi
  if [[ -n $kind && $current != -* ]]; then
    _usdtkit_offer "$kind"
  else
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}}
complete -o default -F _usdtkit usdtkit
"""
ZSH = """\
#compdef usdtkit
_usdtkit_offer() {{
  local -a found
  found=(${{(f)"$(usdtkit completion --offer $1 "${{(Q)PREFIX}}" 2>/dev/null)"}})
  compadd -S '' -- ${{(M)found:#*:}}
  compadd -- ${{found:#*:}}
  (( $#found ))
}}
_usdtkit() {{
  local -a names options
  local kind=
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
  case "$words[2] $words[CURRENT-1]" in
{offered}
    *' -p' | *' --pid') kind=process ;;
  esac
  if [[ $PREFIX == -* ]]; then _describe -t options option options; return; fi
  [[ -n $kind ]] && _usdtkit_offer $kind && return
  _files
}}
compdef _usdtkit usdtkit
"""

FISH = "(usdtkit completion --offer {} (commandline -ct) 2>/dev/null)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit completion`."""
    parser.add_argument("shell", nargs="?", choices=("bash", "zsh", "fish"), help="for which shell")
    parser.add_argument("--offer", nargs=2, metavar=("KIND", "WORD"), help=argparse.SUPPRESS)  # for the scripts


def run(options: argparse.Namespace) -> int:
    """Print it, or what completes a word."""
    if options.offer is not None:
        from usdtkit.cli.offers import offers

        print("".join(f"{word}\n" for word in offers(*options.offer)), end="")
        return 0
    if options.shell is None:
        raise UsageError("for which shell?", hint="usdtkit completion bash, zsh or fish")
    parsers = {name: command(name)[1] for name in [*COMMANDS, *tool_names()]}
    write = {"bash": bash, "zsh": zsh, "fish": fish}[options.shell]
    print(write(parsers), end="")
    return 0


def bash(parsers: Parsers) -> str:
    """The script for bash: a function, and a `complete` that names it."""
    values, options = [], []
    for name, parser in parsers.items():
        words = [flag for action in _shown(parser) for flag in action.option_strings]
        for action in _shown(parser):
            choices = _choices(action)
            if choices and action.option_strings:
                flags = " | ".join(_quoted(f"{name} {flag}") for flag in action.option_strings)
                values.append(f"      {flags}) words={_quoted(' '.join(choices))} ;;")
            elif choices:
                words += choices
        kind = f" kind={offered}" if (offered := _of_words(name, parser)) else ""
        options.append(f"        {name}) words={_quoted(' '.join(words))}{kind} ;;")
    names = _quoted(" ".join(parsers))
    return BASH.format(
        names=names, values="\n".join(values), options="\n".join(options), offered="\n".join(_offered(parsers, 6))
    )


def zsh(parsers: Parsers) -> str:
    """The script for zsh: a function for its completion system, which describes each name and option."""
    names = [f"      {_described(name, parser.description)}" for name, parser in parsers.items()]
    options = []
    for name, parser in parsers.items():
        flags = [_described(flag, _help(parser, action)) for action in _shown(parser) for flag in action.option_strings]
        kind = f" kind={offered}" if (offered := _of_words(name, parser)) else ""
        options.append(f"    {name}) options=({' '.join(flags)}){kind} ;;")
    return ZSH.format(names="\n".join(names), options="\n".join(options), offered="\n".join(_offered(parsers, 4)))


def fish(parsers: Parsers) -> str:
    """The script for fish: a `complete` for each name and each option."""
    return "\n".join(_fish(parsers)) + "\n"


def _fish(parsers: Parsers) -> Iterator[str]:
    for name, parser in parsers.items():
        yield f"complete -c usdtkit -n __fish_use_subcommand -f -a {name} -d {_escaped(parser.description)}"
        if kind := _of_words(name, parser):
            yield f"complete -c usdtkit -n '__fish_seen_subcommand_from {name}' -a '{FISH.format(kind)}'"
        for action in _shown(parser):
            words = ["complete -c usdtkit", f"-n '__fish_seen_subcommand_from {name}'"]
            for flag in action.option_strings:
                words.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
            choices, kind = _choices(action), _kind(name, action) if action.option_strings else ""
            if choices or kind:
                words.append(f"-a {_escaped(FISH.format(kind) if kind else ' '.join(choices))}")
            if action.option_strings and action.nargs != 0:
                words.append("-x" if choices or kind else "-r")
            if action.option_strings or choices:
                yield " ".join([*words, f"-d {_escaped(_help(parser, action))}"])


def _kind(name: str, action: argparse.Action) -> str:
    """The kind of offers for the value of an option or argument, "" if there are none."""
    called = str(action.metavar or action.dest)
    return "" if action.nargs == 0 else OWN_KINDS.get((name, called), KINDS.get(called, ""))


def _of_words(name: str, parser: argparse.ArgumentParser) -> str:
    """The kind of offers for the arguments of a command that are no options; "" if the first of them has none."""
    kinds = [_kind(name, action) for action in parser._actions if not action.option_strings]
    return kinds[0] if kinds else ""


def _offered(parsers: Parsers, indent: int) -> Iterator[str]:
    """A branch of a `case` for each option whose values are offered, except those of -p, which all have alike."""
    for name, parser in parsers.items():
        for action in parser._actions:
            if action.option_strings and "-p" not in action.option_strings and (kind := _kind(name, action)):
                flags = " | ".join(_quoted(f"{name} {flag}") for flag in action.option_strings)
                yield f"{' ' * indent}{flags}) kind={kind} ;;"


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a parser takes, without what its help does not show."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


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
