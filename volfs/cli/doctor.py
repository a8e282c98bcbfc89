"""``doctor``: shows what :mod:`volfs.fuse.checkup` finds."""

from __future__ import annotations

from dataclasses import asdict

import click

from volfs.cli.frame import Frame, json_option, pass_frame, say_json

_MARKS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "red")}


@click.command()
@json_option
@pass_frame
@click.pass_context
def doctor(ctx: click.Context, frame: Frame, as_json: bool) -> None:
    """Check what mounting needs on this machine.

    Says how to mend what is missing. With --store, checks the store's disk and filesystem too. Exit status 1 if
    something stops volfs from working.

    \b
    Examples:
      volfs doctor
      volfs --store /data/store doctor --json
    """
    from volfs.fuse.checkup import examine

    findings = list(examine(frame.store, frame.catalog))
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            text, colour = _MARKS[finding.state]
            click.echo(f"{click.style(text, fg=colour)}  {finding.name.ljust(width)}  {finding.detail}")
            if finding.mend:
                click.echo(f"{' ' * (width + 8)}mend: {finding.mend}")
    if any(finding.state == "bad" for finding in findings):
        ctx.exit(1)
