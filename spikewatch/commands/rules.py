"""The rules themselves: `spikewatch rules list | check | test | explain`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .parsing import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    examples = (
        "  spikewatch rules list                 the rules that count here\n"
        "  spikewatch rules explain dead-layer   all there is to say of one\n"
        "  spikewatch rules check rules.toml     every mistake in a file\n"
        "  spikewatch rules test rules_test.toml run unit tests of rules\n\n"
        'A file may hold mute = ["glob"], [[change]], [[rule]] and [[channel]]. It is found by\n'
        "--rules, by $SPIKEWATCH_RULES, or by [tool.spikewatch] in pyproject.toml."
    )
    parser = add_command(
        commands, listed, "look at, check and test alert rules", examples, name="rules"
    )
    from ..alerts.functions import HELP

    parser.epilog += "\n\nhistory functions:\n" + "\n".join(f"  {text}" for text in HELP)
    what = parser.add_subparsers(metavar="WHAT", required=True)
    some = add_command(what, listed, "list rules", "  spikewatch rules list --json", name="list")
    some.add_argument("--json", action="store_true", help="an array with one object a rule")
    _add_rules(some)
    one = add_command(what, check, "tell every mistake in a rules file; exit 2 if there is one",
                      "  spikewatch rules check rules.toml")  # fmt: skip
    one.add_argument("file", type=Path, help="a rules file")
    test = add_command(what, test_, "run unit tests of rules; exit 1 if one fails",
                       "  spikewatch rules test rules_test.toml", name="test")  # fmt: skip
    test.epilog += f"\n\n{_about_tests()}"
    test.add_argument("file", type=Path, help="a file of tests")
    which = add_command(what, explain, "say all there is to say of a rule",
                        "  spikewatch rules explain dead-layer")  # fmt: skip
    which.add_argument("name", help="its name")
    _add_rules(which)


def _add_rules(parser: Any) -> None:
    parser.add_argument("--rules", type=Path, metavar="FILE", help="a rules file")


def _about_tests() -> str:
    return "\n".join((
        "A test is figures of layers over time, and what is expected of them:",
        '  rules = "rules.toml"',
        "  [[test]]",
        '  name = "a layer that falls silent"',
        '  fires = ["low-rate on head"]           # all that is told, no more and no less',
        "  [test.layers.head]",
        '  mfr = "0.1*20 0.005*20"                # 20 times each; 0+0.1*5 rises, _ is unknown',
        '  dead_frac = "0*40"',
        "  [[test.expect]]",
        '  step = 24\n  rule = "low-rate"\n  layer = "head"\n  state = "firing"',
    ))  # fmt: skip


def listed(args: argparse.Namespace) -> int:
    """List the rules that count here."""
    from ..alerts.loading import find_ruleset
    from ..alerts.rule import key_of

    ruleset = find_ruleset(args.rules)
    if args.json:
        rows = [{key_of(k): v for k, v in asdict(rule).items()} for rule in ruleset.rules]
        print(json.dumps(rows))
        return 0
    width = max((len(rule.name) for rule in ruleset.rules), default=0)
    for rule in ruleset.rules:
        mark = "+" if rule.name in ruleset.added else "~" if rule.name in ruleset.changed else " "
        print(f"{mark} {rule.name:<{width}}  {rule.severity:<8}  {rule.summary or rule.expr}")
    print(f"\n{len(ruleset.rules)} rules from {ruleset.origin}{_differs(ruleset)}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Tell every mistake in a rules file."""
    from ..alerts.loading import load_ruleset

    ruleset = load_ruleset(args.file)
    print(f"{args.file} is right: {len(ruleset.rules)} rules{_differs(ruleset)}")
    for channel in ruleset.channels:
        here = "" if channel.address or channel.command else ", which is not set here"
        print(f"  channel {channel.name}: {channel.type}, {channel.where}{here}")
    return 0


def _differs(ruleset: Any) -> str:
    parts = [
        f"{sign} {', '.join(names)}"
        for sign, names in (
            ("added (+):", ruleset.added),
            ("changed (~):", ruleset.changed),
            ("muted:", ruleset.muted),
        )
        if names
    ]
    return "".join(f"\n  {part}" for part in parts)


def test_(args: argparse.Namespace) -> int:
    """Run unit tests of rules."""
    from ..alerts.rule_tests import run_tests

    outcomes = run_tests(args.file)
    for outcome in outcomes:
        print(f"{'FAILED' if outcome.failures else 'passed'}  {outcome.name}")
        for failure in outcome.failures:
            print(f"        {failure}")
    n_failed = sum(bool(outcome.failures) for outcome in outcomes)
    print(f"{len(outcomes) - n_failed} of {len(outcomes)} tests passed")
    return 1 if n_failed else 0


def explain(args: argparse.Namespace) -> int:
    """Say all there is to say of a rule."""
    from ..alerts.explain import explain as explained
    from ..alerts.loading import find_ruleset
    from ..alerts.mistakes import suggest
    from ..errors import RuleError

    ruleset = find_ruleset(args.rules)
    rules = {rule.name: rule for rule in ruleset.rules}
    if args.name not in rules:
        raise RuleError(f"There is no rule {args.name!r}. {suggest(args.name, rules)}")
    print(*explained(rules[args.name]), sep="\n")
    return 0
