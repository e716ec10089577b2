"""Prints an apt source for the backports suite, made from the machine's own source of its release.

Same address, same key, same options: a mirror or proxy the owner chose stays the owner's choice.
Run by setup/apt.sh with the system's Python: `backports.py CODENAME [APT_DIRECTORY]`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

OWN = {"types", "uris", "suites", "components", "enabled"}
RENAMED = {"arch": "Architectures", "lang": "Languages", "target": "Targets"}

Stanza = dict[str, str]


def one_line(text: str) -> list[Stanza]:
    """Sources of the form `deb [options] URI SUITE COMPONENT…`."""
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line.strip())
        if match:
            options, uri, suite, components = match.groups()
            stanza = {"Types": "deb", "URIs": uri, "Suites": suite, "Components": components.strip()}
            for option in (options or "").split():
                key, _, value = option.partition("=")
                stanza[RENAMED.get(key, key.title())] = value.replace(",", " ")
            found.append(stanza)
    return found


def deb822(text: str) -> list[Stanza]:
    """Sources of the form `Field: value`, stanzas divided by an empty line."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        stanza: Stanza = {}
        field = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and field:
                stanza[field] += "\n" + line.rstrip()
            elif ":" in line:
                field, _, value = line.partition(":")
                stanza[field] = value.strip()
        if stanza:
            found.append(stanza)
    return found


def backports(sources: list[Stanza], codename: str) -> str:
    """The first source of `codename` itself, turned into one of its backports; empty when there is none."""
    for stanza in sources:
        low = {key.lower(): value for key, value in stanza.items()}
        fits = "deb" in low.get("types", "").split() and codename in low.get("suites", "").split()
        if fits and "main" in low.get("components", "").split() and low.get("enabled", "yes").lower() != "no":
            kept = {key: value for key, value in stanza.items() if key.lower() not in OWN}
            made = {"Types": "deb", "URIs": low["uris"], "Suites": f"{codename}-backports", "Components": "main"}
            return "".join(f"{key}: {value}\n" for key, value in (made | kept).items())
    return ""


def read(folder: Path) -> list[Stanza]:
    """Every source apt would read below `folder`, in its order."""
    found = one_line(_text(folder / "sources.list"))
    for path in sorted((folder / "sources.list.d").glob("*")):
        if path.suffix == ".list":
            found += one_line(_text(path))
        elif path.suffix == ".sources":
            found += deb822(_text(path))
    return found


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def main() -> int:
    codename = sys.argv[1]
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "/etc/apt")
    made = backports(read(folder), codename)
    if not made:
        print(f"No apt source of {codename} main in {folder}: backports cannot be derived from it.", file=sys.stderr)
        return 3
    print(made, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
