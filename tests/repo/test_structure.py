"""What must stay true of the tree itself: the namespace, the lock file, no foreign host, the lint."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (
    "appliance",
    "inspect",
    "policy",
    "signatures",
    "telemetry",
    "firmware",
    "portal_agent",
    "center",
    "lab",
    "bench",
)


def tracked() -> list[Path]:
    """Files of the tree; without git (an unpacked archive) whatever is there."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    hidden = {".venv", ".git"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.relative_to(ROOT).parts)]


def test_what_people_read_has_one_word_for_one_thing() -> None:
    other = re.compile("ソフトウェア|遠隔支援|監視センター|隔離ファイルの解放")
    texts = [
        path
        for path in tracked()
        if path.suffix in {".toml", ".md", ".py", ".html"} and path.name != Path(__file__).name
    ]
    assert len(texts) > 1000
    assert not [(path.name, found) for path in texts if (found := other.findall(path.read_text(encoding="utf-8")))]


def test_no_file_breaks_the_namespace() -> None:
    wrong = [room for room in ROOMS if (ROOT / room / "__init__.py").exists()]
    wrong += [room for room in ROOMS if (ROOT / room / "sekisho" / "__init__.py").exists()]
    assert wrong == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_standard_inspect_is_not_shadowed_from_the_root() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import inspect; inspect.signature(print)"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_room_is_in_every_list() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["sources"]) == set(wheel["dev-mode-dirs"]) == set(ROOMS)
    assert set(wheel["only-include"]) == {f"{room}/sekisho" for room in ROOMS}
    assert set(project["tool"]["importlinter"]["root_packages"]) == {f"sekisho.{room}" for room in ROOMS}


def test_every_locked_package_has_a_hash_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra-index|find-links|trusted)", text, re.M)
    entries = re.split(r"^(?=\S)(?!#)", text, flags=re.M)
    packages = [entry for entry in entries if "==" in entry]
    assert len(packages) > 20
    assert [entry.split()[0] for entry in packages if "--hash=sha256:" not in entry] == []


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ \[;]", line)[0].lower()) for line in wanted}
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    assert names - locked == set()


def test_no_registry_host_in_the_tree() -> None:
    names = [b"pypi", b"python" + b"hosted", b"npm" + b"js", b"deb" + b"ian", b"ubuntu"]
    host = re.compile(rb"\b[a-z0-9.-]*(?:%b)\.(?:org|com|net)\b" % b"|".join(names), re.I)
    found = [f"{path.relative_to(ROOT)}: {host.findall(path.read_bytes())}" for path in tracked()
             if host.search(path.read_bytes())]  # fmt: skip
    assert found == []


def test_no_file_is_a_scanner_test_string() -> None:
    start = b"X5O!P%@AP" + rb"[4\PZX54(P^)"
    assert [path for path in tracked() if start in path.read_bytes()] == []


def test_rooms_import_in_their_layers_only() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_make_test_runs_every_check() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for command in ("ruff check", "ruff format --check", "mypy", "lint-imports", "-m pytest"):
        assert command in done.stdout
    assert done.stdout.strip().splitlines()[-1].endswith("-m pytest")
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_nothing_of_a_merge_is_left_in_a_file() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    found = []
    for path in tracked():
        if path.suffix in {".png", ".ico", ".pcap", ".woff2", ".gz", ".zst"}:
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{path.relative_to(ROOT)}: {line}" for line in lines if line.startswith(marks)]
    assert found == []
