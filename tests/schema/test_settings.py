"""What the administrator gets wrong ends the operator with a sentence, not with a traceback."""

from __future__ import annotations

import pytest

from modelrollout.settings import Audience, Webhook, WebhookFormat, from_environment

GOOD = "default: {url: 'http://prometheus:9090'}"


def settings(path, text=GOOD, **environment):
    path.write_text(text)
    return from_environment({"MODELROLLOUT_PROVIDERS": str(path)} | environment)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "providers.yaml"


def test_a_missing_file_is_named(path):
    with pytest.raises(ValueError, match=r"providers\.yaml is missing: set MODELROLLOUT_PROVIDERS"):
        from_environment({"MODELROLLOUT_PROVIDERS": str(path)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must map provider names to settings"),
        ("[]", "must map provider names to settings"),
        ("default: {url", "cannot be read"),
        ("default:", "provider default needs a url"),
        ("default: {uri: x}", "provider default needs a url"),
        ("default: {url: prometheus}", "provider default: url must begin with http"),
        ("default: {url: 9090}", "provider default: url must begin with http"),
        ("default: {url: 'http://p', token: x}", "provider default has unknown settings: token"),
        ("default: {url: 'http://p', caFile: 1}", "caFile must be a path"),
        ("default: {url: 'http://p', bearerTokenFile: 1}", "bearerTokenFile must be a path"),
        ("default: {url: 'http://p', headers: {a: 1}}", "headers must map names to strings"),
        ("default: {url: 'http://p', parameters: {dedup: true}}", "parameters must map names to"),
        (
            "default: {url: 'http://p', parameters: {time: '1'}}",
            "has time, which the operator sets",
        ),
        (
            "default: {url: 'http://p', gatewayLabels: [a]}",
            "gatewayLabels must map names of labels",
        ),
        ("default: {url: 'http://p', timeoutSeconds: '5'}", "timeoutSeconds must be a number"),
        ("default: {url: 'http://p', timeoutSeconds: 0}", "timeoutSeconds must be a number"),
    ],
)
def test_a_providers_file_that_is_wrong_says_where(text, says, path):
    with pytest.raises(ValueError, match=says):
        settings(path, text)


@pytest.mark.parametrize("text", ["", "{}"])
def test_there_may_be_no_web_hooks(text, path, tmp_path):
    webhooks = tmp_path / "webhooks.yaml"
    webhooks.write_text(text)

    assert settings(path).webhooks == {}
    assert settings(path, MODELROLLOUT_WEBHOOKS=str(webhooks)).webhooks == {}


def test_a_missing_file_of_web_hooks_is_named(path, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.yaml is missing: set MODELROLLOUT_WEBHOOKS"):
        settings(path, MODELROLLOUT_WEBHOOKS=str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "must map web hook names to settings"),
        ("audit: {url", "cannot be read"),
        ("audit: http://x", "web hook audit needs a url"),
        ("audit: {url: 'ftp://x'}", "web hook audit: url must begin with http"),
        ("audit: {url: 'http://x', headers: {}}", "web hook audit has unknown settings: headers"),
        ("audit: {url: 'http://x', headerFiles: [a]}", "headerFiles must map names of headers"),
        ("audit: {url: 'http://x', headerFiles: {a: 1}}", "headerFiles must map names of headers"),
        ("audit: {url: 'http://x', caFile: 1}", "caFile must be a path"),
        ("audit: {url: ''}", "web hook audit needs a url or a urlFile, and not both"),
        ("audit: {url: 'http://x', urlFile: /x}", "needs a url or a urlFile, and not both"),
        ("audit: {urlFile: 1}", "urlFile must be a path"),
        ("audit: {url: 'http://x', format: teams}", "format must be one of cloudevents, slack"),
        ("audit: {url: 'http://x', format: [slack]}", "format must be one of cloudevents, slack"),
        ("audit: {url: 'http://x', rollouts: mine}", "rollouts must be one of all, named"),
        ("audit: {url: 'http://x', namespaces: shop}", "namespaces must be a list of names"),
        ("audit: {url: 'http://x', decisions: [1]}", "decisions must be a list of names"),
        ("audit: {url: 'http://x', decisions: [Rolledback]}", "decisions has unknown Rolledback"),
        ("audit: {url: 'http://x', timeoutSeconds: -1}", "timeoutSeconds must be a number"),
    ],
)
def test_a_web_hooks_file_that_is_wrong_says_where(text, says, path, tmp_path):
    webhooks = tmp_path / "webhooks.yaml"
    webhooks.write_text(text)

    with pytest.raises(ValueError, match=says):
        settings(path, MODELROLLOUT_WEBHOOKS=str(webhooks))


def test_a_web_hook_can_be_for_a_team_and_have_a_secret_address(path, tmp_path):
    webhooks = tmp_path / "webhooks.yaml"
    webhooks.write_text(
        "team: {urlFile: /secret, format: slack, rollouts: named, namespaces: [shop], decisions: [Paused]}"
    )

    assert settings(path, MODELROLLOUT_WEBHOOKS=str(webhooks)).webhooks == {
        "team": Webhook(
            url_file="/secret",
            format=WebhookFormat.SLACK,
            rollouts=Audience.NAMED,
            namespaces=("shop",),
            decisions=("Paused",),
        )
    }


@pytest.mark.parametrize("name", ["PORT", "WORKERS", "SWEEP_SECONDS"])
@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "many"])
def test_a_number_that_is_wrong_is_named(name, value, path):
    with pytest.raises(ValueError, match=f"MODELROLLOUT_{name} must be a whole number above 0"):
        settings(path, **{f"MODELROLLOUT_{name}": value})


def test_a_shard_selector_that_is_wrong_is_named_and_said_how_to_write(path):
    with pytest.raises(
        ValueError,
        match=r"MODELROLLOUT_SHARD_SELECTOR: 'tier gold' is not a label selector: .*; write it as tier=gold",
    ):
        settings(path, MODELROLLOUT_SHARD_SELECTOR="tier gold")


def test_each_shard_has_a_lease_of_its_own(path):
    names = [
        settings(path, MODELROLLOUT_SHARD_SELECTOR=each).lease_name
        for each in ("", "tier=gold", "tier=silver")
    ]

    assert names[0] == "modelrollout-operator"
    assert len({*names}) == 3
    named = settings(path, MODELROLLOUT_SHARD_SELECTOR="a=b", MODELROLLOUT_LEASE_NAME="ours")
    assert named.lease_name == "ours"


def test_a_shard_selector_of_the_command_line_wins(path):
    path.write_text(GOOD)
    environment = {
        "MODELROLLOUT_PROVIDERS": str(path),
        "MODELROLLOUT_SHARD_SELECTOR": "tier=gold",
    }

    assert from_environment(environment, shard_selector="tier").shard.text == "tier"
    assert from_environment(environment).shard.text == "tier=gold"


def test_namespaces_may_be_written_with_spaces(path):
    assert settings(path, MODELROLLOUT_NAMESPACES=" a, b ,").namespaces == ("a", "b")
