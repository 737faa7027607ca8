"""The application in Flask under Flask's own server, at a socket in the file system."""

import sys

from flask_app import app
from werkzeug.serving import run_simple

run_simple(f"unix://{sys.argv[1]}", 0, app, threaded=True)
