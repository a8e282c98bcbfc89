"""Python on a page of the documentation: its blocks, run in order in one namespace, with what they say comes out."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(page: Path, replaced: dict[str, str], names: dict[str, Any]) -> int:
    """Run every block of a page, in ``names``, with texts replaced first. How many results were compared.

    A comment after an expression that reads like a Python value, or like a text in angle brackets, is its result.
    """
    compared = 0
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start(1))
        code = found.group(1)
        for old, new in replaced.items():
            code = code.replace(old, new)
        module = ast.parse("\n" * line + code, str(page))
        lines = code.splitlines()
        for statement in module.body:
            if not isinstance(statement, ast.Expr):
                exec(compile(ast.Module([statement], []), str(page), "exec"), names)
                continue
            value = eval(compile(ast.Expression(statement.value), str(page), "eval"), names)
            _, _, said = lines[statement.end_lineno - line - 1][statement.end_col_offset :].partition("# ")
            if said and is_result(said):
                compared += 1
                assert repr(value) == said, f"{page.name}:{statement.lineno}"
    return compared


def is_result(said: str) -> bool:
    """Whether a comment is what an expression gives, and no remark on it."""
    if re.fullmatch(r"<.*>", said):
        return True
    try:
        ast.parse(said, mode="eval")
    except SyntaxError:
        return False
    return not re.fullmatch(r"[a-z ]+", said)
