"""The floors of the house: imports go down only, no circles, Ray on its spine, small rooms with names."""

import ast
import re
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlaif_ray"

WORDS = {"__init__", "core", "errors", "config", "config_data", "config_execution", "config_feedback", "config_rl", "config_thesis"}
MATHS = {
    "labels", "barriers", "sample_weights", "splits", "folds", "execution.simulator", "execution.kernel", "execution.costs",
    "execution.caps", "execution.account", "execution.terms", "execution.slicing", "data.synthetic", "data.clean", "data.sessions",
    "data.events", "data.universe", "data.asof", "data.standing", "data.tables", "data.revisions",
}  # fmt: skip
MATHS_FOLDERS = {"features", "portfolio", "backtest"}
MINDS = {"strategies", "llm"}
MINDS_FOLDERS = {"text", "forecast", "agents", "rl", "feedback"}
WORLD = {
    "runs", "ledger", "vault", "report", "charts", "results", "artefacts", "backtest.engine", "backtest.episodes", "gate_report",
    "policies", "improve_result", "improve_report",
}  # fmt: skip
WORLD_FOLDERS = {"data", "execution", "ops"}
RLLIB = {f"rl.{name}" for name in ("td3", "sac", "replay", "learner", "rollout", "batched_members")}
ON_RAY = {"ray_runtime", "plan", "pipeline", "validate", "improve", "improve_contest", "sweep", "training_on_ray", "ops.telemetry"} | RLLIB
DOORS = {"cli", "cli_features", "cli_feedback", "cli_lake", "cli_thesis"}

LIBRARIES = {
    0: {"numpy", "polars", "pyarrow", "pydantic", "yaml"},
    1: {"scipy", "numba", "talib", "skfolio", "sklearn", "statsmodels", "arch", "hmmlearn", "exchange_calendars", "pandas"},
}
NETWORK = {"socket", "urllib", "http", "requests", "httpx", "aiohttp", "websockets", "anthropic"}
IMPURE = {"time", "random", "secrets", "uuid", "os", "io", "pathlib", "shutil", "tempfile", "subprocess"} | NETWORK


def floor(module: str) -> int:
    """Floor of a module, named from the package (`data.lake`). What is not in DESIGN's table fails here, by name."""
    folder, _, leaf = module.partition(".")
    if module in DOORS:
        return 5
    if module in ON_RAY or leaf.endswith("on_ray") or folder == "serve":
        return 4
    if module in WORDS:
        return 0
    if module in WORLD:
        return 3
    if module in MATHS or folder in MATHS_FOLDERS:
        return 1
    if module in MINDS or folder in MINDS_FOLDERS:
        return 2
    if folder in WORLD_FOLDERS:
        return 3
    raise AssertionError(f"rlaif_ray/{module.replace('.', '/')}.py stands on no floor; give it one")


@cache
def sources() -> dict[str, ast.Module]:
    """Module name (from the package; a folder's `__init__` goes by the folder's name) -> its syntax tree."""
    trees = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        trees[name.removesuffix(".__init__")] = ast.parse(file.read_text(), str(file))
    return trees


def imported(tree: ast.AST) -> set[str]:
    """Full dotted names of all imports, wherever they stand."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}; imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(tree: ast.AST) -> set[str]:
    """Modules of this package that are imported: the longest prefix that is a module."""
    found = set()
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] == "rlaif_ray":
            prefixes = (".".join(parts[1:n]) for n in range(len(parts), 1, -1))
            found.add(next((p for p in prefixes if p in sources()), "__init__"))
    return found


def external_imports(tree: ast.AST) -> set[str]:
    roots = {name.split(".")[0] for name in imported(tree)}
    return roots - {"rlaif_ray"} - sys.stdlib_module_names


def test_every_module_stands_on_a_floor_and_imports_go_down_only():
    up = []
    for module, tree in sources().items():
        above = [other for other in own_imports(tree) if floor(other) > floor(module)]
        up += [f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})" for other in above]
    assert not up


def test_no_circles():
    graph = {module: own_imports(tree) - {module} for module, tree in sources().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"imports go in a circle: {' -> '.join(error.args[1])}") from None


def test_minds_never_import_each_other():
    sideways = []
    for module, tree in sources().items():
        if floor(module) == 2:
            mind = module.split(".")[0]
            sideways += [f"{module} imports {other}" for other in own_imports(tree) if floor(other) == 2 and other.split(".")[0] != mind]
    assert not sideways


def test_ray_is_imported_on_its_spine_only():
    off = [module for module, tree in sources().items() if "ray" in external_imports(tree) and floor(module) != 4]
    assert not off


def test_each_floor_uses_its_libraries_only():
    words, maths = LIBRARIES[0], LIBRARIES[0] | LIBRARIES[1]
    extra = {m: external_imports(t) - (words if floor(m) == 0 else maths) for m, t in sources().items() if floor(m) <= 1}
    assert not {m: names for m, names in extra.items() if names}


def test_maths_is_pure():
    """No disk, network, clock or hidden random state on floor 1."""
    impure = []
    for module, tree in sources().items():
        if floor(module) != 1:
            continue
        impure += [f"{module} imports {name}" for name in imported(tree) if name.split(".")[0] in IMPURE]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                if re.fullmatch(r"(np|numpy)\.random\.(?!default_rng$|Generator$|SeedSequence$|PCG64$|Philox$)\w+", text):
                    impure.append(f"{module}:{node.lineno} uses numpy's global random state: {text}")
                if node.attr in {"now", "utcnow", "today"}:
                    impure.append(f"{module}:{node.lineno} reads the clock: {text}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                impure.append(f"{module}:{node.lineno} opens a file")
    assert not impure


def test_minds_reach_the_network_only_through_llm():
    reaching = {m: {n.split(".")[0] for n in imported(t)} & NETWORK for m, t in sources().items() if floor(m) == 2 and m != "llm"}
    assert not {m: names for m, names in reaching.items() if names}


def test_library_classes_never_see_the_config_tree():
    """Below Ray and the doors, sections become keywords in each folder's `build`; a run only keeps its config."""
    trees = {"config", "config_feedback"}
    free = {"runs", "config"}
    seeing = [m for m, t in sources().items() if trees & own_imports(t) and floor(m) < 4 and m not in free and not is_folder(m)]
    assert not seeing


def is_folder(module: str) -> bool:
    return (PACKAGE / module.replace(".", "/")).is_dir()


def test_rooms_are_small():
    # core is the one place where the words of the whole house stand together.
    limits = {"core": 700}
    long = []
    for module, tree in sources().items():
        file = PACKAGE / module.replace(".", "/") / "__init__.py" if is_folder(module) else PACKAGE / f"{module.replace('.', '/')}.py"
        lines = len(file.read_text().splitlines())
        if lines > limits.get(module, 500):
            long.append(f"{module}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > 80:
                    long.append(f"{module}.{node.name}: {size} lines")
    long += [f"{file.name}: over 30 lines" for file in (ROOT / "jobs").glob("*.py") if len(file.read_text().splitlines()) > 30]
    assert not long


def test_names_say_what_things_are():
    drawers = {"utils", "util", "common", "helpers", "base", "misc"}
    vague = [module for module in sources() if drawers & set(module.split("."))]
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Handler|Processor)$", node.name):
                vague.append(f"{module}.{node.name}")
    assert not vague


def test_every_module_says_what_it_is():
    silent = [module for module, tree in sources().items() if not ast.get_docstring(tree)]
    assert not silent


def test_library_neither_prints_nor_swallows_errors():
    found = []
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and module not in DOORS:
                found.append(f"{module}:{node.lineno} prints")
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
                if broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                    found.append(f"{module}:{node.lineno} catches everything and raises nothing")
    assert not found


def test_ray_starts_in_one_place():
    starting = []
    for module, tree in sources().items():
        calls = (ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call))
        if module != "ray_runtime" and "ray.init" in calls:
            starting.append(module)
    assert not starting


def test_a_job_is_a_door_to_a_verb():
    """Every file in jobs/ calls the verb of its own name."""
    from rlaif_ray.cli import VERBS

    jobs = sorted((ROOT / "jobs").glob("*.py"))
    assert jobs
    for job in jobs:
        (verb,) = (v for v in VERBS if re.sub("[- ]", "_", v) == job.stem)
        words = ", ".join(f'"{word}"' for word in verb.split())
        assert f"main([{words}, *sys.argv[1:]])" in job.read_text()


def test_the_wheel_takes_along_all_that_is_not_python():
    """Templates and the like reach the wheel only where pyproject names them; jobs/ and tests/ stay out of it."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tools["package-data"]["rlaif_ray"]
    others = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts]
    assert not [str(p) for p in others if not any(p.match(pattern.removeprefix("**/")) for pattern in patterns)]
    assert tools["packages"]["find"]["include"] == ["rlaif_ray*"]


def test_no_path_of_a_machine_and_no_registry_is_written_anywhere():
    folders = ("rlaif_ray", "jobs", "tests", "benchmarks", "clusters", "serve_configs", ".ci")
    files = [f for f in ROOT.iterdir() if f.is_file()] + [f for folder in folders for f in (ROOT / folder).rglob("*")]
    files = [f for f in files if ".peers" not in f.parts]  # environments of others
    written = re.compile(r"(?<![\w.~])/(?:home|root|Users|opt)/\w+|--(?:extra-)?index-url")
    found = []
    for file in files:
        if file.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".j2", ""} and file.is_file() and file != Path(__file__):
            found += [f"{file.relative_to(ROOT)}: {hit}" for hit in written.findall(file.read_text())]
    assert not found
