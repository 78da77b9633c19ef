"""The HTTP server of repositories: key/value by digest, files by path, hoards, and pages to look at."""

from importlib.util import find_spec

from spraydry.errors import UsageError

_NEEDED = ("hypercorn", "jinja2", "prometheus_client", "pygments", "starlette", "trio")

if missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise UsageError(f"serving needs the Python package {missing[0]}: pip install 'spraydry[serve]'")
