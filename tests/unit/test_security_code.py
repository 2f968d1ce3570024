"""What is looked for in the code itself, so that it holds for what is written later.  Numbers: OWASP ASVS 5.0."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("dispatcher", "segments", "workers", "scheduler.py")
FILES = sorted(
    path for room in ROOMS for path in ([ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py"))
)

#: Who talks to the outside, and to whom: an address of the settings, never one out of a request, a row or a template.
MAY_CALL = {
    "dispatcher/providers/": "the provider of the settings",
    "dispatcher/doctor": "the shop's own addresses, when somebody asks for it",
    "dispatcher/asking.py": "the shop's own addresses, when somebody asks for it",
    "dispatcher/demo.py": "this machine",
    "dispatcher/up.py": "this machine",
    "dispatcher/mailboxes": "the mail server of the settings",
    "dispatcher/mirrors": "the provider of the settings",
    "dispatcher/embedded/": "this machine",
    "dispatcher/web/__main__.py": "it only listens",
}
_CALLING = {"aiohttp", "httpx", "requests", "urllib3", "http.client", "urllib.request", "smtplib", "imaplib", "poplib",
            "ftplib", "socket", "dns"}  # fmt: skip


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in FILES:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_only_those_who_may_can_call_the_outside() -> None:
    """1.3.6, 13.2.4, 15.3.2: no input makes us fetch anything; there is no code that could."""
    callers = {
        file for file, tree in trees()
        if any(name == one or name.startswith(f"{one}.") for name in _imported(tree) for one in _CALLING)
    }  # fmt: skip
    strangers = {file for file in callers if not file.startswith(tuple(MAY_CALL)) and not _only_names_the_host(file)}

    assert "dispatcher/providers/http.py" in callers
    assert strangers == set()


def _only_names_the_host(file: str) -> bool:
    """Whether the only thing a module does with `socket` is to ask for this machine's name."""
    source = (ROOT / file).read_text(encoding="utf-8")
    used = set(re.findall(r"\bsocket\.(\w+)", source)) | set(re.findall(r"from socket import (\w+)", source))
    return used <= {"gethostname"} and not re.search(r"import (aiohttp|httpx|requests|dns)", source)


def test_redirects_of_others_are_not_followed() -> None:
    """13.2.4, 15.3.2: a provider's answer cannot send us elsewhere (tests/integration/test_doubt_over_http.py)."""
    calls = [
        (file, ast.unparse(node))
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("post", "get", "request")
        and "session" in ast.unparse(node.func.value).lower()
    ]  # fmt: skip

    assert calls
    assert all("allow_redirects=False" in call for _, call in calls), calls


_SECRETS = re.compile(r"signature|digest|hmac|token$|secret|password|_mac\b|hashed|bearer", re.IGNORECASE)


def test_secrets_are_compared_in_constant_time() -> None:
    """11.2.4: by hmac.compare_digest; an == on something called a signature, token or secret is a finding."""
    found = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
        and any(_SECRETS.search(_name(side)) for side in (node.left, *node.comparators))
        and not any(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))
    ]

    # The tokens' own are asked once the signature held: is it spelled the one way we spell it?  `verify` reads a file.
    assert [one for one in found if not one.startswith(("dispatcher/tokens.py", "dispatcher/verify/"))] == []
    assert len(found) <= 3
    users = {file for file, tree in trees() if "compare_digest" in ast.unparse(tree)}
    assert users == {
        "dispatcher/api_keys.py",
        "dispatcher/feedback/signatures.py",
        "dispatcher/preferences/data_links.py",
        "dispatcher/storefronts/signatures.py",
        "dispatcher/tokens.py",
    }


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):
        return _name(node.func)
    return ""


@pytest.mark.parametrize(
    "call", ["eval(", "exec(", "pickle.", "marshal.", "shell=True", "os.system(", "yaml.load(", "__import__("]
)
def test_nothing_is_run_that_was_read(call: str) -> None:
    """1.3.2, 1.5.2, 1.2.5: no eval, no unpickling, no shell."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(call)}")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line) and "Loader=" not in line and not line.lstrip().startswith(("#", '"""'))
    ]

    assert found == []


def test_where_input_comes_in_sql_is_made_of_constants_alone() -> None:
    """1.2.4: values are parameters.  Elsewhere ruff's S608 wants a reason in the line (pyproject.toml)."""
    made_up = [
        f"{file}:{node.lineno}: {ast.unparse(part.value)}"
        for file, tree in trees()
        if file.startswith(("dispatcher/web/", "dispatcher/cli/", "dispatcher/imports/", "dispatcher/feedback/"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "text"
        for part in ast.walk(node)
        if isinstance(part, ast.FormattedValue) and not (isinstance(part.value, ast.Name) and part.value.id.isupper())
    ]

    assert made_up == []


def test_random_secrets_come_from_the_system() -> None:
    """11.5.1: `random` is for tests."""
    assert [file for file, tree in trees() if "random" in _imported(tree)] == []
