"""The backports source is made from the machine's own, whatever its form, and never from a name of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "setup" / "backports.py"

DEB822 = """\
# the owner's mirror
Types: deb
URIs: http://mirror.invalid/security
Suites: bookworm-security
Components: main

Types: deb deb-src
URIs: http://mirror.invalid/main
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/owner.gpg
Check-Valid-Until: no
"""
ONE_LINE = """\
# deb http://off.invalid/ bookworm main
deb [arch=amd64 signed-by=/k.gpg trusted=yes] http://mirror.invalid/main bookworm main contrib # ours
deb http://mirror.invalid/main bookworm-updates main
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "bookworm", str(folder)], capture_output=True, text=True, check=False
    )


def test_from_deb822_with_its_key_and_options(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "x.sources").write_text(DEB822)
    assert run(tmp_path).stdout == (
        "Types: deb\nURIs: http://mirror.invalid/main\nSuites: bookworm-backports\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/owner.gpg\nCheck-Valid-Until: no\n"
    )


def test_a_key_inside_the_source_is_kept_whole(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    (tmp_path / "sources.list.d" / "x.sources").write_text(
        f"Types: deb\nURIs: http://m.invalid/\nSuites: bookworm\nComponents: main\n{key}"
    )
    assert run(tmp_path).stdout.endswith("Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n")


def test_from_one_line_with_its_options(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert run(tmp_path).stdout == (
        "Types: deb\nURIs: http://mirror.invalid/main\nSuites: bookworm-backports\nComponents: main\n"
        "Architectures: amd64\nSigned-By: /k.gpg\nTrusted: yes\n"
    )


def test_no_source_of_the_release_is_said(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://m.invalid/ trixie main\n")
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "bookworm" in done.stderr
