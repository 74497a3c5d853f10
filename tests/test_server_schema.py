"""The server against its own OpenAPI document, as schemathesis tries it: with what fits it, and what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import serving

pytest.importorskip("schemathesis")
COMMAND = Path(sys.executable).with_name("schemathesis")
# Requests that fit the document may still ask for what a model cannot make, or meet a queue that is full.
EXPECTED = ["200", "404", "409", "422", "429"]


def test_the_document_holds(tmp_path):
    nightly = os.environ.get("SDLTX_NIGHTLY")
    phases, count = ("examples,coverage,fuzzing,stateful", 50) if nightly else ("examples,fuzzing,stateful", 2)
    config = tmp_path / "schemathesis.toml"
    config.write_text(f"[checks.positive_data_acceptance]\nexpected-statuses = {json.dumps(EXPECTED)}\n")
    with serving(tmp_path / "d", "--queue", "3", "--largest", "96x96", "--longest", "1", "--most-steps", "1") as server:
        arguments = ["--phases", phases, "--max-examples", count, "--generation-deterministic", "--no-color"]
        # Streams of all events do not end.
        arguments += ["--exclude-path", "/v1/events", "--request-timeout", 30]
        command = [COMMAND, "--config-file", config, "run", f"{server.url}/openapi.json", *arguments]
        done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=900, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "No examples" not in done.stdout
        assert server.ask("/health")[0] == 200
