"""The profile suite: are profiles grounded, specific, telling, useful, stable, steerable, fresh and readable?

By the template for everyone who is measured, and by a language model, where one is given, for a sample; the two are
compared on the users whom both have written of. `eval.profiles` has a module for each question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from agent.chat import ChatModel
from agent.contract import Language
from agent.embedder import Embedder
from agent.verify import Repetition
from eval.errors import EmptyWorldError
from eval.findings import EVERYONE, Curve, Example, Figure, Findings, PairedTest, Tell, figure, paired_tests
from eval.interactions import Floats, Ints
from eval.leakage import assert_before
from eval.options import Options
from eval.profiles import fresh, stable
from eval.profiles import judge as judging
from eval.profiles.grounded import Judged, judge_all, reasons
from eval.profiles.measuring import AGAIN, BY_AGE, HELD_OUT, METRICS, ONE_MORE, PROTOCOLS, Row, Trial
from eval.profiles.writing import Llm, Metric, Writing, Written
from eval.segments import segments
from eval.stats import holm
from eval.verifier import OK
from eval.verifier import judge as judge_sentences
from eval.world import World

SUITE = "profiles"
TEMPLATE, LLM = "template", "llm"
CHURN_USERS = 100
AGAIN_BY_LLM = 10
EXAMPLES = 3
PAIRED = 200
"""Figures of at most so many users are kept of each user, so that another report can be compared pair by pair."""
EXAMPLE_BY = ("interest F1", "specificity", "AUC")
"""What an example is chosen by: the mean of the ranks in these."""
LABELLED = Path(__file__).parents[2] / "tests" / "verifier" / "heldout"
_VERIFIER = {
    "verifier recall": Metric("Share of the planted errors in labelled sentences that the verifier finds."),
    "verifier false alarms": Metric("Share of the true labelled sentences that the verifier refuses.", "lower"),
}
_ALL_METRICS = METRICS | fresh.METRICS | judging.METRICS | _VERIFIER
SENTENCES, JUDGED = "labelled sentences", "judged"
CHANCE = ", chance"


def run(
    world: World,
    embedder: Embedder,
    options: Options,
    tell: Tell,
    llm: Llm | None = None,
    judge: ChatModel | None = None,
    language: Language = "en",
) -> Findings:
    """Measure profiles.

    Args:
        world: The data.
        embedder: Of claims.
        options: How much is measured; `llm_users` bounds what the language model writes.
        tell: Called with what is being done.
        llm: A writer to be judged beside the template.
        judge: A language model that judges claims besides the verifier; its own figures are given too.
        language: That profiles are written in.

    Raises:
        EmptyWorldError: No user has enough events to hold some out.
        LeakError: A profile knows what comes after its user's cut.
        ChatError: A language model is out of reach.
    """
    trial = Trial.of(world, embedder, range(options.seed, options.seed + options.seeds))
    able = np.flatnonzero(np.isfinite(trial.cut)).astype(np.int64)
    if not len(able):
        raise EmptyWorldError("No user has 5 events or more at different times: ingest a longer log.")
    codes = options.sample(able)
    tell(f"profiles: the template writes of {len(codes)} users")
    writing = Writing(trial.past, embedder, language)
    written = _written(writing, codes, trial)
    judged = judge_all(written, trial.judge)
    tell("profiles: the template's are measured")
    rows = trial.rows(written, judged, TEMPLATE) + trial.baselines(written) + _stability(writing, written, options)
    found = _findings(rows, trial, codes) + _best_and_worst(rows, written, world)
    found += _tested(rows) + _verifier(embedder) + _reasons(TEMPLATE, judged)
    tell("profiles: the template's are held against later weeks")
    found += _freshness(writing, world, codes)
    sample = replace(options, users=options.llm_users).sample(np.array([one.code for one in written], dtype=np.int64))
    by_writer = {TEMPLATE: [one for one in written if one.code in set(sample.tolist())]}
    if llm is not None:
        tell(f"profiles: {llm[1].name} writes of {len(sample)} users")
        by_model = replace(writing, llm=llm, failed={})
        by_writer[LLM] = _written(by_model, sample, trial)
        found += _compared(by_model, by_writer, trial, options, tell)
    if judge is not None:
        found += _judged(judge, by_writer, trial, options, tell)
    metrics = {name: _ALL_METRICS[name].says for name in {f.metric for f in found.figures}}
    return found + Findings(protocols=PROTOCOLS, metrics=dict(sorted(metrics.items())))


def _written(writing: Writing, codes: Ints, trial: Trial) -> list[Written]:
    """Write profiles, and make sure that they know nothing of what is held out."""
    written = writing.write(writing.drafts(codes))
    cut = dict(zip(trial.world.user_ids, trial.cut.tolist(), strict=True))
    assert_before(cut, [one.profile for one in written], {log.user_id: log for log in trial.world.logs})
    return written


def _stability(writing: Writing, written: Sequence[Written], options: Options) -> list[Row]:
    again = stable.measure(writing, written, options.seed + 1)
    rows = [Row(AGAIN, name, TEMPLATE, values) for name, values in again.items()]
    codes = np.random.default_rng(options.seed).permutation([one.code for one in written])[:CHURN_USERS]
    return [*rows, Row(ONE_MORE, "churn", TEMPLATE, stable.churned(writing, np.sort(codes).tolist()))]


def _findings(rows: Sequence[Row], trial: Trial, codes: Ints) -> Findings:
    """Make figures of rows, for everyone and by segment."""
    found = []
    for row in rows:
        values = np.atleast_2d(row.values)
        for segment, users in _parts(trial, codes).items():
            if not np.isnan(values[:, users]).all():
                made = _figure(row, values[:, users], segment)
                few = segment == EVERYONE and len(users) <= PAIRED
                found.append(made.model_copy(update={"by_user": _by_user(values, users)}) if few else made)
    return Findings(figures=tuple(found))


def _parts(trial: Trial, codes: Ints) -> dict[str, Ints]:
    """Return everyone, and who is in which segment."""
    inside = segments(trial.past.interactions, codes)
    return {EVERYONE: codes} | {name: codes[mask] for name, mask in inside.items()}


def _by_user(values: Floats, users: Ints) -> dict[int, float]:
    """Return the mean over the seeds, `(seeds, everyone)`, of each of these users who has a value."""
    known = users[~np.isnan(values[:, users]).all(axis=0)]
    return dict(zip(known.tolist(), np.nanmean(values[:, known], axis=0).tolist(), strict=True))


def _figure(row: Row, values: Floats, segment: str = EVERYONE) -> Figure:
    metric = _ALL_METRICS[row.metric]
    return figure(
        values, suite=SUITE, protocol=row.protocol, metric=row.metric, subject=row.subject, segment=segment,
        better=metric.better, unit=metric.unit,
    )  # fmt: skip


def _tested(rows: Sequence[Row]) -> Findings:
    """Test the template's profiles against baselines: those of ranking, and chance."""
    by = {(row.metric, row.subject): row.values for row in rows if row.protocol == HELD_OUT}
    tests: list[PairedTest] = []
    others = ("popularity", "most frequent category")
    for metric in ("ndcg@10", "ndcg@10, 1+99", "AUC"):
        pairs = [(f"{TEMPLATE}, by {how}", other) for how in ("texts", "factors") for other in others]
        tests += _tests([(a, b, by[metric, a], by[metric, b]) for a, b in pairs], metric, HELD_OUT)
    own = "picked out of 10", TEMPLATE
    if own in by:
        chance = TEMPLATE + CHANCE
        tests += _tests([(TEMPLATE, chance, by[own], by["picked out of 10", chance][0])], "picked out of 10", HELD_OUT)
    return Findings(tests=tuple(tests))


def _tests(pairs: Sequence[tuple[str, str, Floats, Floats]], metric: str, protocol: str, **of: Any) -> list[PairedTest]:
    """Test pairs on the users whom both have a value of; pairs with fewer than two such users are left out."""
    able = []
    for first, second, ours, theirs in pairs:
        known = ~(np.isnan(ours) | np.isnan(theirs))
        if np.count_nonzero(np.atleast_2d(known).any(axis=0)) > 1:
            able.append((first, second, np.where(known, ours, np.nan), np.where(known, theirs, np.nan)))
    if not able:
        return []
    better = _ALL_METRICS[metric].better
    return list(paired_tests(able, suite=SUITE, protocol=protocol, metric=metric, better=better, **of))


def _compared(
    writing: Writing, by_writer: Mapping[str, Sequence[Written]], trial: Trial, options: Options, tell: Tell
) -> Findings:
    """Compare the model's profiles with the template's of the same users."""
    by_llm = by_writer[LLM]
    asked, name = len(by_llm) + len(writing.failed), writing.llm[1].name if writing.llm else LLM
    refused = "Of the others most of its words were refused: in service their profiles of before would stay. "
    said = (
        f"{name} has written of {len(by_llm)} of {asked} users. {refused if writing.failed else ''}"
        "The template is compared with it on the same users, and with decoys among these alone."
    )
    found = Findings(notes=(said,))
    if not by_llm:
        return found
    both = np.array([one.code for one in by_llm], dtype=np.int64)
    rows = {}
    for subject, written in by_writer.items():
        same = [one for one in written if one.code in set(both.tolist())]
        judged = judge_all(same, trial.judge)
        rows[subject] = trial.rows(same, judged, subject)
        found += _reasons(subject, judged) if subject == LLM else Findings()
    few = by_llm[:AGAIN_BY_LLM]
    tell(f"profiles: {name} writes of {len(few)} of them again")
    again = stable.measure(writing, few, options.seed + 1)
    found += _findings([*rows[LLM], *(Row(AGAIN, *of, values) for of, values in _named(again))], trial, both)
    theirs = {(r.protocol, r.metric, r.subject): r.values for r in rows[TEMPLATE]}
    tests: list[PairedTest] = []
    for segment, users in _parts(trial, both).items():
        made: list[PairedTest] = []
        for row in rows[LLM]:
            other = row.subject.replace(LLM, TEMPLATE, 1)
            values = theirs.get((row.protocol, row.metric, other))
            if values is not None and not row.subject.endswith(CHANCE):
                pair = row.subject, other, row.values[..., users], values[..., users]
                made += _tests([pair], row.metric, row.protocol, segment=segment)
        tests += adjusted(made)
    return found + Findings(tests=tuple(tests))


def _named(values: Mapping[str, Floats]) -> list[tuple[tuple[str, str], Floats]]:
    return [((metric, LLM), of_users) for metric, of_users in values.items()]


def adjusted(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Adjust p-values that were not adjusted together, as one family (Holm 1979)."""
    p_values = holm(np.array([test.p for test in tests]))
    return [test.model_copy(update={"p": p}) for test, p in zip(tests, p_values.tolist(), strict=True)]


def _freshness(writing: Writing, world: World, codes: Ints) -> Findings:
    """Hold profiles of the past against later weeks."""
    figures, points = [], []
    for age, aged in fresh.measure(writing, world, codes).items():
        made = _figure(Row(f"{BY_AGE}: {age}", "AUC by age", TEMPLATE, aged.values), aged.values)
        figures.append(made)
        points.append((aged.days, made.value, made.low or made.value, made.high or made.value))
    if not figures:
        return Findings(notes=("No user's log is long enough to tell how fast profiles go stale.",))
    x, y, low, high = zip(*points, strict=True)
    curve = Curve(
        suite=SUITE, title="How fast a profile goes stale", subject=TEMPLATE,
        x_label="age of the profile, days (median)", y_label="AUC of later likes", x=x, y=y, low=low, high=high,
    )  # fmt: skip
    protocols = {f.protocol: f"{PROTOCOLS[BY_AGE]} Here: {f.protocol.removeprefix(BY_AGE)[2:]}." for f in figures}
    return Findings(figures=tuple(figures), curves=(curve,), protocols=protocols)


def _best_and_worst(rows: Sequence[Row], written: Sequence[Written], world: World) -> Findings:
    """Show the profiles that did best and worst: the mean of their ranks in three figures."""
    subjects = {"AUC": f"{TEMPLATE}, by texts"}
    values = []
    for metric in EXAMPLE_BY:
        wanted = HELD_OUT, metric, subjects.get(metric, TEMPLATE)
        found = next(row.values for row in rows if (row.protocol, row.metric, row.subject) == wanted)
        values.append(np.atleast_2d(found)[0])
    table = np.stack(values)[:, [one.code for one in written]]
    able = np.flatnonzero(~np.isnan(table).any(axis=0))
    order = able[np.argsort(-rankdata(table[:, able], axis=1).mean(axis=0), kind="stable")]
    count = min(EXAMPLES, len(order) // 2)
    shown: list[tuple[Literal["best", "worst"], int]] = [("best", n) for n in order[:count].tolist()]
    shown += [("worst", n) for n in order[len(order) - count :][::-1].tolist()]
    return Findings(examples=tuple(
        Example(
            suite=SUITE, title=f"User {world.user_ids[written[n].code]}, {len(written[n].log.event_ids)} events",
            verdict=verdict, text=_shown(written[n], dict(zip(EXAMPLE_BY, table[:, n].tolist(), strict=True))),
        )
        for verdict, n in shown
    ))  # fmt: skip


def _shown(written: Written, values: Mapping[str, float]) -> str:
    measured = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    return f"{written.text}\n({measured})"


def _verifier(embedder: Embedder) -> Findings:
    """Say how far the verifier itself can be trusted, on sentences labelled by hand, where these are at hand."""
    if not LABELLED.is_dir():
        return Findings(notes=("How good the verifier is, `limner eval verifier FOLDER` says.",))
    sentences = list(judge_sentences(LABELLED, Repetition(embedder.embed)))
    figures = []
    for metric, false in (("verifier recall", True), ("verifier false alarms", False)):
        refused = np.array([float(not s.verdict.passes) for s in sentences if (s.label != OK) is false])
        figures.append(_figure(Row(SENTENCES, metric, "verifier", refused), refused))
    protocols = {SENTENCES: "Sentences labelled by hand, some with planted errors; n counts sentences."}
    return Findings(figures=tuple(figures), protocols=protocols)


def _reasons(subject: str, judged: Sequence[Sequence[Judged]]) -> Findings:
    found, total = reasons(judged), sum(map(len, judged))
    said = ", ".join(f"{kind} {count}" for kind, count in found.most_common()) or "none"
    return Findings(notes=(f"Why claims by the {subject} are not verified, of {total}: {said}.",))


def _judged(
    chat: ChatModel, by_writer: Mapping[str, Sequence[Written]], trial: Trial, options: Options, tell: Tell
) -> Findings:
    """Let a language model judge claims, and see whether it can."""
    found = Findings()
    for subject, written in by_writer.items():
        tell(f"profiles: {chat.name} judges claims by the {subject}")
        claims = judge_all(written, trial.judge)
        cases = judging.cases(written, claims, trial.world.item_set, np.random.default_rng(options.seed))
        said = judging.sum_up(cases, judging.ask_all(chat, cases), len(trial.world.user_ids))
        rows = [
            Row(JUDGED, "accepted by the judge", subject, said.accepted),
            Row(JUDGED, "judge's sensitivity", subject, said.sensitivity),
            Row(JUDGED, "judge's specificity", subject, said.specificity),
        ]
        figures = tuple(_figure(row, row.values) for row in rows if not np.isnan(row.values).all())
        found += Findings(figures=figures)
        if not said.trusted:
            warning = (
                f"{chat.name} tells true claims by the {subject} from planted ones too badly (balanced accuracy "
                f"{said.accuracy:.2f}): what it accepts means nothing."
            )
            found += Findings(notes=(warning,))
    says = f"{chat.name} is shown a claim and its items; every claim has a planted false one beside it."
    return found + Findings(protocols={JUDGED: says})
