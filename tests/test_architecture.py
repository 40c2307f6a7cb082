"""The house keeps its shape: import directions, file names, docstrings, taken names."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HUB_ROOMS = ("configuration_bit", "modeling_bit", "processing_bit")
SHIPPED = (*HUB_ROOMS, "bit_speech", "datasets_scripts")
# A room may import the rooms listed for it (and itself).
ALLOWED = {
    "configuration_bit": set(),
    "modeling_bit": {"configuration_bit"},
    "processing_bit": {"configuration_bit"},
    "bit_speech.data": set(HUB_ROOMS),
    "bit_speech.simulation": {*HUB_ROOMS, "bit_speech.data"},
    "bit_speech.decoding": {"configuration_bit"},
    "bit_speech.evaluation": {*HUB_ROOMS, "bit_speech.data", "bit_speech.decoding"},
    "bit_speech.training": {*HUB_ROOMS, "bit_speech.data", "bit_speech.decoding", "bit_speech.evaluation"},
    "bit_speech.hub": {*HUB_ROOMS, "bit_speech", "bit_speech.arguments", "bit_speech.data", "bit_speech.evaluation"},
    "datasets_scripts": {"configuration_bit", "bit_speech.data"},
}
# Helpers every room of the laboratory may use, and converters too.
SHARED = {"bit_speech.ctc", "bit_speech.files", "bit_speech.import_utils", "bit_speech.machine"}
HUB_PACKAGES = {"numpy", "torch", "transformers", "tokenizers", *HUB_ROOMS}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Absolute imports of a file: (module, line, whether it is guarded by try)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        node
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        for part in attempt.body
        for node in ast.walk(part)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, node in guarded) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module, node.lineno, node in guarded))
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).with_suffix("").parts[: -node.level])
            found.append((f"{package}.{node.module}" if node.module else package, node.lineno, node in guarded))
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] in HUB_ROOMS or parts[0] == "datasets_scripts":
        return parts[0]
    if parts[0] == "bit_speech":
        return ".".join(parts[:2])
    return None


def test_rooms_import_only_in_the_agreed_direction():
    wrong = []
    for path in python_files(*SHIPPED):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        room = room_of(module)
        if room not in ALLOWED:
            continue
        for name, line, _ in imports(path):
            other = room_of(name)
            if other is None or other == room or other in ALLOWED[room]:
                continue
            if room.startswith(("bit_speech", "datasets_scripts")) and other in SHARED:
                continue
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_hub_rooms_import_nothing_a_hub_user_may_lack():
    wrong = []
    for path in python_files(*HUB_ROOMS):
        for name, line, guarded in imports(path):
            top = name.split(".")[0]
            if top not in HUB_PACKAGES and top not in sys.stdlib_module_names and not guarded:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_hub_file_names_are_unique_over_the_rooms():
    names = [path.name for path in python_files(*HUB_ROOMS) if path.name != "__init__.py"]
    assert len(names) == len(set(names))


def test_no_docstring_line_of_the_hub_rooms_looks_like_a_relative_import():
    pattern = re.compile(r"^\s*(from\s+\.\S*\s+import|import\s+\.)")
    wrong = []
    for path in python_files(*HUB_ROOMS):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                for line in (ast.get_docstring(node) or "").splitlines():
                    if pattern.match(line):
                        wrong.append(f"{path.name}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_every_public_name_has_a_docstring():
    missing = []
    for path in python_files(*SHIPPED):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(ROOT)
        if ast.get_docstring(tree) is None:
            missing.append(f"{where}: module")

        def visit(node: ast.AST, prefix: str, where: Path = where) -> None:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    public = not child.name.startswith("_")
                    if public and ast.get_docstring(child) is None:
                        missing.append(f"{where}:{child.lineno}: {prefix}{child.name}")
                    if isinstance(child, ast.ClassDef) and public:
                        visit(child, f"{child.name}.")

        visit(tree, "")
    assert not missing, "\n".join(missing)


def test_no_public_class_takes_a_name_of_transformers():
    import transformers

    taken = []
    for path in python_files(*HUB_ROOMS, "bit_speech"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            if public and (re.match(r"Bit[A-Z]", node.name) or hasattr(transformers, node.name)):
                taken.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not taken, "\n".join(taken)


def test_files_stay_short_enough_to_read():
    long = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in python_files(*SHIPPED, "examples", "benchmarks", "space", "tests")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 800
    ]
    assert not long, "\n".join(long)


def test_examples_fit_on_two_hundred_lines():
    for path in python_files("examples"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 200, path.name


def test_nothing_is_unpickled():
    unsafe = re.compile(r"pickle\.load|allow_pickle\s*=\s*True|weights_only\s*=\s*False")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in python_files(*SHIPPED, "examples", "benchmarks", "space")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if unsafe.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_the_library_is_fast_and_light():
    code = (
        "import sys, time; start = time.process_time(); import bit_speech; "
        "print(time.process_time() - start); "
        "heavy = ('datasets', 'matplotlib', 'numba', 'scipy', 'accelerate', 'h5py'); "
        "print(','.join(name for name in heavy if name in sys.modules))"
    )
    # Processor time, and the least of three: the bound is on the library, not on what else the machine is doing.
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.splitlines()
        for _ in range(3)
    ]
    assert runs[0][1:] in ([], [""]), f"heavy packages at import: {runs[0][1:]}"
    assert min(float(run[0]) for run in runs) < 1.5


@pytest.mark.parametrize("room", SHIPPED)
def test_every_room_has_a_docstring_that_says_what_it_is(room):
    tree = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))
    assert len(ast.get_docstring(tree) or "") > 20
