"""The Django project of tests: pytest fixture `django_project`, a copy of django_shop with its database.

A test starts it as it likes: `manage.py runserver` with Django's reloader, or `shop.wsgi` and `shop.asgi` under a
server. Its files may be changed, because they are the test's own. `/fires/N` fires the probe of shop/probes.py N times.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "django_shop"


@pytest.fixture
def django_project(tmp_path):
    """The directory of the project, which is where its processes must be started, with an empty table of orders."""
    project = shutil.copytree(PROJECT, tmp_path / "django_shop", ignore=shutil.ignore_patterns("__pycache__"))
    migrate = [sys.executable, "manage.py", "migrate", "--run-syncdb", "--verbosity", "0"]
    subprocess.run(migrate, cwd=project, check=True)
    return project
