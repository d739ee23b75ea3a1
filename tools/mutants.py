"""More faults for ``tools/mutations.jsonl``, drawn from the syntax trees of the sources."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Fault = dict[str, Any]

COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPUTED |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv}
RENAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "zeros": "ones"}
QUIET = {"note", "print", "advance", "add_argument", "append"}  # whose loss is no fault, or too plain a one


def variants(node: ast.AST) -> Iterator[str]:
    """What could stand in the place of an expression, each a little wrong."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.unparse(ast.Compare(node.left, [COMPARED[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED and not _is_text(node):
        yield ast.unparse(ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right))
    elif isinstance(node, ast.BoolOp):
        yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield str(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield str(not node.value)
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in RENAMED:
            renamed = ast.unparse(node.func)[: -len(name)] + RENAMED[name]
            yield ast.unparse(ast.Call(ast.Name(renamed), node.args, node.keywords))
        elif len(node.args) >= 2 and not any(isinstance(given, ast.Starred) for given in node.args[:2]):
            first, second, *rest = node.args
            if isinstance(first, ast.Name) and isinstance(second, ast.Name) and name not in ("isinstance", "getattr"):
                yield ast.unparse(ast.Call(node.func, [second, first, *rest], node.keywords))
    elif isinstance(node, ast.IfExp):
        yield ast.unparse(ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = node.value.func.attr if isinstance(node.value.func, ast.Attribute) else ""
        if name and name not in QUIET:
            yield "pass"


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, (ast.JoinedStr, ast.List)) or isinstance(getattr(side, "value", 0), str)
               for side in (node.left, node.right))  # fmt: skip


def _behaving(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of what a module does: not its types, its messages, nor the constants at its head."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.ImportFrom, ast.Import)):
                continue
            if isinstance(tree, ast.Module) and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            if isinstance(node, ast.AST):
                yield node
                yield from _behaving(node)


def possible(path: Path, file: str) -> Iterator[Fault]:
    source = path.read_text(encoding="utf-8")
    lines = source.encode().splitlines(keepends=True)
    for node in _behaving(ast.parse(source)):
        for other in variants(node):
            first, last = node.lineno - 1, node.end_lineno
            start = sum(map(len, lines[:first])) + node.col_offset
            end = sum(map(len, lines[: last - 1])) + node.end_col_offset
            for above in range(first, max(first - 4, -1), -1):
                begin, stop = sum(map(len, lines[:above])), sum(map(len, lines[:last]))
                old = source.encode()[begin:stop].decode()
                if source.count(old) == 1:
                    new = source.encode()[begin:start] + other.encode() + source.encode()[end:stop]
                    yield {"file": file, "old": old.rstrip("\n"), "new": new.decode().rstrip("\n")}
                    break


def make(package: Path, listed: set[tuple[str, str, str]], each: int, seed: int, only: list[str]) -> None:
    """Print ``each`` faults of every folder of ``package`` that are not in the list yet."""
    by_part: dict[str, list[Fault]] = {}
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).as_posix()
        by_part.setdefault(file.split("/")[0].removesuffix(".py"), []).extend(possible(path, file))
    for part, faults in by_part.items():
        if part in only:
            new = [fault for fault in faults if (fault["file"], fault["old"], fault["new"]) not in listed]
            for fault in random.Random(f"{seed} {part}").sample(new, min(each, len(new))):
                print(json.dumps(fault, ensure_ascii=False))
