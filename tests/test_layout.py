"""The house rules that a machine can check: imports run one way, files are rooms, the command line is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "alignlab"
FILES = sorted(PACKAGE.rglob("*.py"))
STOREYS = (
    ("jobs",),
    ("prerequisites", "evaluation", "course_correction", "synthesis", "pairs", "publish"),
    ("front", "judges", "training", "rewards"),
    ("engine", "checks", "pages"),
    ("data", "models"),
    ("runs", "io", "config"),
    ("stats",),
)
"""Each imports its own storey and those below."""
MOST_LINES, MOST_FUNCTION_LINES = 450, 60


def storey_of(package):
    return next((level for level, packages in enumerate(STOREYS) if package in packages), None)


def imports_of(path, root=PACKAGE):
    """Modules of alignlab that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("alignlab"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("alignlab"):
            here = root.joinpath(*node.module.split(".")[1:])
            names = [alias.name for alias in node.names]
            inner = [name for name in names if (here / f"{name}.py").exists() or (here / name).is_dir()]
            yield from (f"{node.module}.{name}" for name in inner)
            if len(inner) < len(node.names):
                yield node.module


def upward(files, root=PACKAGE):
    """Imports from a lower storey into a higher one."""
    found = []
    for path in files:
        own = storey_of(path.relative_to(root).parts[0])
        for module in imports_of(path, root):
            other = storey_of(module.split(".")[1]) if "." in module else None
            if own is not None and other is not None and other < own:
                found.append(f"{path.relative_to(root)} imports {module}")
    return found


def circle(graph):
    """A circle of modules, as a list, or None."""
    state = {}

    def visit(module, trail):
        if state.get(module) == "open":
            return [*trail[trail.index(module) :], module]
        if state.get(module) == "closed":
            return None
        state[module] = "open"
        for other in graph.get(module, ()):
            found = visit(other, [*trail, module])
            if found:
                return found
        state[module] = "closed"
        return None

    return next((found for module in graph if (found := visit(module, []))), None)


def top_level_imports(path):
    """What a file imports when it is imported: function bodies come later and may close a circle."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return tree


def name_of(path):
    parts = ("alignlab", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_package_has_a_storey():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {package for storey in STOREYS for package in storey}
    assert len(FILES) > 40


def test_imports_run_one_way():
    assert upward(FILES) == []


def test_an_upward_import_is_seen(tmp_path):
    (tmp_path / "data").mkdir()
    wrong = tmp_path / "data" / "wrong.py"
    wrong.write_text("def f():\n    from alignlab.jobs.dpo import run\n")
    assert upward([wrong], tmp_path) == ["data/wrong.py imports alignlab.jobs.dpo"]


def test_no_circles(tmp_path):
    graph = {}
    for path in FILES:
        shallow = tmp_path / "module.py"
        shallow.write_text(ast.unparse(top_level_imports(path)))
        graph[name_of(path)] = sorted(set(imports_of(shallow)) - {"alignlab"})
    assert circle(graph) is None


def test_a_circle_is_seen():
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) is None


def test_the_command_line_stays_below_the_jobs():
    """cli.py may call jobs late; at import it must not."""
    shallow = ast.unparse(top_level_imports(PACKAGE / "cli.py"))
    assert "alignlab.jobs" not in shallow


def long_parts(text):
    """Functions over the limit, with their lines."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return {name: length for name, length in lengths.items() if length > MOST_FUNCTION_LINES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_a_room(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert long_parts(text) == {}
    assert ast.get_docstring(ast.parse(text)), "a file says in its first line what it holds"


def test_a_long_function_is_seen():
    assert long_parts("def f():\n" + "    x = 1\n" * MOST_FUNCTION_LINES) == {"f": MOST_FUNCTION_LINES + 1}


@pytest.mark.parametrize("module", ["cli", "checks.preflight", "runs.runner", "runs.folder", "data.sources"])
def test_importing_it_imports_no_torch(module):
    heavy = ("torch", "transformers", "datasets", *(("rich",) if module == "cli" else ()))  # --help prints plain text
    code = f"import sys, alignlab.{module}; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert ended.stdout.strip() == "[]"


def unexplained(source):
    """Public functions of three or more parameters whose docstring has no Args; hooks and local ones apart."""
    tree = ast.parse(source)
    bodies = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    found = []
    for node in (each for body in bodies for each in body.body if isinstance(each, ast.FunctionDef)):
        names = {one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)} - {"self", "cls"}
        is_public = not node.name.startswith(("_", "on_"))
        if is_public and len(names) > 2 and names != JOB and "Args:" not in (ast.get_docstring(node) or ""):
            found.append(node.name)
    return found


JOB = {"plan", "run", "outcome"}
"""The parameters of every job, which alignlab/jobs/__init__.py explains once."""


def test_public_functions_of_three_parameters_explain_them():
    files = {path: unexplained(path.read_text()) for path in FILES}
    found = [f"{path.relative_to(PACKAGE)}:{name}" for path, names in files.items() for name in names]
    assert found == [], "add an Args section to the docstring"


def test_an_unexplained_function_is_found():
    assert unexplained("def f(a, b, c):\n    'What it does.'") == ["f"]
    assert unexplained("def f(a, b, c):\n    'Do.\\n\\n    Args:\\n        a: x.'") == []
