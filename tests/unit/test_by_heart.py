"""A wheel carries the same wherever it is built: tools say what they would load without a look at the machine."""

import pytest

from usdtkit import processes, resolve, scan, targets
from usdtkit.cli import tool_names
from usdtkit.cli.bundle import programs_of
from usdtkit.elf.image import Image
from usdtkit.errors import UsageError


def recorded():
    """The texts of all tools by command line, and the tools that need to be told what to trace."""
    texts, untold = [], []
    for name in tool_names():
        try:
            texts += programs_of(name)
        except UsageError:
            untold.append(name)
    return texts, untold


def test_no_library_program_or_process_is_needed(monkeypatch):
    here = recorded()

    def looked(*arguments, **options):
        raise AssertionError(f"this machine was looked at: {arguments}")

    monkeypatch.setattr(Image, "open", looked)
    for module in (processes, resolve, scan, targets):
        for name in ("resolve", "mapped_by", "mapped_files", "all_mapped", "everything", "named", "running_pids"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, looked)
    with pytest.raises(AssertionError, match="looked at"):
        list(programs_of("gethostlatency -d 1"))  # which is told to look
    assert recorded() == here
    assert here[1] == ["argdist", "probelatency", "trace"]


@pytest.mark.parametrize("name", [name for name in tool_names() if name not in ("argdist", "probelatency", "trace")])
def test_each_says_what_it_loads(name):
    programs = list(programs_of(name))
    assert programs
    assert all(line.partition(" ")[0] == name and len(text) > 500 for line, text in programs)
    assert len(set(programs)) == len(programs)
