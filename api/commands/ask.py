"""`limner ask`: a free question about a profile or a recommendation."""

from functools import cache
from typing import Annotated

import typer
from rich.markup import escape

from api import runtime
from api.asking import answered
from api.console import out
from api.settings import read_settings
from recommend.asking import MAX_QUESTION
from recommend.contract import Answer
from recommend.facts import Facts
from recommend.service import Recommender


def command(
    user: str,
    question: str,
    no_model: Annotated[bool, typer.Option("--no-model", help="By rule and template, without the model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask what a profile says, what changed in it, what a user did, what is recommended and why."""
    if not question.strip() or len(question) > MAX_QUESTION:
        raise typer.BadParameter(f"a question has 1 to {MAX_QUESTION:,} characters")
    settings = read_settings()
    with runtime.database(settings) as opened:

        @cache
        def recommender() -> Recommender:
            with runtime.recommender(settings, opened) as made:
                return made

        facts = Facts.of(opened, user, recommender, settings.language, runtime.now())
        asking = settings.acting("ask")
        without = None if no_model else runtime.cannot_answer(asking)
        if no_model or without:
            found = answered(facts, question, None, without=without)
        else:
            with runtime.language_model(asking) as (chat, _):
                found = answered(facts, question, chat)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_answer(found)


def print_answer(found: Answer) -> None:
    """Print an answer and its sources."""
    out.print(escape(found.text))
    if found.sources and found.by == "model":
        out.print()
        for source in found.sources:
            out.print(rf"  \[{source.n}] {source.kind} {escape(source.id)}: {escape(source.what)}")
    for note in found.notes:
        out.print(f"[dim]{escape(note)}[/dim]")
