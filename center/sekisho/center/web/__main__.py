"""The web service's process: settings, application, HTTPS until SIGTERM."""

from __future__ import annotations

import sys

from sekisho.center.web.app import create_app
from sekisho.center.web.serving import serve

if __name__ == "__main__":
    sys.exit(serve("web", create_app))
