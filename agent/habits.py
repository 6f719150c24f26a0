"""Habits and tags: regularities that are computed, not worded by a model. Formulas in docs/architecture.md."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from agent.catalogue import Attribute, BaseRates
from agent.contract import Habit, Language, Tag
from agent.evidence import Floats
from agent.themes import Ints, UserLog

MIN_EVENTS = 20
TAG_EVENTS, TAG_LIFT, MAX_TAGS = 3, 1.5, 12
PEAK_HOURS = 3
DAYS = {
    "en": ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays"),
    "zh": ("周一", "周二", "周三", "周四", "周五", "周六", "周日"),
}


def sessions(times: Floats, gap_minutes: float) -> Ints:
    """Number sessions from 0: a gap of more than `gap_minutes` starts a new one. `times` are sorted seconds."""
    if not len(times):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([[0], np.cumsum(np.diff(times) > gap_minutes * 60)]).astype(np.int64)


def find_habits(
    log: UserLog, categories: Sequence[Sequence[str]], tz: str | None, gap_minutes: float, language: Language
) -> tuple[Habit, ...]:
    """Compute habits of a log with at least 20 events.

    Args:
        log: The events.
        categories: For each event, the categories of its item.
        tz: The user's declared zone, used where an event came without an offset; without either there are no
            hours and weekdays.
        gap_minutes: Of a session.
        language: Of the statements.
    """
    if len(log.times) < MIN_EVENTS:
        return ()
    found = [
        *_clock(log, tz, language),
        _sessions(log, gap_minutes, language),
        _diversity(categories, language),
    ]
    return tuple(habit for habit in found if habit is not None)


def _clock(log: UserLog, tz: str | None, language: Language) -> list[Habit]:
    zone = ZoneInfo(tz) if tz else None
    local = [
        t + 60 * offset if offset is not None else t + _zone_offset(t, zone)
        for t, offset in zip(log.times, log.offsets, strict=True)
        if offset is not None or zone is not None
    ]
    if len(local) < MIN_EVENTS:
        return []
    seconds = np.array(local)
    hours = np.bincount((seconds // 3600 % 24).astype(int), minlength=24)
    days = np.bincount(((seconds // 86_400 + 3) % 7).astype(int), minlength=7)  # 1 January 1970 was a Thursday
    window = np.array([np.take(hours, range(h, h + PEAK_HOURS), mode="wrap").sum() for h in range(24)])
    peak, day = int(window.argmax()), int(days.argmax())
    end = (peak + PEAK_HOURS) % 24
    share = float(window[peak] / hours.sum())
    day_share = float(days[day] / days.sum())
    said = (
        (f"最活跃的时段是{peak}点到{end}点。", f"{DAYS['zh'][day]}最活跃。")
        if language == "zh"
        else (f"Most active from {peak}:00 to {end}:00.", f"Most active on {DAYS['en'][day]}.")
    )
    return [
        Habit(name="hours", statement=said[0], values={"hours": hours.tolist(), "peak": peak, "share": share}),
        Habit(
            name="weekdays",
            statement=said[1],
            values={"weekdays": days.tolist(), "peak": day, "share": day_share},
        ),
    ]


def _zone_offset(time: float, zone: ZoneInfo | None) -> float:
    if zone is None:
        return 0.0
    offset = datetime.fromtimestamp(time, UTC).astimezone(zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


def _sessions(log: UserLog, gap_minutes: float, language: Language) -> Habit:
    number = sessions(log.times, gap_minutes)
    sizes = np.bincount(number)
    starts = np.searchsorted(number, np.arange(len(sizes)))
    ends = np.append(starts[1:], len(number)) - 1
    minutes = (log.times[ends] - log.times[starts]) / 60
    events, length = float(np.median(sizes)), float(np.median(minutes))
    said = (
        f"通常每次访问{events:.0f}个事件，约{length:.0f}分钟（共{len(sizes)}次访问）。"
        if language == "zh"
        else f"{len(sizes)} visit{'s' * (len(sizes) > 1)}, in the median {events:.0f} events, {length:.0f} minutes."
    )
    return Habit(
        name="sessions",
        statement=said,
        values={
            "sessions": len(sizes),
            "median_events": events,
            "median_minutes": length,
            "gap_minutes": gap_minutes,
        },
    )


def _diversity(categories: Sequence[Sequence[str]], language: Language) -> Habit | None:
    """Entropy of the categories of the events, over that of as many equally frequent ones: 0 narrow, 1 even."""
    counts = np.array(list(Counter(c for event in categories for c in event).values()), dtype=float)
    if not len(counts):
        return None
    p = counts / counts.sum()
    value = float(-(p * np.log(p)).sum() / np.log(len(p))) if len(p) > 1 else 0.0
    if language == "zh":
        said = f"涉及{len(p)}个类别，多样性{value:.2f}（0到1）。"
    else:
        said = f"Spreads over {len(p)} categor{'ies' if len(p) > 1 else 'y'} with a diversity of {value:.2f} of 1."
    return Habit(name="diversity", statement=said, values={"categories": len(p), "normalised_entropy": value})


def find_tags(attributes: Sequence[Sequence[Attribute]], base_rates: BaseRates) -> tuple[Tag, ...]:
    """Return attribute values of at least 3 positive events at 1.5 times the usual share, by share times log lift.

    Args:
        attributes: For each positive event, the attributes of its item.
        base_rates: Of the catalogue.
    """
    counts = Counter(a for event in attributes for a in event)
    telling = [base_rates.telling(a, n, len(attributes)) for a, n in counts.items() if n >= TAG_EVENTS]
    kept = sorted((t for t in telling if t.lift >= TAG_LIFT), key=lambda t: (-t.share * np.log(t.lift), t.attribute))
    return tuple(
        Tag(
            name=t.attribute.value,
            field=t.attribute.field,
            events=t.events,
            share=t.share,
            lift=round(t.lift, 3),
        )
        for t in kept[:MAX_TAGS]
    )
