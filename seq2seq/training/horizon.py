"""When a training ends: after steps that are given, or planned once from the minutes that it may take."""

from __future__ import annotations

from collections.abc import Sequence

from seq2seq.config import ConfigError, TrainingConfig
from seq2seq.training.state import TrainingState

# A horizon that is planned from minutes: how much of the time is spent measuring the speed, if the warm-up is as long,
# and how much is left for validating, saving and averaging, of which validations may take half; what they take beyond
# that is planned for. Speeds drift: a moment's says little.
MEASURE_SHARE, RESERVE_SHARE, VALIDATION_SHARE = 0.15, 0.10, 0.05
# Where there is time for less than two warm-ups, a plan raises the rate at once (see `learning_rate`): it comes early.
EARLY_SHARE = 0.04
MIN_MEASURED_STEPS = 8
SURE = 2.0  # times as long as the epochs seem to take: if there is as much, they and not the minutes are the end


def check_end(config: TrainingConfig, has_validation: bool) -> None:
    """Raises ConfigError where nothing says when training ends."""
    if config.max_steps or config.max_epochs or config.max_minutes:
        return
    if config.patience and has_validation and config.schedule in ("inverse_sqrt", "constant"):
        return
    raise ConfigError(
        "nothing says when training ends: begin with a preset (--preset tiny, or `preset` in the recipe), or set "
        "training.max_steps, training.max_epochs or training.max_minutes"
    )


def known_horizon(config: TrainingConfig, updates_per_epoch: int) -> int | None:
    """The number of steps where it is known beforehand; None where minutes or patience decide."""
    if config.max_steps is not None:
        return config.max_steps
    if config.max_epochs is not None and config.max_minutes is None:
        return config.max_epochs * updates_per_epoch
    return None


def plan_from_timings(
    config: TrainingConfig,
    step: int,
    seconds: float,
    timings: Sequence[float],
    updates_per_epoch: int,
    validation_seconds: float = 0.0,
    spent: float = 0.0,
) -> int | None:
    """Turns `max_minutes` into steps once enough of them have been timed, and None until then.

    That is when 15% of the time is over (4% where there is time for less than two warm-ups), or the warm-up if it ends
    sooner; and after a few steps where the epochs take less than half of the minutes.

    step, seconds: where training is, and how long it has taken. timings: seconds of each step of this sitting, without
    validations. validation_seconds: how long one of those takes. spent: what has gone by since, to find that out.
    """
    if config.max_minutes is None:
        return None
    budget = 60 * config.max_minutes
    measured = len(timings) >= MIN_MEASURED_STEPS
    later = timings[len(timings) // 2 :]  # the first steps warm caches up, and processors begin faster than they go on
    # Few, where it has just been resumed: all sittings tell more.
    pace = sum(later) / len(later) if measured or step == len(timings) else seconds / step
    pace += max(0.0, validation_seconds / config.validate_every - VALIDATION_SHARE * pace)
    last = max(0.0, 2 * validation_seconds - VALIDATION_SHARE * budget)  # of the last step, and of the average
    plan = plan_at_speed(config, step, seconds + spent + last, pace, updates_per_epoch)
    share = MEASURE_SHARE if plan >= 2 * config.warmup_steps else EARLY_SHARE
    # Past the warm-up the schedule needs the horizon.
    if step < config.warmup_steps and seconds < (1 - RESERVE_SHARE) * budget:
        by_epochs = config.max_epochs is not None and SURE * (
            config.max_epochs * updates_per_epoch - step
        ) * pace < _time_to_plan(config.max_minutes, seconds)
        return plan if measured and (by_epochs or seconds >= share * budget) else None
    return plan


def plan_at_speed(
    config: TrainingConfig, step: int, seconds: float, seconds_per_step: float, updates_per_epoch: int
) -> int:
    """The last step that fits into `max_minutes` of training altogether, at the given speed."""
    assert config.max_minutes is not None
    horizon = step + int(_time_to_plan(config.max_minutes, seconds) / seconds_per_step)
    return horizon if config.max_epochs is None else min(horizon, config.max_epochs * updates_per_epoch)


def _time_to_plan(minutes: float, seconds: float) -> float:
    """Seconds that are left for steps when training has taken `seconds` of its minutes."""
    return max(0.0, (1 - RESERVE_SHARE) * 60 * minutes - seconds)


def at_end(config: TrainingConfig, state: TrainingState) -> bool:
    """Whether any of the limits is reached."""
    if state.horizon is not None and state.step >= state.horizon:
        return True
    if config.max_epochs is not None and state.epoch >= config.max_epochs:
        return True
    return out_of_patience(config, state) or out_of_time(config, state)


def out_of_patience(config: TrainingConfig, state: TrainingState) -> bool:
    """Whether as many validations in a row as `patience` allows had neither a better BLEU nor a lower loss."""
    return 0 < config.patience <= state.validations_without_gain


def early_end(config: TrainingConfig, state: TrainingState) -> str | None:
    """Why a training has ended before the step that was planned; None where it has not."""
    if state.horizon is not None and state.step >= state.horizon:
        return None
    if out_of_time(config, state):
        reason = f"training.max_minutes = {config.max_minutes:g} are over"
    elif out_of_patience(config, state):
        reason = f"no better validation for training.patience = {config.patience}"
    else:
        return None
    planned = "" if state.horizon is None else f" of {state.horizon:,}"
    return f"{reason}: stopped at step {state.step:,}{planned}"


def out_of_time(config: TrainingConfig, state: TrainingState) -> bool:
    """Where steps fix the horizon, minutes are a limit of their own; where they planned it, they are in it."""
    return config.max_minutes is not None and config.max_steps is not None and state.seconds >= 60 * config.max_minutes


def time_left(config: TrainingConfig, state: TrainingState, seconds_per_step: float | None = None) -> float | None:
    """Seconds until steps or minutes end a training; None where neither does. Epochs beside them do not count.

    seconds_per_step: how long a step takes; by default as long as those so far. Where minutes have not been turned
    into steps yet, it is what is left to plan with.
    """
    minutes = config.max_minutes
    if state.horizon is None:
        return None if minutes is None else _time_to_plan(minutes, state.seconds)
    pace = state.seconds / max(1, state.step) if seconds_per_step is None else seconds_per_step
    left = pace * max(0, state.horizon - state.step)
    # What is planned from minutes may go on for longer; beside a number of steps they are a limit (see `out_of_time`).
    return left if minutes is None or config.max_steps is None else max(0.0, min(left, 60 * minutes - state.seconds))
