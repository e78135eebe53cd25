"""``sa-deploy doctor``: what this machine can run, and why not."""

from __future__ import annotations

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import note, print_json, print_table


def doctor(json_output: JsonOutput = False) -> None:
    """Show what this machine can run, and the command that fixes a gap.

    Examples:
        sa-deploy doctor
        sa-deploy doctor --json
    """
    from sa_runtime.doctor import examine, fixes

    findings = examine()
    if json_output:
        commands = fixes(findings)
        print_json({"findings": [item.to_dict() for item in findings], "mends": commands})
        return
    rows = [(item.name, item.status, item.detail) for item in findings]
    print_table("This machine", ("what", "status", "detail"), rows, figures=False)
    for item in findings:
        if item.fix:
            typer.echo(f"{item.name}: {item.fix}")
    if not any(item.fix for item in findings):
        note("nothing to fix")
