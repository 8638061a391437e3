"""The house rules that a machine can check: imports run one way, files are rooms, the command line is light."""

import ast
import re
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


def parameters(function):
    """The parameters of a function's signature, without self, `*args` and `**kwargs`."""
    own = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return [one for one in own if one.arg not in ("self", "cls")]


def unexplained(source):
    """Public functions of three or more parameters whose docstring has no Args; local ones apart.

    Constructors may explain them in their class, and the hooks of a callback are explained by transformers. A job
    refers to `alignlab.jobs`, where the parameters of all jobs stand.
    """
    tree = ast.parse(source)
    found = []
    for body in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")):
        bases = [ast.unparse(base) for base in getattr(body, "bases", ())]
        for node in (each for each in body.body if isinstance(each, ast.FunctionDef)):
            is_hook = node.name.startswith("on_") and any(base.endswith("Callback") for base in bases)
            said = ast.get_docstring(node) or ""
            if node.name == "__init__":
                said += ast.get_docstring(body) or ""
            elif node.name.startswith("_") or is_hook:
                continue
            if len(parameters(node)) > 2 and "Args:" not in said:
                found.append(node.name)
    return found


def test_public_functions_of_three_parameters_explain_them():
    files = {path: unexplained(path.read_text()) for path in FILES}
    found = [f"{path.relative_to(PACKAGE)}:{name}" for path, names in files.items() for name in names]
    assert found == [], "add an Args section to the docstring"


def test_jobs_explain_their_parameters_in_one_place():
    said = ast.get_docstring(ast.parse((PACKAGE / "jobs" / "__init__.py").read_text()))
    assert all(f"    {name}: " in said for name in ("plan", "run", "outcome"))


def test_an_unexplained_function_is_found():
    assert unexplained("def f(a, b, c):\n    'What it does.'") == ["f"]
    assert unexplained("def f(a, b, c):\n    'Do.\\n\\n    Args:\\n        a: x.'") == []
    hook = "def on_log(self, a, b, c):\n        'Do.'"
    assert unexplained(f"class A(TrainerCallback):\n    {hook}") == []
    assert unexplained(f"class A:\n    {hook}") == ["on_log"]
    made = "def __init__(self, a, b, c): ..."
    assert unexplained(f"class A:\n    'What.'\n    {made}") == ["__init__"]
    assert unexplained(f"class A:\n    'What.\\n\\n    Args:\\n        a: x.'\n    {made}") == []


MOST_OF_WHOLE_CONFIGURATION = 20
"""Functions that may take the whole configuration: those that resolve it."""


def takes_configuration(source):
    """Functions with a parameter that is the whole configuration, or a function of it."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and any(one.annotation and "RunConfig" in ast.unparse(one.annotation) for one in parameters(node))
    ]


def test_the_configuration_is_resolved_once():
    found = {path.relative_to(PACKAGE): takes_configuration(path.read_text()) for path in FILES}
    assert {path.parts[0] for path, names in found.items() if names} == {"config"}
    assert sum(map(len, found.values())) <= MOST_OF_WHOLE_CONFIGURATION


def test_taking_the_configuration_is_seen():
    assert takes_configuration("def f(a: int, *, b: 'RunConfig'): ...\ndef g(a: Plan): ...") == ["f"]


def guesses(source):
    """`assert isinstance(...)`, and reading our settings by getattr with a default: their types say what they have."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    from_config = [node for node in imports if (node.module or "").startswith("alignlab.config")]
    ours = {alias.name for node in from_config for alias in node.names}
    found = [
        ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Assert) and calls(node.test, "isinstance")
    ]
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        typed = [(one.arg, ast.unparse(one.annotation)) for one in parameters(function) if one.annotation]
        settings = {name for name, annotation in typed if ours & set(re.findall(r"\w+", annotation))}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and is_part(node.value, settings):
                settings |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif calls(node, "getattr") and len(node.args) == 3 and is_part(node.args[0], settings):
                found.append(ast.unparse(node))
    return found


def calls(node, name):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def is_part(node, names):
    """Whether an expression is one of these names, or an attribute below it."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in names


def test_settings_are_read_by_their_types():
    assert {str(path.relative_to(PACKAGE)): found for path in FILES if (found := guesses(path.read_text()))} == {}


def test_a_guess_is_seen():
    taking = "from alignlab.config.plan import Plan\ndef f(plan: 'Plan', model):\n    "
    assert guesses(f"{taking}return getattr(plan.algorithm, 'beta', 1)") == ["getattr(plan.algorithm, 'beta', 1)"]
    assert guesses(f"{taking}own = plan.algorithm\n    getattr(own, 'beta', 1)") == ["getattr(own, 'beta', 1)"]
    assert guesses(f"{taking}return getattr(model, 'beta', 1)") == []
    assert guesses(f"{taking}assert isinstance(plan, Plan)") == ["assert isinstance(plan, Plan)"]
