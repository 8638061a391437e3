"""The wheel: it carries conf/, sweeps/ and launchers/, and works from any folder without the checkout."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORT = (
    "model.pretraining.rows=200",
    "dataset.pairs=100",
    "dataset.exact_samples=100",
    "generator.samples=1",
    "trainer.max_steps=2",
)


def run(*command, cwd, env=None, timeout=300):
    """The output of a command that must end well."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the sdist of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(target), cwd=ROOT)
    return target


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A folder with the package from the wheel, and nothing of the checkout."""
    target = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=target)
    return target


def data_files(root):
    """Every YAML, Python and template file that the package needs, as the wheel names it."""
    names = {
        f"alignlab/{path.relative_to(root)}"
        for folder in ("conf", "sweeps", "launchers")
        for path in (root / folder).rglob("*.yaml")
    }
    patterns = ("*.py", "*.j2", "*.js", "*.css", "*.gz", "vendor/*")
    own = (path for pattern in patterns for path in (root / "alignlab").rglob(pattern))
    return names | {str(path.relative_to(root)) for path in own}


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = data_files(ROOT)
    assert len(wanted) > 80
    assert wanted - names == set(), "the wheel lacks files"
    package = {name for name in names if ".dist-info/" not in name}
    assert package - wanted == set(), "the wheel carries what is no part of the package"
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path / "out"), cwd=unpacked)
    (again,) = (tmp_path / "out").glob("*.whl")
    (wheel,) = built.glob("*.whl")
    contents = [{item.filename: item.CRC for item in zipfile.ZipFile(path).infolist()} for path in (wheel, again)]
    assert contents[0] == contents[1]


@pytest.fixture
def elsewhere(installed, tmp_path):
    """(arguments) -> the output of the installed package's command, in a folder of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "ALIGNLAB"))}
    env |= {"PYTHONPATH": str(installed), "ALIGNLAB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    where = "import alignlab; print(alignlab.__file__)"
    assert run(sys.executable, "-c", where, cwd=tmp_path, env=env).startswith(str(installed)), "not the checkout"
    return lambda *arguments: run(sys.executable, "-m", "alignlab", *arguments, cwd=tmp_path, env=env)


@pytest.mark.slow
def test_the_installed_command_finds_its_configs(elsewhere):
    committed = (ROOT / "docs" / "default_config.yaml").read_text().partition("\n")[2]
    assert elsewhere("--cfg", "job") == committed + "\n" or elsewhere("--cfg", "job") == committed
    assert elsewhere("--config-name", "w_front", "--cfg", "job").startswith("w: 0\n")
    assert "model" in elsewhere("--help")


@pytest.mark.slow
def test_the_installed_command_trains(elsewhere, tmp_path):
    elsewhere(*SHORT)
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "runs" / "modpo").rglob("result.json"))
    assert record["status"] == "done"
    assert set(record["metrics"]) >= {"helpful", "safe", "kl"}
    adapter = next((tmp_path / "runs" / "modpo").rglob("adapter"))
    assert (adapter / "adapter_config.json").is_file()
