"""Signatures as the source writes them: shapes and all, with aliases of types spelt out and defaults as values."""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping
from typing import Any, TypeVar

LONGEST = 160  # an alias whose text is longer keeps its name


def write_signature(app: Any, what: str, name: str, obj: Any, options: Any, given: str, returns: str) -> Any:
    """autodoc-process-signature: the arguments and what comes back."""
    if what == "class" and is_settings(obj):
        return "(**settings)", None
    if what not in {"function", "method", "class"} or not given:
        return None
    called = obj.__init__ if inspect.isclass(obj) and not dataclasses.is_dataclass(obj) else obj
    if called is object.__init__ or given == "(*args, **kwargs)":
        return "", None
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return None
    written = annotations(called)
    bound = what == "method" or called is not obj
    parameters = [
        (parameter, written.get(parameter.name, ""))
        for place, parameter in enumerate(signature.parameters.values())
        if not (bound and place == 0 and parameter.name in {"self", "cls"})
    ]
    result = written.get("return", "")
    return arguments_text(parameters), result if what != "class" and result not in {"", "None"} else None


def is_settings(obj: Any) -> bool:
    """Whether a class is one of settings: keyword arguments that a table describes better."""
    return dataclasses.is_dataclass(obj) and hasattr(obj, "__pydantic_fields__")


def arguments_text(parameters: list[tuple[inspect.Parameter, str]]) -> str:
    """The parameters with their types and defaults, in Python's syntax."""
    out: list[str] = []
    star = any(parameter.kind is parameter.VAR_POSITIONAL for parameter, _ in parameters)
    for parameter, kind in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            out.append("*")
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f" = {default_text(parameter.default)}"
        out.append(f"{mark}{parameter.name}{': ' + kind if kind else ''}{default}")
    return f"({', '.join(out)})"


def default_text(value: Any) -> str:
    """A default as a value, or three dots where that would be long."""
    plain = value is None or isinstance(value, (bool, int, float, str, tuple, list, dict))
    return repr(value) if plain and len(repr(value)) < 60 else "..."


def annotations(obj: Any) -> dict[str, str]:
    """Each annotation as the source has it, by name; a class has those of the classes it derives from too."""
    if inspect.isclass(obj):
        found: dict[str, str] = {}
        for cls in reversed(obj.__mro__[:-1]):
            tree = source_tree(cls)
            fields = tree.body if isinstance(tree, ast.ClassDef) else []
            names = vars(sys.modules[cls.__module__])
            found |= {
                node.target.id: spelt_out(node.annotation, names)
                for node in fields
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            }
        return found
    tree = source_tree(obj)
    if not isinstance(tree, ast.FunctionDef):
        return {}
    names = getattr(inspect.unwrap(obj), "__globals__", {})
    arguments = [*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs, tree.args.vararg, tree.args.kwarg]
    found = {node.arg: spelt_out(node.annotation, names) for node in arguments if node is not None and node.annotation}
    return found | ({"return": spelt_out(tree.returns, names)} if tree.returns else {})


def source_tree(obj: Any) -> ast.stmt | None:
    """The definition of a class or function, parsed; None for what has no source."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def spelt_out(annotation: ast.expr, names: Mapping[str, Any]) -> str:
    """A type as written, without quotes around it, every alias in it replaced by what it stands for."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return ast.unparse(_Aliases(names).visit(annotation))


class _Aliases(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, Any]):
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self.names.get(node.id)
        if value is None or value is Any or not _is_alias(value):
            return node
        text = value.__name__ if inspect.isclass(value) else re.sub(r"\b(?:\w+\.)+(\w)", r"\1", str(value))
        text = re.sub(r"<class '([^']*(?:'[^']*')?[^']*)'>", lambda found: found[1].rpartition(".")[2], text)
        try:
            return ast.parse(text, mode="eval").body if len(text) <= LONGEST else node
        except SyntaxError:
            return node


def _is_alias(value: Any) -> bool:
    if inspect.isclass(value):
        return "[" in value.__name__  # a shape: jaxtyping makes a class of it
    return not isinstance(value, TypeVar) and (hasattr(value, "__args__") or type(value).__module__ == "typing")
