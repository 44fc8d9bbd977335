"""Help texts: the options of a command, grouped by what they are for."""

from __future__ import annotations

import click

ORDER = (
    "demo convert inspect score prune apply compare curve deploy report reproduce export-weights"
)
"""The commands in the order of use."""

SECTIONS = {
    "Samples": "--data --test --calibrate --unlabelled --preprocess --per-class --trust-baseline",
    "Target": "--rate --params --macs --size --latency-ms --for --latency-batch --latency-on",
    "Accuracy": "--metric --head --outputs --max-drop --min-accuracy --confidence --fail-if "
    "--exact",
    "Limits": "--include --exclude --layer-rate --min-channels --max-layer-rate --round-to "
    "--allow-inexact --also",
    "Method": "--method --seeds --over --control --criterion --compensate --set",
    "Network": "--from --input-shape --model --module --weights --trust",
    "Runtimes": "--to --int8 --original --tolerance --time-limit --python",
    "Export": "--exporter --opset --fixed-batch --keep-batchnorm",
    "Computation": "--device --threads --batch-size --memory --seed --engine --ray-address "
    "--workers",
    "Run directory": "--run-dir --resume",
    "Output": "--output --plan --masked --json --markdown --page --svg --verbose --quiet "
    "--log-json --help",
}
"""The options of each section, in the order of the help. An option without one comes last."""


class Command(click.Command):
    """A command whose help has its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        found = {option.opts[-1]: option.get_help_record(ctx) for option in options}
        for title, names in [*SECTIONS.items(), ("Options", " ".join(found))]:
            if rows := [row for name in names.split() if (row := found.pop(name, None))]:
                with formatter.section(title):
                    formatter.write_dl(rows)


def example(*lines: str) -> str:
    """Return the epilog of a help text, which keeps its lines."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
