"""scripts/release.py as a module."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_SPEC = spec_from_file_location("release", Path(__file__).parents[2] / "scripts" / "release.py")
assert _SPEC is not None
assert _SPEC.loader is not None
release = module_from_spec(_SPEC)
_SPEC.loader.exec_module(release)
