"""The recipe of a set: where rules come from, what they may do, and what they may cost. TOML, read strictly.

[[rules]]                     # Suricata rules; ours are always in, with their own actions
name = "et-open"
index = "et/open"             # a name in suricata-update's index, or url = "https://...", or path = "..."

[[yara]]
name = "signature-base"
path = "signature-base.tar.xz"      # directory, file or archive; or url = "https://..." with sha256 = "..."
leave_out = ["generic_*.yar"]

[[hashes]]
name = "known"
path = "known.sha256"

[[policy]]                    # the first line that names a rule decides; a rule no line names raises alerts
action = "drop"               # or "alert", "off"
urgent = true                 # drops at once, without a trial during the soak
categories = ["ET MALWARE"]   # the first words of a rule's msg
sources = ["et-open"]         # also classtypes and sids; where several are given, all must fit

[budget]
memory_mb = 400               # the engine at rest
[[budget.leave_out]]          # what goes first when it does not fit
categories = ["ET DELETED"]

[corpora]
detect = "pcaps/attacks"      # each must raise an alert
benign = "pcaps/office"       # none may raise a drop
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput

RECIPE_CAP = 1 << 20
OWN = "sekisho"
"""Name of our own rules as a source; no other may have it."""

_Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,39}$")]
_Words = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Sid = Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)]
_Url = Annotated[str, msgspec.Meta(pattern="^(https?://[^ ]{1,2000})?$")]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
_Megabytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]


class Selector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules by what they are: of every field that is given, one entry must fit. With no field, every rule."""

    sources: list[_Name] = []
    categories: list[_Words] = []
    """First words of `msg`: "ET MALWARE" fits "ET MALWARE Foo", not "ET MALWARES"."""
    classtypes: list[_Words] = []
    sids: list[_Sid] = []


class PolicyLine(Selector, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What rules may do."""

    action: Literal["drop", "alert", "off"]
    urgent: bool = False


class RuleSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Suricata rules from one of: suricata-update's index, a URL, a local file, directory or archive."""

    name: _Name
    index: str = ""
    url: _Url = ""
    path: str = ""
    as_written: bool = False
    """Keep the actions that stand in the rules (an office's own rules); policy then speaks of them only by sid."""


class FileSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """YARA rules or hash lists from a local file, directory or archive, or from a URL."""

    name: _Name
    path: str = ""
    url: _Url = ""
    sha256: _Sha256 = ""
    """Of the file or archive; needed with `url`."""
    leave_out: list[_Words] = []
    """File names, "*" and "?" stand for any characters."""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the set may cost on a box."""

    memory_mb: _Megabytes = 400
    """Resident memory of the engine at rest."""
    peak_mb: _Megabytes = 600
    """The most it had while it loaded."""
    yara_mb: _Megabytes = 256
    """Resident memory of a scan worker with the compiled YARA rules."""
    yara_peak_mb: _Megabytes = 512
    """The most the YARA compiler had."""
    leave_out: list[Selector] = []
    """Least worth first: left out one after the other until the rules fit."""
    leave_out_yara: list[_Name] = []
    """Likewise sources of YARA rules."""


class Corpora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Directories of captures and files the set is tried on. Empty: none."""

    detect: str = ""
    """Captures (*.pcap): each must raise an alert."""
    benign: str = ""
    """Captures: none may raise a drop."""
    malicious: str = ""
    """Files YARA must find."""
    clean: str = ""
    """Files YARA must leave alone; a source file whose rules do not is left out."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a set is made of. Relative paths are below the recipe's own directory."""

    rules: list[RuleSource] = []
    yara: list[FileSource] = []
    hashes: list[FileSource] = []
    policy: Annotated[list[PolicyLine], msgspec.Meta(max_length=1000)] = []
    budget: Budget = Budget()
    corpora: Corpora = Corpora()
    deltas: Annotated[int, msgspec.Meta(ge=0, le=32)] = 7
    """From so many of the latest sets there is a delta."""
    max_removed: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """A set that lacks a larger share of the Suricata or YARA rules of the one before is refused: a source that shrank
    so is more likely broken than better."""
    settings: str = ""
    """A box's settings (TOML), to measure the engine as that box runs it. Empty: as a new box does."""
    suricata_min: Annotated[str, msgspec.Meta(pattern=r"^[0-9.]{0,20}$")] = "7.0.0"
    suricata_below: Annotated[str, msgspec.Meta(pattern=r"^[0-9.]{0,20}$")] = "9"


def load(path: Path) -> Recipe:
    """The recipe in a file, its paths made absolute.

    Raises:
        DeviceFault: the file cannot be read.
        RejectedInput: it is not a recipe; the message names the place.

    """
    try:
        with path.open("rb") as source:
            data = source.read(RECIPE_CAP + 1)
    except OSError as err:
        raise DeviceFault(f"Cannot read the recipe {path}: {err.strerror}.") from err
    if len(data) > RECIPE_CAP:
        raise RejectedInput(f"The recipe {path} is larger than {RECIPE_CAP >> 20} MB.")
    try:
        recipe = msgspec.convert(tomllib.loads(data.decode()), Recipe)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as err:
        raise RejectedInput(f"The recipe {path} cannot be understood: {err}.") from err
    _check(recipe)
    return _absolute(recipe, path.absolute().parent)


def _check(recipe: Recipe) -> None:
    names = [source.name for source in recipe.rules]
    names += [source.name for source in (*recipe.yara, *recipe.hashes)]
    for name in names:
        if name == OWN or names.count(name) > 1:
            raise RejectedInput(f"Two sources are called {name!r}.", f"{OWN!r} is our own; give each another name.")
    for rules in recipe.rules:
        if sum((bool(rules.index), bool(rules.url), bool(rules.path))) != 1:
            raise RejectedInput(f"The source {rules.name!r} needs one of index, url and path.")
    for files in (*recipe.yara, *recipe.hashes):
        if bool(files.url) == bool(files.path):
            raise RejectedInput(f"The source {files.name!r} needs one of url and path.")
        if files.url and not files.sha256:
            raise RejectedInput(f"The source {files.name!r} is fetched, and has no sha256 to know it by.")
    for line in recipe.policy:
        if line.urgent and line.action != "drop":
            raise RejectedInput("Only a line of the policy that drops can be urgent.")
    known = {source.name for source in recipe.rules}
    selectors: list[Selector] = [*recipe.policy, *recipe.budget.leave_out]
    unknown = {name for line in selectors for name in line.sources} - known
    unknown |= set(recipe.budget.leave_out_yara) - {source.name for source in recipe.yara}
    if unknown:
        raise RejectedInput(f"The recipe speaks of sources it does not have: {', '.join(sorted(unknown))}.")
    if any(not _fields(selector) for selector in recipe.budget.leave_out):
        raise RejectedInput("An entry of budget.leave_out names nothing, and so would leave out every rule.")


def _fields(selector: Selector) -> bool:
    return bool(selector.sources or selector.categories or selector.classtypes or selector.sids)


def _absolute(recipe: Recipe, base: Path) -> Recipe:
    def at(path: str) -> str:
        return str(base / path) if path else ""

    corpora = recipe.corpora
    return msgspec.structs.replace(
        recipe,
        rules=[msgspec.structs.replace(source, path=at(source.path)) for source in recipe.rules],
        yara=[msgspec.structs.replace(source, path=at(source.path)) for source in recipe.yara],
        hashes=[msgspec.structs.replace(source, path=at(source.path)) for source in recipe.hashes],
        corpora=Corpora(
            detect=at(corpora.detect),
            benign=at(corpora.benign),
            malicious=at(corpora.malicious),
            clean=at(corpora.clean),
        ),
        settings=at(recipe.settings),
    )
