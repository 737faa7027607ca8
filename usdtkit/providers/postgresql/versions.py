"""What differs between the major versions of PostgreSQL, of all that the queries are found by.

Input: the file of a server's program. Output: its major version, and a `Version`. The numbers are from PostgreSQL's
headers (utils/plancache.h).
"""

from __future__ import annotations

import mmap
import re

from usdtkit.errors import NotFoundError
from usdtkit.files import OpenFile
from usdtkit.records import NamedTuple


class Version(NamedTuple):
    """Some major versions: `query_string` is the offset of CachedPlanSource.query_string."""

    majors: range
    query_string: int


VERSIONS = (Version(range(10, 18), query_string=16), Version(range(18, 19), query_string=24))
_VERSION = rb"PostgreSQL (\d+)[^\0]{0,99} on "  # as version() has it, in the program


def version_of(program: str) -> Version | None:
    """What is known of the version that a program file has; None if it does not say it, or is newer than that."""
    try:
        file = OpenFile.open(program)
    except NotFoundError:  # its container has ended
        return None
    with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as content:
        found = re.search(_VERSION, content)
        major = int(found[1]) if found else 0
    return next((version for version in VERSIONS if major in version.majors), None)
