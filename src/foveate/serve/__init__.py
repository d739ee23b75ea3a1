"""A model behind the OpenAI interface: completions, chat and responses over HTTP, many at once.

``engine`` generates, in a thread of its own; ``app`` is the ASGI application; ``server`` listens.
"""

import importlib.util

from foveate.errors import FoveateError

NEEDED = ("fastapi", "uvicorn")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    raise FoveateError(f"serving needs {', '.join(missing)}: pip install 'foveate[serve]'")

from foveate.serve.app import build_app, build_engine  # noqa: E402
from foveate.serve.server import listen, run, served  # noqa: E402

__all__ = ["build_app", "build_engine", "listen", "run", "served"]
