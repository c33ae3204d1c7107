"""`stockcast api`: the order API."""

from __future__ import annotations

import logging

from pipelines.operations.cli.options import ConfigOption, SetOption, settings_from


def api(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Serve the order API on api.host and api.port (127.0.0.1:8321), until Ctrl-C.

    Tokens come from STOCKCAST__API__READ_TOKEN, STOCKCAST__API__APPROVE_TOKEN or api.tokens_file. GET /openapi.json
    describes every request.
    """
    from pipelines.serving.server import run_api

    logging.getLogger().setLevel(logging.INFO)
    run_api(settings_from(config, overrides))
