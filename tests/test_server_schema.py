"""The server against its own OpenAPI document, as schemathesis tries it: with what fits the document, and what does not."""

from __future__ import annotations

import json
import os

import pytest
from serving import serving

schemathesis = pytest.importorskip("schemathesis")

# Requests that fit the document may still ask for what a model cannot make, or meet a queue that is full.
_EXPECTED = ["200", "404", "409", "422", "429"]


def test_the_document_holds(tmp_path):
    import subprocess
    import sys

    count = 25 if os.environ.get("SDLTX_NIGHTLY") else 3
    with serving(tmp_path / "d", "--queue", "3", "--largest", "96x96", "--longest", "1", "--most-steps", "1") as server:
        (tmp_path / "schemathesis.toml").write_text(
            "[checks.positive_data_acceptance]\n"
            f"expected-statuses = {json.dumps(_EXPECTED)}\n"
            "[checks.unsupported_method]\nenabled = false\n"
        )
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(tmp_path / "schemathesis.toml"), "run", f"{server.url}/openapi.json"),
                *("--max-examples", str(count), "--generation-deterministic", "--continue-on-failure", "--no-color"),
                *("--exclude-path-regex", "events$", "--request-timeout", "30"),
            ],
            capture_output=True,
            text=True,
            timeout=900,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.process.poll() is None
