"""What commands are made of, built from the settings: database, embedder, catalogue, writer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from agent.chat import ChatClient, ChatModel, PrioritizedChat
from agent.contract import Writer
from agent.embedder import Embedder, load_embedder
from agent.endpoints import Endpoints, Servers
from agent.errors import ModelError
from agent.keys import Recipe
from agent.lanes import Lane
from agent.loading import prepare_catalogue
from agent.models import CATALOGUE, Resolved, pull, resolve
from agent.profiling import Profiler
from agent.serving import ServeSettings, serve
from agent.slots import BATCH
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter, WriterSettings
from api import tracing
from api.console import err, progress_bar
from api.settings import Settings
from recommend.errors import NoModelError
from recommend.model import load
from recommend.service import Recommender
from store import models, theme_factors
from store.database import Database, open_database

_CALLS_OF_A_USER = 2  # under way at the same time, at the least: first all claims, then the few that are mended
_FEWEST_USERS = 8


def now() -> datetime:
    """Return the present time, in UTC."""
    return datetime.now(UTC)


@contextmanager
def database(settings: Settings) -> Iterator[Database]:
    """Open the database; an embedded one is brought to the newest revision, any other must be there already."""
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with open_database(url, settings.home) as opened:
        if url is None:
            opened.upgrade()
        else:
            opened.require_head()
        yield opened


def fetched(settings: Settings, model: str) -> Resolved:
    """Return a model's whereabouts; its weights are fetched, with a progress bar, if they are not there yet."""
    found = resolve(model, settings.home)
    if found.pulled:
        return found
    with progress_bar(found.name) as advance:
        return pull(model, settings.home, lambda what, done, total: advance(done, total, f"{found.name}: {what}"))


def embedder(settings: Settings) -> Embedder:
    """Return the embedder; its weights are fetched if they are not there yet."""
    found = fetched(settings, settings.embedder.model)
    return load_embedder(found.path, found.name)


def recipe(settings: Settings, writer: Writer, opened: Database | None = None) -> Recipe:
    """Return how profiles would be made, without loading or starting anything; without a store, of texts alone."""
    themes = None
    if opened is not None:
        with opened.session() as session:
            themes = theme_factors.active(session)
    how = asked(settings) if writer == "llm" else None
    embeds = resolve(settings.embedder.model, settings.home).name
    frozen = themes.sha256 if themes else None
    return Recipe.of(settings.evidence_settings, embeds, settings.language, how, model_info(settings), frozen)


def asked(settings: Settings) -> WriterSettings:
    """Return how the language model is asked: one that was taught, by prompts without examples, for what it knows."""
    known = _known(settings)
    if known is None or not known.taught:
        return settings.llm.writer
    summary = settings.llm.summary and "summary" in known.taught
    return settings.llm.writer.model_copy(update={"examples": False, "summary": summary})


def cannot_answer(settings: Settings) -> str | None:
    """Say why the language model is not for free questions; None where it is, or where we do not know the model."""
    try:
        known = _known(settings)
    except ModelError:  # said where it is used
        return None
    if known is None or (known.entry is None and not known.taught):
        return None
    able = known.entry is not None and "ask" in known.entry.roles
    return None if able else f"{known.name} cannot answer free questions"


def _known(settings: Settings) -> Resolved | None:
    """Return the language model; None where its name is only known to the server that has it."""
    llm = settings.llm
    served = bool(llm.base_url) and llm.engine == "server"
    known = llm.model in {entry.name for entry in CATALOGUE}
    return resolve(llm.model, settings.home) if known or not served else None


def model_info(settings: Settings) -> ModelInfo:
    """Return which weights the language model has; no hash where a server has them, or they are not there yet."""
    llm = settings.llm
    if llm.base_url and llm.engine == "server":
        return ModelInfo(llm.model)
    found = resolve(llm.model, settings.home)
    return ModelInfo(found.name, found.weights_hash)


def fetch_model(settings: Settings) -> ModelInfo:
    """Fetch the language model's weights, unless a server has them or they are there, and return which they are."""
    if not settings.llm.base_url or settings.llm.engine == "offline":
        fetched(settings, settings.llm.model)
    return model_info(settings)


@contextmanager
def language_model(settings: Settings) -> Iterator[tuple[ChatClient, ModelInfo]]:
    """Give the chat model: the servers that the settings name, or a vLLM that is started on demand."""
    llm = settings.llm
    if llm.base_url:
        yield chat_at(settings, llm.base_url, llm.model, priorities=llm.priorities), ModelInfo(llm.model)
        return
    found = fetched(settings, llm.model)
    with _starting(found) as waiting:
        serving = serve(found, settings.home, ServeSettings(), waiting=waiting)
    with serving:
        chat = chat_at(settings, serving.base_url, serving.model, priorities=serving.priorities)
        yield chat, ModelInfo(found.name, found.weights_hash)


@contextmanager
def batch_model(settings: Settings) -> Iterator[tuple[ChatModel, ModelInfo]]:
    """Give the chat model for many profiles: in the lane of batches, or as an engine in this process."""
    if settings.llm.engine == "server":
        with language_model(settings) as (chat, info):
            yield in_batch_lane(settings, chat), info
        return
    from agent.offline import engine  # noqa: PLC0415 - it imports vLLM

    found = fetched(settings, settings.llm.model)
    with ExitStack() as stack:
        with _starting(found):
            offline = stack.enter_context(engine(found, ServeSettings()))
        yield offline, ModelInfo(found.name, found.weights_hash)


@contextmanager
def _starting(found: Resolved) -> Iterator[Callable[[float], None]]:
    """Show that vLLM is being started; gives what tells for how long."""
    with err.status(f"starting vLLM with {found.name}") as status:
        yield lambda seconds: status.update(f"starting vLLM with {found.name} ({seconds:.0f} s)")


def in_batch_lane(settings: Settings, chat: PrioritizedChat) -> Lane:
    """Return the model for calls of a batch."""
    return Lane(chat, BATCH, settings.batch.concurrency * servers(settings))


def users_at_once(settings: Settings) -> int:
    """Return how many users' profiles are written at once: enough to have all calls of a batch under way."""
    calls = settings.batch.concurrency * servers(settings)
    return settings.llm.users_at_once or max(_FEWEST_USERS, calls // _CALLS_OF_A_USER)


def servers(settings: Settings) -> int:
    """Return how many servers the settings name; one, if it is started on demand."""
    return len((settings.llm.base_url or "").split(","))


def chat_at(
    settings: Settings, base_url: str, model: str, known: Servers | None = None, *, priorities: bool = False
) -> ChatClient:
    """Return a client of the chat model at one or several servers, with the key and the bounds of the settings.

    Args:
        settings: All settings.
        base_url: Of the servers, with commas between.
        model: The model's name there.
        known: What is known of these servers from other clients.
        priorities: Whether the servers take priorities.
    """
    from agent.openai_chat import OpenAIChat  # noqa: PLC0415 - LangChain takes a second

    llm, urls = settings.llm, base_url.split(",")
    most = max(llm.concurrency, settings.batch.concurrency)
    chats = [
        OpenAIChat(
            url,
            model,
            api_key=llm.api_key.get_secret_value(),
            timeout_s=llm.timeout_s,
            batch_timeout_s=settings.batch.timeout_s,
            concurrency=most,
            priorities=priorities,
            attempts=3 if len(urls) == 1 else 1,
        )
        for url in urls
    ]
    chat: ChatClient = Endpoints(chats, known, concurrency=most) if len(urls) > 1 else chats[0]
    if not tracing.is_on():
        return chat
    from api.traced_chat import TracedChat  # noqa: PLC0415 - LangChain takes a second

    return TracedChat(chat)


@contextmanager
def recommender(settings: Settings, opened: Database) -> Iterator[Recommender]:
    """Give the recommender with the active model.

    Raises:
        NoModelError: None was trained, its file is damaged, or it was trained for another embedder.
    """
    with opened.session() as session:
        row = models.active_model(session)
        if row is None:
            raise NoModelError("No model has been trained yet. Train one with `limner train`.")
        model_id, path, sha256 = row.model_id or 0, Path(row.path), row.sha256
    model = load(path, sha256)
    embeds = embedder(settings)
    if model.card.embedder != embeds.name:
        raise NoModelError(
            f"The active model was trained on texts embedded by {model.card.embedder}, the settings name "
            f"{embeds.name}. Train one for it with `limner train`, or set LIMNER_EMBEDDER__MODEL back."
        )
    yield Recommender(opened, model, model_id, embeds, settings.evidence_settings, settings.language)


@contextmanager
def profiler(settings: Settings, opened: Database, *, with_llm: bool, force: bool = False) -> Iterator[Profiler]:
    """Give the profiler, with the catalogue embedded and the model at hand."""
    embeds = embedder(settings)
    with progress_bar("embedding items") as advance:
        catalogue = prepare_catalogue(opened, embeds, advance)
    made = Profiler(
        database=opened,
        embedder=embeds,
        catalogue=catalogue,
        evidence=settings.evidence_settings,
        language=settings.language,
        clock=now,
        users_at_once=users_at_once(settings),
        force=force,
    )
    if not with_llm:
        yield made
        return
    with batch_model(settings) as (chat, info):
        made.llm = (LlmWriter(chat, Repetition(embeds.embed), settings.language, asked(settings)), info)
        yield made
