"""The command `lifecycle`: rules that the bucket keeps by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from cachestore.cli.output import Exit, Json, err, out, seconds_of, show_json, table, telling
from cachestore.cli.stores import opened
from cachestore.errors import CacheStoreError, ConfigError, Rejected, RemoteRefused
from cachestore.ingest import LifecycleChange, LifecycleRule, apply_lifecycle, lifecycle_rules
from cachestore.policy.lifecycle import RawRule, commands, in_words, is_ours
from cachestore.store import CacheStore

_DAY = 86400.0


class Action(StrEnum):
    """What `lifecycle` is asked for."""

    SHOW = "show"
    APPLY = "apply"


def lifecycle(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="show the rules, or apply some.")],
    expire: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX=AGE", help="Delete after 30d.")
    ] = None,
    infrequent: Annotated[
        list[str] | None,
        typer.Option(metavar="PREFIX=AGE", help="Move to Infrequent Access after 30d."),
    ] = None,
    abort_uploads: Annotated[
        list[str] | None,
        typer.Option(metavar="[PREFIX=]AGE", help="Give up uploads in parts after 2d."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Take our rule for it back.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Mean it when a prefix that expires is empty.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the rules as they would be.")
    ] = False,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print our rules, for somebody who may set them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show or set rules that the bucket itself keeps: expiry, Infrequent Access, lost uploads."""
    with telling(as_json), opened(context) as store:
        rules = _rules(expire or [], infrequent or [], abort_uploads or [], everything)
        gone = remove or []
        if action is Action.SHOW:
            if rules or gone:
                raise ConfigError("rules are set by: cachestore lifecycle apply")
            _show_rules(lifecycle_rules(store), as_json)
        elif not rules and not gone:
            raise ConfigError("say what: --expire, --infrequent, --abort-uploads, --remove")
        elif only_print:
            _print_rules(store, rules, gone, None, as_json)
        else:
            _apply(store, rules, gone, dry_run, as_json)


def _apply(
    store: CacheStore, rules: list[LifecycleRule], gone: list[str], dry_run: bool, as_json: bool
) -> None:
    try:
        change = apply_lifecycle(store, rules, remove=gone, dry_run=dry_run)
    except (RemoteRefused, Rejected) as error:
        _print_rules(store, rules, gone, error, as_json)
        raise typer.Exit(int(Exit.REMOTE)) from None
    _say_change(change, dry_run, as_json)


def _say_change(change: LifecycleChange, dry_run: bool, as_json: bool) -> None:
    if as_json:
        show_json({"applied": change.changed and not dry_run, "rules": _plain(change.after)})
        return
    _show_rules(change.after, False)
    said = "would be written" if dry_run else "written"
    out.print(said if change.changed else "nothing to change")


def _rules(
    expire: list[str], infrequent: list[str], abort: list[str], everything: bool
) -> list[LifecycleRule]:
    """One rule for each prefix that is named."""
    asked: dict[str, dict[str, int]] = {}
    for field, option, entries in (
        ("expire_days", "--expire", expire),
        ("infrequent_days", "--infrequent", infrequent),
        ("abort_days", "--abort-uploads", abort),
    ):
        for entry in entries:
            prefix, equals, age = entry.rpartition("=")
            if not equals and field != "abort_days":
                raise ConfigError(f"{option} {entry!r}: write PREFIX=AGE")
            if not prefix and field == "expire_days" and not everything:
                raise ConfigError(f"{option} {entry!r} expires all; --everything says you mean it")
            if field in asked.setdefault(prefix, {}):
                raise ConfigError(f"{option}: {prefix!r} is there twice")
            asked[prefix][field] = _days(option, age)
    return [LifecycleRule(prefix, **days) for prefix, days in asked.items()]


def _days(option: str, age: str) -> int:
    days = seconds_of(option, age) / _DAY
    if days < 1 or days != int(days):
        raise ConfigError(f"{option} {age!r}: buckets count whole days, as 30d")
    return int(days)


def _show_rules(rules: Sequence[RawRule], as_json: bool) -> None:
    if as_json:
        show_json({"rules": _plain(rules)})
        return
    made = table("rule", "prefix", "state", "expires", "infrequent access", "lost uploads")
    for rule in rules:
        name = str(rule.get("ID", ""))
        state = str(rule.get("Status", "")).lower() + (", ours" if is_ours(rule) else "")
        prefix, *rest = in_words(rule)
        made.add_row(name, prefix or "(all)", state, *rest)
    out.print(made)
    if not rules:
        out.print("the bucket has no rules")


def _print_rules(
    store: CacheStore, rules: list[LifecycleRule], gone: list[str],
    error: CacheStoreError | None, as_json: bool,
) -> None:  # fmt: skip
    """What an administrator sets in our place."""
    remote = store.options.remote
    raw = [rule.raw() for rule in rules]
    typed = [] if remote is None else commands(remote.endpoint, remote.bucket, rules, gone)
    if as_json:
        told = {} if error is None else {
            "error": str(error), "type": type(error).__name__, "exit": int(Exit.REMOTE)
        }  # fmt: skip
        show_json({"applied": False, "rules": raw, "commands": typed, **told})
        return
    if error is not None:
        err.print(f"this key may not, or the server cannot: {error}", style="red")
        err.print("For somebody who may:")
    for command in typed:
        out.print(command)
    if not typed:
        out.print(json.dumps({"Rules": raw}, indent=2, ensure_ascii=False))


def _plain(rules: Any) -> Any:
    return json.loads(json.dumps(rules, default=str))


COMMANDS = (lifecycle,)
