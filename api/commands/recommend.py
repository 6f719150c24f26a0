"""`limner train`, `recommend` and `why`."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from api import evaluating, runtime, training
from api.console import out, progress_bar
from api.narration import narrated
from api.settings import Settings, read_settings
from eval.cuts import last_events
from eval.errors import EmptyWorldError
from eval.recommenders import Given, validation
from eval.tuning import fused_space, search
from recommend.contract import Explanation, Recommendations
from recommend.parameters import Parameters
from recommend.service import Request
from store.database import Database

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_MOST = 10_000
_ENOUGH = 100


def train(
    tune: Annotated[
        bool, typer.Option("--tune", help="Search for the parameters first; a stopped search goes on.")
    ] = False,
    trials: Annotated[int, typer.Option(min=1, help="Points that the search tries.")] = 60,
    defaults: Annotated[bool, typer.Option("--defaults", help="Not the parameters of the active model.")] = False,
) -> None:
    """Train factors on everyone's events, claims and item texts; the new model is the active one.

    The parameters are those of the active model, if there is one, so that a search is needed once.
    """
    settings = read_settings()
    with runtime.database(settings) as opened:
        parameters = Parameters() if defaults else training.known_parameters(opened)
        metrics: dict[str, float] = {}
        if tune:
            parameters, metrics = _tuned(opened, settings, parameters, trials)
        train_model(opened, settings, parameters, metrics)


def _tuned(opened: Database, settings: Settings, start: Parameters, trials: int) -> tuple[Parameters, dict[str, float]]:
    """Search on the last 20 % of each user's events, of these on the later visits where enough users have such."""
    embeds = runtime.embedder(settings)
    world = evaluating.world_of(opened, settings, embeds)
    events = world.interactions
    (part,) = last_events(events, 0)
    protocol = "later visit" if len(part.askable("later visit")) >= _ENOUGH else "last 20 %"
    users = part.askable(protocol)
    if not len(users):
        raise EmptyWorldError(
            "Nobody with 5 events or more likes something new among the last 20 % of them: there is nothing to search "
            "on. Train without --tune, or ingest a longer log with `limner ingest`."
        )
    given = Given(world, part.train, part.known, world.template_claims(part.train, embeds), users)
    measure = validation(given, part.asked[protocol], 0)("fused")
    name = f"{len(events)} events, {len(world.user_ids)} users, {len(world.items)} items, up to {events.time.max():.0f}"
    journal = settings.home / "tuning" / "recommend.journal"
    with progress_bar("searching") as advance:
        point, best = search(
            fused_space,
            lambda point: measure(start.model_dump() | point),
            trials,
            first=(start.model_dump(exclude_none=True),),
            journal=journal,
            name=name,
            progress=advance,
        )
    out.print(f"Best of {trials} points: NDCG@10 {best:.4f} on held-out events of {len(users)} users.")
    return start.model_copy(update=point), {"validation_ndcg@10": best, "validation_users": float(len(users))}


def train_model(
    opened: Database, settings: Settings, parameters: Parameters, metrics: dict[str, float] | None = None
) -> int:
    """Train, save and activate a model, and say what it has learned from; returns its id."""
    made = training.train_model(opened, settings, parameters, metrics=metrics)
    card = made.card
    out.print(
        f"Model {made.model_id}: {card.events:,} events of {card.users:,} users on {made.items:,} items, "
        f"{made.claims:,} claims, up to {card.watermark:%-d %b %Y}, in {card.seconds:.1f} s."
    )
    if not made.claims:
        out.print("No profiles yet, so it learned nothing from claims: limner profile write --all --writer template")
    return made.model_id


def recommend(
    user: str,
    k: Annotated[int, typer.Option("-k", min=1, max=_MOST, help="How many items.")] = 10,
    category: Annotated[list[str] | None, typer.Option(help="Only of this category; may be given again.")] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="Only with NAME=VALUE; may be given again.")] = None,
    seen: Annotated[bool, typer.Option(help="Also what the user has had to do with.")] = False,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="Weight of diversity; 0 is off.")] = 0.0,
    near: Annotated[float | None, typer.Option(min=0, max=1, help="Put near-duplicates of this cosine back.")] = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user."""
    settings = read_settings()
    request = Request(
        k=k,
        seen=seen,
        categories=tuple(category or ()),
        attributes=_pairs(attribute or []),
        diversity=diversity,
        near=near,
    )
    with runtime.database(settings) as opened, runtime.recommender(settings, opened) as made:
        found = made.recommend(user, request)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_recommendations(found)


def why(
    user: str,
    item: str,
    k: Annotated[int, typer.Option("-k", min=1, max=_MOST, help="Length of the list that it stands in.")] = 10,
    shown: Annotated[int, typer.Option(min=0, max=1000, help="Parts that are listed one by one.")] = 8,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="Weight of diversity in the list; 0 is off.")] = 0.0,
    near: Annotated[float | None, typer.Option(min=0, max=1, help="As of `recommend`.")] = None,
    narrate: Annotated[bool, typer.Option("--narrate", help="Let the language model word it, checked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say why an item is recommended to a user: what its score is the sum of, and what would change it."""
    settings = read_settings()
    with runtime.database(settings) as opened, runtime.recommender(settings, opened) as made:
        found = made.why(user, item, Request(k=k, diversity=diversity, near=near), shown)
    if narrate:
        narrating = settings.acting("narrator")
        with runtime.language_model(narrating) as (chat, _):
            found = narrated(chat, found, settings.language, examples=runtime.asked(narrating).examples)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_explanation(found)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--attribute takes NAME=VALUE, not {text}")
        pairs[name] = value
    return pairs


def print_recommendations(found: Recommendations) -> None:
    """Print a list."""
    table = Table(box=None, title=f"For user {escape(found.user_id)}, by {found.basis}", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("item")
    table.add_column("score", justify="right")
    table.add_column("id")
    if varied := any(item.diversity is not None for item in found.items):
        table.add_column("without diversity", justify="right")
    for item in found.items:
        row = [f"{item.rank}", escape(item.title), f"{item.score:.3f}", escape(item.item_id)]
        table.add_row(*row, *([f"{item.diversity}"] if varied else []))
    out.print(table)
    for note in found.notes:
        out.print(f"[dim]{escape(note)}[/dim]")


def print_explanation(found: Explanation) -> None:
    """Print why an item has its score."""
    out.print(f"[bold]Why {escape(found.title)}?[/bold]   rank {found.rank}, score {found.score:.3f}")
    out.print(Padding(escape(found.text), (0, 2, 1, 2)))
    for part in found.parts:
        out.print(f"  {part.contribution:+.3f}  {escape(part.text)}")
    out.print(f"  [bold]{found.total:+.3f}[/bold]  in all (off by {abs(found.error):.0e})")
    for claim in found.claim_counterfactuals:
        takes = f", and {escape(claim.replaced_by.title)} would come in" if claim.replaced_by else ""
        out.print(f'  Without "{escape(claim.name)}" it would be number {claim.new_rank}{takes}.')
    for note in found.notes:
        out.print(f"[dim]{escape(note)}[/dim]")
