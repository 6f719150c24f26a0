"""`limner themes`: the factors that themes are made with, besides the items' texts."""

from typing import Annotated

import typer

from api import runtime, training
from api.console import out
from api.settings import read_settings
from recommend.theme_factors import ThemeCard, ThemeParameters
from store import theme_factors

app = typer.Typer(help="What themes are made of, besides the items' texts.", no_args_is_help=True)
_ANEW = "Profiles are due to be written anew: `limner batch plan` says how many."


@app.command()
def learn(
    factors: Annotated[int, typer.Option(min=1, max=1024, help="Length of a factor.")] = ThemeParameters().factors,
) -> None:
    """Learn from everyone's likes which items belong together, and freeze it: themes are made with it from now on."""
    settings = read_settings()
    with runtime.database(settings) as opened:
        card = training.learn_themes(opened, settings, ThemeParameters(factors=factors))
    out.print(
        f"Factors of {card.items:,} items from {card.likes:,} likes of {card.users:,} users, "
        f"up to {card.watermark:%-d %b %Y}."
    )
    out.print(_ANEW)


@app.command()
def show() -> None:
    """Say which factors themes are made with."""
    with runtime.database(read_settings()) as opened, opened.session() as session:
        row = theme_factors.active(session)
    if row is None:
        out.print("Themes are made of texts alone. `limner themes learn` adds what the same users like.")
        return
    card = ThemeCard.model_validate(row.card)
    out.print(
        f"{row.sha256[:12]} of {row.created_at:%-d %b %Y}: {card.parameters.factors} factors of {card.items:,} items "
        f"from {card.likes:,} likes of {card.users:,} users, up to {card.watermark:%-d %b %Y}."
    )


@app.command()
def forget() -> None:
    """Make themes of texts alone again."""
    with runtime.database(read_settings()) as opened, opened.session() as session:
        known = theme_factors.forget(session)
    out.print(_ANEW if known else "There were no factors: nothing has changed.")
