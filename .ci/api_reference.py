#!/usr/bin/env python3
"""Print docs/reference.md: every public name of usdtkit with its signature and its docstring.

A module says which of its names are public in `__all__`. In a module without it, these are the functions and classes
that it defines and whose names do not begin with an underscore. The meaning of a value is the string after its
assignment, or the comment before it. Compiled classes are described in their stubs (*.pyi).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HEAD = """# The reference

This page has every public name of usdtkit with its docstring. `make docs/reference.md` writes it from the source.
[The API](api.md) introduces the same names in their context, with examples.
"""
# The public modules, as far as they exist, in the order of the page.
MODULES = (
    *("usdtkit", "usdtkit.testing", "usdtkit.instrument", "usdtkit.instrument.redaction", "usdtkit.trace"),
    *("usdtkit.providers", "usdtkit.results"),
    *("usdtkit.output", "usdtkit.elf", "usdtkit.model", "usdtkit.errors"),
)
# Of these packages, the modules inside are public too; `NAMES` of a package says which of them.
PACKAGES = ("usdtkit.instrument", "usdtkit.providers")
# Classes that programs call although their initialisers name types that are not public.
CALLED = ("Provider", "Session", "Sources", "Rows", "Summaries")
WIDTH = 100
_TYPES = {"Any", "Callable", "Iterable", "Iterator", "Literal", "Mapping", "None", "Sequence", "StrPath"}


class Member(NamedTuple):
    """A method, property or class attribute: its signature, or its name alone, and its docstring."""

    name: str
    signature: str
    doc: str


def public_modules() -> dict[str, ModuleType]:
    """The public modules by name."""
    modules = {}
    for name in MODULES:
        if importlib.util.find_spec(name) is None:
            continue
        modules[name] = module = importlib.import_module(name)
        if name in PACKAGES:
            inside = [inner.name for inner in pkgutil.iter_modules(module.__path__)]
            for inner in sorted(getattr(module, "NAMES", inside)):
                modules[f"{name}.{inner}"] = importlib.import_module(f"{name}.{inner}")
    return modules


def public_names(module: ModuleType) -> list[str]:
    """The public names of a module."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def doc_of(module: ModuleType, name: str) -> str:
    """What the source says of a public name; empty if it says nothing."""
    value = getattr(module, name)
    if inspect.isclass(value) and (stub := _stub(value)):
        return ast.get_docstring(stub) or ""
    if inspect.isroutine(value):
        return inspect.getdoc(value) or ""
    if inspect.isclass(value) and "__doc__" in vars(value):
        return inspect.cleandoc(value.__doc__ or "")
    if meaning := getattr(value, "meaning", ""):
        return f"The column `{value.name}`: {meaning}."
    return _doc_of_value(module.__name__, name)


def members(cls: type, public: set[type]) -> list[Member]:
    """The public methods and properties of a class, and those of its bases that are not public themselves."""
    if stub := _stub(cls):
        return list(_stub_members(stub))
    found: dict[str, Member] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("usdtkit") or (base is not cls and base in public):
            continue
        fields = getattr(base, "__annotations__", {})
        for name, value in vars(base).items():
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if isinstance(value, property) or hasattr(value, "func"):  # a cached property has func
                found[name] = Member(name, name, inspect.getdoc(value) or "")
            elif inspect.isfunction(function) and name not in fields:
                bound = not isinstance(value, staticmethod)
                found[name] = Member(name, f"{name}{_signature(function, drop_first=bound)}", _own_doc(function))
    return [member for name, member in found.items() if not name.startswith("_")]


def _own_doc(function: Any) -> str:
    return inspect.cleandoc(function.__doc__ or "")


class _AsWritten:
    """An annotation that is shown without quotes."""

    def __init__(self, annotation: Any) -> None:
        self.text = getattr(annotation, "__forward_arg__", annotation)
        if not isinstance(self.text, str):
            self.text = inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return str(self.text)


def _signature(function: Any, *, drop_first: bool = False) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if drop_first else 0 :]
    shown = [
        parameter.replace(
            annotation=parameter.annotation
            if parameter.annotation is parameter.empty
            else _AsWritten(parameter.annotation),
            default=parameter.default
            if parameter.default is parameter.empty or isinstance(parameter.default, (str, bytes, int, float, tuple))
            else _default(parameter.default),
        )
        for parameter in parameters
    ]
    result = signature.return_annotation
    result = result if result in (signature.empty, None, "None") else _AsWritten(result)
    if result in (None, "None"):
        result = signature.empty
    return str(signature.replace(parameters=shown, return_annotation=result))


def _default(value: Any) -> Any:
    """A default whose text is the same in every run."""
    return _AsWritten(re.sub(r" at 0x[0-9a-f]+", "", repr(value)))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _stub(cls: type) -> ast.ClassDef | None:
    """The description of a compiled class in its stub, or None for a class of Python."""
    if any(inspect.isfunction(value) for value in vars(cls).values()):
        return None
    for path in sorted((ROOT / "usdtkit").glob("*.pyi")):
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                return node
    return None


def _stub_members(stub: ast.ClassDef) -> Iterator[Member]:
    for node in stub.body:
        if isinstance(node, ast.FunctionDef) and (node.name == "__call__" or not node.name.startswith("_")):
            is_property = any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)
            arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
            arguments = arguments.removeprefix("/, ").removesuffix(", /")
            signature = node.name if is_property else f"{node.name}({arguments})"
            yield Member(node.name, signature, ast.get_docstring(node) or "")


def _doc_of_value(module: str, name: str) -> str:
    """The string after the assignment of a value, or the comment before it, in the module that makes the value."""
    path = Path(str(importlib.import_module(module).__file__))
    lines = path.read_text().splitlines()
    nodes = [node for outer in _tree(path).body for node in (outer.body if isinstance(outer, ast.If) else [outer])]
    for node, following in zip(nodes, [*nodes[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name) and (node.module or "").startswith("usdtkit"):
                    return _doc_of_value(str(node.module), alias.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned = [
            inner.id for target in targets if target for inner in ast.walk(target) if isinstance(inner, ast.Name)
        ]
        if name in assigned and isinstance(node, (ast.Assign, ast.AnnAssign)):
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                return inspect.cleandoc(str(following.value.value))
            first = node.lineno - 1
            while first and lines[first - 1].startswith("#"):
                first -= 1
            return "\n".join(line.removeprefix("#").strip() for line in lines[first : node.lineno - 1])
    return ""


def _code(text: str) -> str:
    """A signature as a block of code, with a parameter a line where it is long."""
    if len(text) > WIDTH and text.endswith(")") | (" -> " in text):
        head, _, rest = text.partition("(")
        inside, close, result = rest.rpartition(")")
        parts, depth, part = [], 0, ""
        for character in inside:
            depth += (character in "([") - (character in ")]")
            if character == "," and not depth:
                parts.append(part.strip())
                part = ""
            else:
                part += character
        lines = "".join(f"    {each},\n" for each in [*parts, part.strip()] if each)
        text = f"{head}(\n{lines}{close}{result}"
    return f"```python\n{text}\n```\n"


def _is_called(cls: type, names: set[str]) -> bool:
    """Whether to show how a class is called: of a record, whose fields these are, and where programs call it.

    The initialiser of any other class takes types that are not public.
    """
    try:
        signature = _signature(cls)
    except ValueError:  # of a compiled base class
        return False
    if hasattr(cls, "__record__") or cls.__name__ in CALLED:
        return True
    if signature == "()":
        return False
    return "Made by" not in (cls.__doc__ or "") and set(re.findall(r"\b[A-Z]\w+", signature)) <= names | _TYPES


def describe(module: ModuleType, name: str, public: set[type], names: set[str]) -> Iterator[str]:
    """The part of the page that is about one name."""
    value = getattr(module, name)
    yield f"### {name}\n"
    if inspect.isclass(value):
        if _stub(value) or not _is_called(value, names):
            yield _code(f"class {name}")
        else:
            yield _code(f"class {name}{_signature(value)}")
    elif inspect.isroutine(value):
        yield _code(f"{name}{_signature(value)}")
    yield doc_of(module, name) + "\n"
    if inspect.isclass(value):
        for base in value.__mro__[1:]:
            if base in public:
                yield f"It also has everything that `{base.__name__}` has.\n"
                break
        for member in members(value, public):
            yield f"#### {name}.{member.name}\n"
            if member.signature != member.name:
                yield _code(member.signature)
            yield member.doc + "\n"


def page() -> Iterator[str]:
    """The page, piece by piece."""
    modules = public_modules()
    values = [getattr(module, name) for module in modules.values() for name in public_names(module)]
    public = {value for value in values if inspect.isclass(value)}
    names = {name for module in modules.values() for name in public_names(module)}
    yield HEAD
    for name in modules:
        yield f"- [{name}](#{name.replace('.', '').lower()})"
    for module_name, module in modules.items():
        yield f"\n## {module_name}\n\n{inspect.getdoc(module)}\n"
        for name in public_names(module):
            yield from describe(module, name, public, names)


if __name__ == "__main__":
    print(re.sub(r"\n{3,}", "\n\n", "\n".join(page())).rstrip())
