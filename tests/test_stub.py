"""_core.pyi and _core_tests.pyi say what the compiled modules have: every name, and every parameter with its kind."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sdltx
from sdltx import _core

STUB, ADDED = (
    ast.parse((Path(sdltx.__file__).parent / f"{name}.pyi").read_text()) for name in ("_core", "_core_tests")
)
CLASSES = {node.name: node for stub in (ADDED, STUB) for node in stub.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for stub in (STUB, ADDED) for node in stub.body if isinstance(node, ast.FunctionDef)}
(MORE_METHODS,) = (node.body for node in ADDED.body if isinstance(node, ast.ClassDef) and node.name == "Pipeline")
CLASSES["Pipeline"].body += MORE_METHODS


def public(thing: object) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_") or name == "__version__"}


def spelled(node: ast.FunctionDef) -> list[str]:
    """Names of the parameters, "*" before those that are given by name only, "=" after those that may be left out."""
    args = node.args
    positional = [arg.arg for arg in args.args if arg.arg != "self"]
    optional = set(positional[len(positional) - len(args.defaults) :]) if args.defaults else set()
    optional |= {arg.arg for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default}
    names = positional + (["*"] if args.kwonlyargs else []) + [arg.arg for arg in args.kwonlyargs]
    names += [f"**{args.kwarg.arg}"] if args.kwarg else []
    return [name + "=" * (name in optional) for name in names]


def compiled(function: object) -> list[str]:
    """The same of a compiled function, from the signature in its docstring."""
    signature = (function.__doc__ or "").strip().splitlines()[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    while (shorter := re.sub(r"\[[^\[\]]*\]", "", inside)) != inside:  # commas inside types
        inside = shorter
    names = [part.strip() for part in inside.split(",") if part.strip()]
    return [re.match(r"[*\w]+", name).group() + "=" * ("=" in name) for name in names if not name.startswith("self:")]


def test_every_name():
    attributes = {node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign)}
    aliases = {node.targets[0].id for node in STUB.body if isinstance(node, ast.Assign)}
    assert public(_core) == attributes | set(CLASSES) | set(FUNCTIONS)
    assert aliases == {"Float32", "Progress", "_Condition", "_Latents"}  # of the stub alone


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_member(name):
    thing = getattr(_core, name)
    if isinstance(thing, type) and issubclass(thing, Exception):
        assert [base.__name__ for base in thing.__bases__] == [base.id for base in CLASSES[name].bases]
        return
    members = {node.name: node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    assert public(thing) == set(members) - {"__init__"}
    for member, node in members.items():
        value = vars(thing)[member] if member != "__init__" else thing.__init__
        is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
        assert isinstance(value, property) == is_property, member
        if not is_property:
            assert compiled(getattr(thing, member)) == spelled(node), member


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function(name):
    assert compiled(getattr(_core, name)) == spelled(FUNCTIONS[name])
