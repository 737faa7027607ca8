"""Every relative link of every document leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BCC = (
    *("trace", "argdist", "funccount", "funclatency", "funcslower", "funcinterval", "stackcount", "tplist"),
    *("gethostlatency", "mysqld_qslower", "dbslower", "dbstat", "sslsniff", "bashreadline", "memleak", "deadlock"),
    *("threadsnoop", "offcputime", "profile", "ucalls", "uflow", "ugc", "uobjnew", "ustat", "uthreads"),
)
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    missing = [
        target for target in targets if "://" not in target and not (document.parent / target).resolve().exists()
    ]
    assert not missing


def test_documents_are_found():
    assert {"README.md", "CHANGELOG.md", "architecture.md", "api.md"} <= {document.name for document in DOCUMENTS}


def test_every_tool_has_a_page():
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__"}
    assert tools == {path.stem for path in (ROOT / "docs" / "tools").glob("*.md")} - {"README"}


def test_every_command_and_tool_is_compared_with_bccs():
    text = (ROOT / "docs" / "bcc.md").read_text()
    # What bcc has for user space.
    for name in BCC:
        assert re.search(rf"^\| `{name}` \|", text, re.M), name
