"""The settings of the webhook that is told what is spent."""

from pathlib import Path

import pytest

from gateway.configuration import SettingsError, changes, load
from tests.limits.receiver import SECRET


def settings(text: str, folder: Path) -> list[str]:
    """What is wrong with them."""
    (folder / "gateway.yaml").write_text(text)
    try:
        load(folder / "gateway.yaml", {}, {})
    except SettingsError as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{webhook_url: 'https://a.example/x?y=z'}", "alerts.webhook_url: is set, but there is no secret to sign"),
        ("{webhook_url: 'ftp://a.example', webhook_secret: 0123456789abcdef}", "alerts.webhook_url: is not a URL that"),
        (
            "{webhook_url: 'https://a:b@c', webhook_secret: 0123456789abcdef}",
            "alerts.webhook_url: must not have a frag",
        ),
        ("{webhook_secret: short}", "alerts.webhook_secret: must be 16 or more visible ASCII characters"),
        ("{webhook_secret: 0123456789abcdef, webhook_secret_file: x}", "alerts.webhook_secret_file: is set beside"),
        ("{webhook_secret_file: nowhere}", "alerts.webhook_secret_file: cannot be read"),
    ],
)
def test_settings_without_which_nothing_could_be_sent_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    (said,) = settings(f"alerts: {text}", tmp_path)
    assert said.startswith(problem)


def test_the_secret_may_stand_in_a_file_and_neither_it_nor_the_url_is_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"alerts: {{webhook_url: 'https://hooks.example/t0ken', webhook_secret_file: {tmp_path / 'secret'}}}"
    )
    loaded = load(file, {}, {})
    assert loaded.settings.alerts.webhook_secret is not None
    assert loaded.settings.alerts.webhook_secret.get_secret_value() == SECRET
    shown = "\n".join(map(str, changes(loaded.settings, loaded.origins))) + repr(loaded.settings)
    assert "t0ken" not in shown
    assert SECRET not in shown
