"""LIBRARY.md: every public name of the library, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

HEAD = """\
# Names of the Python library

Generated from the program by `python docs`; do not edit. [PYTHON](PYTHON.md) shows how they are
used; this page lists all of them, as `import rubix_token_sync as rts` has them.
"""
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields):$")


def library_reference() -> str:
    """The page."""
    import rubix_token_sync as rts

    names = [name for name in rts.__all__ if not name.startswith("__")]
    things = {name: getattr(rts, name) for name in names}
    errors = {n: t for n, t in things.items() if inspect.isclass(t) and issubclass(t, Exception)}
    functions = {n: t for n, t in things.items() if inspect.isfunction(t)}
    classes = {n: t for n, t in things.items() if inspect.isclass(t) and n not in errors}
    values = things.keys() - errors.keys() - functions.keys() - classes.keys()
    parts = [HEAD, "## Functions\n"]
    for name, function in functions.items():
        parts.append(f"### {name}\n\n```text\n{_call(name, function)}\n```\n\n{_doc(function)}\n")
    parts.append("## Classes\n")
    parts += [_class(name, kind) for name, kind in classes.items()]
    parts.append("## Errors\n")
    parts.append("| error | of | meaning |\n|---|---|---|")
    for name, kind in errors.items():
        said = (
            _doc(kind).split("\n\n")[0].replace("\n", " ") if kind.__dict__.get("__doc__") else ""
        )
        parts.append(f"| `{name}` | `{kind.__mro__[1].__name__}` | {said} |")
    parts.append("\n## Values\n")
    parts += [f"* `{name}`: {_value(things[name])}" for name in sorted(values)]
    return "\n".join(parts) + "\n"


def _class(name: str, kind: type) -> str:
    parts = [f"### {name}\n\n{_doc(kind)}\n"]
    fields = _fields(kind)
    if fields:
        parts.append("| field | type |\n|---|---|")
        parts += [f"| `{field}` | `{_type(hint)}` |" for field, hint in fields.items()]
        parts.append("")
    for method, function in _methods(kind):
        if isinstance(function, property):
            parts.append(f"* `{method}`: {_first(function)}")
        else:
            parts.append(f"* `{_call(method, function, one_line=True)}`: {_first(function)}")
    return "\n".join(parts).rstrip() + "\n"


def _fields(kind: type) -> dict[str, str]:
    if kind.__name__ == "Settings":
        return {}  # SETTINGS.md has them
    if dataclasses.is_dataclass(kind):
        return {f.name: str(f.type) for f in dataclasses.fields(kind) if not f.name.startswith("_")}
    if hasattr(kind, "__total__") or hasattr(kind, "_fields"):  # TypedDict, NamedTuple
        return {
            name: hint if isinstance(hint, str) else getattr(hint, "__forward_arg__", str(hint))
            for name, hint in inspect.get_annotations(kind).items()
        }
    return {}


def _methods(kind: type) -> list[tuple[str, Any]]:
    """Public ones of ours, in the order of the source; inherited ones after its own."""
    found: dict[str, Any] = {}
    for owner in kind.__mro__:
        if owner.__module__.startswith("rubix_token_sync"):
            for name, thing in vars(owner).items():
                plain = thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing
                if name.startswith("_") or not (
                    inspect.isfunction(plain) or isinstance(plain, property)
                ):
                    continue
                found.setdefault(name, plain)
    return [(name, thing) for name, thing in found.items() if name != "model_post_init"]


def _call(name: str, function: Any, *, one_line: bool = False) -> str:
    """``name(a: int, *, b: str = 'x') -> bool``."""
    signature = inspect.signature(function)
    shown = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    parts, starred = [], False
    for parameter in shown:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        marks = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        text = marks.get(parameter.kind, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_hint(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            default = "…" if callable(parameter.default) else repr(parameter.default)
            text += f" = {default}"
        parts.append(text)
    back = signature.return_annotation
    end = "" if back is signature.empty else f" -> {_hint(back)}"
    line = f"{name}({', '.join(parts)}){end}"
    if one_line or len(line) <= 96:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{name}(\n{inner}){end}"


def _hint(hint: Any) -> str:
    text = hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))
    return text.strip("'")


def _type(hint: str) -> str:
    return hint.replace("|", "\\|")


def _doc(thing: Any) -> str:
    """A docstring as Markdown: sections become lists, double backticks single ones."""
    lines: list[str] = []
    section = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = True
            lines.append(f"{heading[1]}:\n")
        elif section and line.startswith("    ") and not line.startswith("     "):
            lines.append(f"* {line.strip()}")
        elif section and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line)
    return _plain("\n".join(lines)).strip()


def _first(thing: Any) -> str:
    """The first paragraph, in one line."""
    return _plain(" ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()))


def _plain(text: str) -> str:
    return text.replace("``", "`")


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) + "."
    return f"`{value!r}`."
