"""`python -m research COMMAND`, from a clone: the paper's tables as a grid, and spaCy's linker as a baseline."""

import typer

from research import experiments, peer

app = typer.Typer(
    name="research",
    help="Experiments on a clone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (experiments, peer):
    command.register(app)

if __name__ == "__main__":
    app(prog_name="python -m research")
