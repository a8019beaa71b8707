"""The served document: valid, complete, and true of what the server does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import hypothesis
import pytest
import schemathesis
from helpers import ReplayModel
from hypothesis import HealthCheck
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import Case
from schemathesis.checks import not_a_server_error  # pyright: ignore[reportUnknownVariableType]
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from gptoss_mlx.engine import Engine
from gptoss_mlx.server.app import OPERATIONS, make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer

from .conftest import ANSWER, live, soon
from .every import ROUTES, unloaded

EXAMPLES = int(os.environ.get("GPTOSS_MLX_EXAMPLES", "20"))  # of each operation
# What is accepted beyond the document (a number in a string, say) is no error, and neither is a
# request that the document allows and that contradicts itself.
CHECKS: list[Any] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
    checks.allow_header_conformance,
]


REST = {"status": "ok", "running": 0, "waiting": 0}


class TalkingModel(ReplayModel):
    """Says the same to everybody, for ever."""

    def next_id(self, number: int, n: int) -> int:  # noqa: ARG002
        """The script's next id."""
        return super().next_id(0, n)


def document(**settings: Any) -> dict[str, Any]:
    """What a server serves."""
    key = {"x-api-key": "k"} if "api_keys" in settings else {}
    return (
        TestClient(unloaded(**settings), "http://127.0.0.1")
        .get("/openapi.json", headers=key)
        .json()
    )


SCHEMA = schemathesis.openapi.from_dict(document())
SCHEMA.config.phases.coverage.enabled = EXAMPLES >= 100  # thousands of cases, whatever the number


def test_the_document_is_valid() -> None:
    """As OpenAPI 3.1, with JSON schemas that are valid, and no reference into nothing."""
    OpenAPIV31SpecValidator(document()).validate()


def test_every_route_is_described() -> None:
    """And nothing else is."""
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    assert len(described) == len(OPERATIONS) == len(ROUTES)
    methods = [(path, set(item)) for path, item in document()["paths"].items()]
    assert sum(len(names) for _, names in methods) == len(OPERATIONS)
    assert ("/v1/models/{name}", {"get"}) in methods


def test_what_is_read_and_answered() -> None:
    """A body is the schema that reads it; an answer comes whole or as events, an error in shape."""
    served = document()
    chat = served["paths"]["/v1/chat/completions"]["post"]
    body = chat["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatRequest"}
    assert "messages" in served["components"]["schemas"]["ChatRequest"]["required"]
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    errors = {
        path: item["post"]["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
        for path, item in served["paths"].items()
        if "post" in item
    }
    assert errors["/v1/messages"].endswith("/AnthropicError")
    assert errors["/v1/responses"].endswith("/OpenAIError")


def test_keys() -> None:
    """Where a key is needed the document says so, but not of the health."""
    paths = document(api_keys=("k",))["paths"]
    assert paths["/v1/models"]["get"]["security"] == [{"bearer": []}, {"key": []}]
    assert "security" not in paths["/health"]["get"]
    assert '"security"' not in json.dumps(document()["paths"])


@pytest.fixture(scope="module")
def url(tokenizer: Tokenizer) -> Iterator[str]:
    """A real server that can answer anything."""
    with Engine(TalkingModel(tokenizer.encode_with_special(ANSWER))) as engine:
        host = ModelHost(lambda: OpenModel(engine, tokenizer))
        host.open()
        with live(make_app(Settings("m"), host)) as address:
            yield address


@pytest.mark.slow
@SCHEMA.parametrize()  # pyright: ignore[reportUntypedFunctionDecorator]
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_schemathesis(case: Case[Any], url: str) -> None:
    """Whatever follows the document, or just does not: no 5xx, and an answer that it describes."""
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=60)


@pytest.mark.slow
def test_the_server_is_well_afterwards(url: str) -> None:
    """What was asked above has left nothing running."""
    assert soon(lambda: httpx.get(f"{url}/health").json() == REST)
