"""The API's process: settings, application, HTTPS with certificates on both sides until SIGTERM."""

from __future__ import annotations

import sys

from sekisho.center.api.app import create_app
from sekisho.center.web.serving import serve

if __name__ == "__main__":
    sys.exit(serve("api", create_app))
