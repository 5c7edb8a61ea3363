"""A channel as a file or the environment tells of it: right, wrong, and never shown."""

import math

import pytest

from spikewatch.alerts.channels import (
    Channel,
    channel_from_environment,
    shown,
    without_addresses,
)
from spikewatch.alerts.channels_file import channel_from_table
from spikewatch.errors import RuleError


SECRET = "T0K3N-of-the-team"
URL = f"https://hooks.org/services/{SECRET}"


def test_addresses_on_a_command_line_are_cut_to_what_may_be_shown():
    told = without_addresses(f"train.py --hook=https://u:{SECRET}@hooks.org/{SECRET} --lr 1e-3")
    assert told == "train.py --hook=https://hooks.org/… --lr 1e-3"


def test_a_channel_takes_its_address_from_the_environment_and_never_shows_it(monkeypatch):
    monkeypatch.setenv("TEAM_URL", URL)
    channel = channel_from_table({"name": "t", "type": "slack", "url_env": "TEAM_URL"})
    assert channel.address == URL
    assert channel.where == "$TEAM_URL"
    assert SECRET not in repr(Channel(name="t", type="slack", url=URL))
    assert shown(f"https://user:pw@host.org/{SECRET}?k={SECRET}") == "https://host.org/…"
    assert shown(f"mailto://user:{SECRET}@gmail.com") == "mailto://…"


def test_the_environment_alone_makes_a_channel(monkeypatch):
    assert channel_from_environment() is None
    for url, type_ in {
        "https://hooks.slack.com/services/x": "slack",
        "https://discord.com/api/webhooks/x": "discord",
        "https://example.org/hook": "webhook",
    }.items():
        monkeypatch.setenv("SPIKEWATCH_WEBHOOK", url)
        channel = channel_from_environment()
        assert (channel.type, channel.where) == (type_, "$SPIKEWATCH_WEBHOOK")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"type": "slack"}, "no `name`"),
        ({"name": "x"}, "no `type`"),
        ({"name": "x", "type": "slak", "url_env": "X"}, "Did you mean 'slack'?"),
        ({"name": "x", "type": "slack"}, "url_env"),
        ({"name": "x", "type": "slack", "url": "hooks.slack.com/x"}, "is no address"),
        ({"name": "x", "type": "slack", "ulr_env": "X"}, "Did you mean 'url_env'?"),
        ({"name": "x", "type": "command"}, "no `command`"),
        ({"name": "x", "type": "command", "command": "tell.sh"}, "list of texts"),
        ({"name": "x", "type": "slack", "url_env": "X", "severity": "bad"}, "`severity`"),
        ({"name": "x", "type": "slack", "url_env": "X", "at_most_every_s": -1}, "seconds"),
        ({"name": "x", "type": "slack", "url_env": "X", "resolved": "no"}, "true or false"),
        ({"name": "x", "type": "slack", "url_env": "X", "at_most_every_s": 1e30}, "a day"),
        ({"name": "x", "type": "slack", "url_env": "X", "at_most_every_s": 10**400}, "a day"),
        ({"name": "x", "type": "slack", "url_env": "X", "at_most_every_s": math.nan}, "was nan"),
        ({"name": "x", "type": ["slack"], "url_env": "X"}, "`type` was ['slack']"),
        ({"name": "x", "type": "webhook", "url": "ftp://host/x"}, "is no address"),
        ({"name": "x", "type": "slack", "url": "https://[x"}, "is no address"),
        ({"name": "\x1b[2Jx", "type": "slack", "url_env": "X"}, "letters from a to z"),
        ({"name": "x", "type": "command", "command": [""]}, "names no program"),
        ({"name": "x", "type": "command", "command": ["a\0b"]}, "names no program"),
        ({"name": "x", "type": "slack", "url_env": "X", "rules": []}, "`rules` is empty"),
    ],
)
def test_a_wrong_channel_is_told(table, told):
    with pytest.raises(RuleError) as caught:
        channel_from_table(table)
    assert told in str(caught.value)


def test_all_that_is_wrong_with_a_channel_is_told_at_once():
    with pytest.raises(RuleError) as caught:
        channel_from_table({"name": "x", "type": "slak", "urll": "y", "severity": "fatal"})
    for part in ("'slak'", "'urll'", "'fatal'", "url_env"):
        assert part in str(caught.value)


@pytest.mark.parametrize("key", ["url", "url_env"])
def test_an_address_in_a_wrong_place_is_not_shown(key):
    table = {"name": "x", "type": "slack", key: f"hooks.slack.com/{SECRET}"}
    with pytest.raises(RuleError) as caught:
        channel_from_table(table)
    assert SECRET not in str(caught.value)
