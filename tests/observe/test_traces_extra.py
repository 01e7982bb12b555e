"""Traces are an extra: who does not ask for them pays nothing, and who asks without it is told at the start."""

import subprocess
import sys

import pytest

from gateway.configuration import load_settings
from gateway.configuration.problems import SettingsError
from gateway.observe.traces.tracing import tracing
from tests.support.gateway import settings_for

EXPORTER = "opentelemetry.exporter.otlp.proto.http"
ENDPOINT = {"GATEWAY_TRACES_ENDPOINT": "http://localhost:4318"}

OFF = """
import sys
from gateway.app import build_app
from tests.support.gateway import settings_for
build_app(settings_for("http://127.0.0.1:9/v1", server={"state_dir": sys.argv[1]}))
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""


def test_without_an_endpoint_nothing_of_the_extra_is_imported(tmp_path: object) -> None:
    ran = subprocess.run([sys.executable, "-c", OFF, str(tmp_path)], capture_output=True, check=True, text=True)
    assert ran.stdout == "[]\n"


def test_without_an_endpoint_there_is_no_tracing() -> None:
    assert tracing(settings_for("http://127.0.0.1:9/v1")) is None


def test_an_endpoint_without_the_extra_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(SettingsError) as caught:
        load_settings(None, ENDPOINT, {})
    assert str(caught.value) == (
        "GATEWAY_TRACES_ENDPOINT: traces.endpoint: is set, but OpenTelemetry's exporter is not installed; "
        "install it (docs/operations.md#traces), or take the setting out"
    )


def test_an_endpoint_with_the_extra_is_taken() -> None:
    assert load_settings(None, ENDPOINT, {}).traces.endpoint == "http://localhost:4318"


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", "nan", "inf", "half"])
def test_a_ratio_is_from_0_to_1(ratio: str) -> None:
    with pytest.raises(SettingsError, match=r"traces\.sample_ratio"):
        load_settings(None, {"GATEWAY_TRACES_SAMPLE_RATIO": ratio}, {})


@pytest.mark.parametrize(
    "endpoint", ["localhost:4318", "grpc://c:4317", "http://user:secret@c:4318", "http://c?token=x"]
)
def test_an_endpoint_is_a_url_without_secrets(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"traces\.endpoint") as caught:
        load_settings(None, {"GATEWAY_TRACES_ENDPOINT": endpoint}, {})
    assert "secret" not in str(caught.value)
