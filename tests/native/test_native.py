"""The native library's own tests, run under two sanitizers where a compiler is there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CMAKE = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(CMAKE is None, reason="there is no CMake")
@pytest.mark.skipif(not (ROOT / "native").is_dir(), reason="the native sources are not here")
def test_the_native_tests_pass_under_the_sanitizers(tmp_path: Path) -> None:
    """No wrong number, no write astray, no undefined behaviour, no leak."""
    assert CMAKE is not None
    configure = [CMAKE, "-S", str(ROOT), "-B", str(tmp_path), "-DGGUFSTEER_TESTS=ON", "-DCMAKE_BUILD_TYPE=Debug"]
    configured = subprocess.run(configure, capture_output=True, text=True, check=False)
    if configured.returncode != 0:
        pytest.skip(f"CMake finds no compiler: {configured.stderr.strip()[-300:]}")
    build = [CMAKE, "--build", str(tmp_path), "--target", "native_tests", "--config", "Debug"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (program,) = (path for path in tmp_path.rglob("native_tests*") if path.is_file() and path.suffix in ("", ".exe"))
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all native tests passed" in done.stdout
