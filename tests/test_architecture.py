"""The budgets and boundaries that keep the code readable: sizes, layers, a light import."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cachestore"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
IMPORT_SECONDS = 0.1
HEAVY = {"boto3", "botocore", "diskcache", "fastapi", "prometheus_client", "pydantic"}
HEAVY |= {"pydantic_settings", "rich", "starlette", "typer", "watchdog"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def too_long_files(paths: list[Path]) -> list[str]:
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in paths}
    return [f"{path}: {lines} lines" for path, lines in sizes.items() if lines > MAX_FILE_LINES]


def too_long_functions(path: Path) -> list[str]:
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements_run_at_import(node: ast.AST) -> list[ast.AST]:
    """Every statement below `node` that runs when its module is imported."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if is_type_checking(child):
            continue
        found += [child, *statements_run_at_import(child)]
    return found


def imported_names(nodes: list[ast.AST], path: Path) -> set[str]:
    """The dotted names that import statements ask for; `from a import b` asks for a.b."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            names.update(".".join([*base, alias.name]) for alias in node.names)
    return names


def owner(name: str, modules: set[str]) -> str | None:
    """The module of ours that has this name or holds it."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def import_graph(paths: list[Path]) -> dict[str, set[str]]:
    """Which module of ours needs which others while it is itself being imported."""
    modules = {name_of(path) for path in paths}
    graph = {}
    for path in paths:
        names = imported_names(statements_run_at_import(tree_of(path)), path)
        needed = {found for name in names if (found := owner(name, modules))}
        graph[name_of(path)] = needed - {name_of(path)}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def fresh_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_files_are_short() -> None:
    assert too_long_files(sources()) == []


def test_functions_are_short() -> None:
    assert [line for path in sources() for line in too_long_functions(path)] == []


def test_no_import_cycles() -> None:
    assert cycle_in(import_graph(sources())) == []


def test_every_module_has_its_row() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "layers")
    named = {name.strip(" ()") for row in layers for name in row.split("|")}
    present = {name_of(path).split(".")[1] for path in sources() if path.parent != PACKAGE}
    present |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert present - named == set()


def test_nothing_inside_imports_the_package_root() -> None:
    """The root knows every public name, so asking it for one would tie the layers in a knot."""
    children = {name_of(path) for path in sources()} - {"cachestore"}
    guilty = [
        f"{path}: {name}"
        for path in sources()
        for name in imported_names(list(ast.walk(tree_of(path))), path)
        if name not in children and name.split(".")[0] == "cachestore" and name.count(".") < 2
    ]
    assert guilty == []


def test_only_the_file_layer_knows_fcntl() -> None:
    users = [
        name_of(path)
        for path in sources()
        if any(
            name.split(".")[0] == "fcntl"
            for name in imported_names(list(ast.walk(tree_of(path))), path)
        )
    ]
    assert users == ["cachestore.files"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, cachestore; print(*{name.split('.')[0] for name in sys.modules})"
    assert set(fresh_python(code).split()) & HEAVY == set()


def test_importing_the_package_takes_no_time() -> None:
    code = (
        "from time import process_time as now\n"
        "start = now()\n"
        "import cachestore\n"
        "print(now() - start)"
    )
    # The least of several: only the machine's other work makes it longer, nothing makes it shorter.
    assert min(float(fresh_python(code)) for _ in range(7)) < IMPORT_SECONDS


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("from cachestore import b", "import cachestore.a", True),
        ("from .b import x", "from . import a", True),
        ("try:\n    from cachestore.b import x\nexcept ImportError: ...", "from .a import y", True),
        ("from .b import x", "def late():\n    from .a import y", False),
        ("from .b import x", "if TYPE_CHECKING:\n    from .a import y", False),
        ("from .b import x", "x = 1", False),
    ],
)
def test_the_cycle_check_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, expected: bool
) -> None:
    package = tmp_path / "cachestore"
    package.mkdir()
    paths = [package / "__init__.py", package / "a.py", package / "b.py"]
    for path, text in zip(paths, ["", one, other], strict=True):
        path.write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert bool(cycle_in(import_graph(paths))) is expected
