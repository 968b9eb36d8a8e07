from __future__ import annotations

import itertools

import numpy as np
import pytest

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement.protocol import Schedule, Side, _block, compare, time_alone

FAST_S, SLOW_S = 0.0001, 0.00085  # 8.5 times
COLD_FAST_S, COLD_SLOW_S = 0.0004, 0.0002


class Machine:
    """A machine with a law instead of a clock: caches, drift, interruptions and noise as asked for.

    On a shared core another process runs for ``slice_s`` after every ``slice_s`` of this one, and for
    ``steal_s`` right after this one has read how long it waited.
    """

    def __init__(self, drift_per_s=0.0, noise=0.0, interrupt_every=0, slice_s=0.0, steal_s=0.0, seed=0):
        self.now = self.waited_s = self.ran_s = 0.0
        self.slice_s = slice_s
        self.steal_s = steal_s
        self.drift_per_s = drift_per_s
        self.noise = noise
        self.interrupt_every = interrupt_every
        self.rng = np.random.default_rng(seed)
        self.resident = None
        self.calls = 0

    def clock(self):
        return self.now

    def waited(self):
        """Reading the scheduler's file is where the core is often lost: on the way back from the kernel."""
        waited = self.waited_s
        self.now += self.steal_s
        self.waited_s += self.steal_s
        return waited

    def net(self, seconds, cold_s=0.0):
        """A call that costs ``seconds``, and ``cold_s`` more when another net ran before it."""
        identity = object()

        def call():
            cost = seconds * (1 + self.drift_per_s * self.now)
            cost *= 1 + self.noise * abs(self.rng.standard_normal())
            cost += cold_s if self.resident is not identity else 0.0
            self.calls += 1
            if self.interrupt_every and self.calls % self.interrupt_every == 0:
                cost += 0.004
            self.resident = identity
            self.now += cost
            self.ran_s += cost
            while self.slice_s and self.ran_s >= self.slice_s:
                self.ran_s -= self.slice_s
                self.now += self.slice_s
                self.waited_s += self.slice_s

        call.seconds = seconds
        return call


def side(*copies):
    """A side of calls of ``Machine.net``, in turn."""
    return Side(itertools.cycle(copies), copies[0].seconds)


def run(machine, candidate, baseline, waited=lambda: 0.0, **schedule):
    return compare(
        side(candidate),
        side(baseline),
        machine.clock,
        batch=1,
        threads=1,
        waited=waited,
        schedule=Schedule(**schedule),
    )


def separate_loops(machine, candidate, baseline, calls=200):
    def loop(call):
        call()
        began = machine.clock()
        for _ in range(calls):
            call()
        return machine.clock() - began

    return loop(candidate) / loop(baseline)


def alternating_single_calls(machine, candidate, baseline, calls=200):
    own = its = 0.0
    for _ in range(calls):
        began = machine.clock()
        candidate()
        own += machine.clock() - began
        began = machine.clock()
        baseline()
        its += machine.clock() - began
    return own / its


def test_blocks_give_the_factor_of_separate_loops_and_not_that_of_alternating_calls():
    machine = Machine()
    fast, slow = machine.net(FAST_S, COLD_FAST_S), machine.net(SLOW_S, COLD_SLOW_S)
    truth = separate_loops(machine, fast, slow)
    assert truth == pytest.approx(FAST_S / SLOW_S)
    assert run(machine, fast, slow).ratio == pytest.approx(truth, rel=1e-6)
    assert alternating_single_calls(machine, fast, slow) > 3 * truth


def test_a_net_against_its_own_copy_gives_one_at_once():
    machine = Machine()
    found = run(machine, machine.net(FAST_S, COLD_FAST_S), machine.net(FAST_S, COLD_FAST_S))
    assert found.ratio == pytest.approx(1.0, abs=1e-6)
    assert found.ratio_high - found.ratio_low < 1e-6
    assert found.pairs == Schedule().min_pairs
    assert found.spread < 1e-6


def test_drift_cancels_in_pairs():
    machine = Machine(drift_per_s=1.0)  # the machine slows down to a half within a second
    found = run(machine, machine.net(FAST_S), machine.net(SLOW_S))
    assert found.ratio == pytest.approx(FAST_S / SLOW_S, rel=0.005)
    assert found.spread > 0.05


def test_interruptions_do_not_count():
    machine = Machine(interrupt_every=37)
    found = run(machine, machine.net(FAST_S), machine.net(SLOW_S))
    assert found.ratio == pytest.approx(FAST_S / SLOW_S, rel=1e-6)


def test_the_95th_percentile_holds_the_interruptions_of_single_calls():
    machine = Machine(interrupt_every=11)
    found = run(machine, machine.net(FAST_S), machine.net(SLOW_S))
    assert found.candidate_p95_ms == pytest.approx(1e3 * (FAST_S + 0.004))
    assert found.baseline_p95_ms == pytest.approx(1e3 * (SLOW_S + 0.004))
    assert found.candidate_ms == pytest.approx(1e3 * FAST_S)
    rare = Machine(interrupt_every=37)
    assert run(rare, rare.net(FAST_S), rare.net(SLOW_S)).candidate_p95_ms == pytest.approx(1e3 * FAST_S)


def test_on_a_shared_core_long_calls_are_not_taken_for_slow_ones():
    """Calls of three slices are all interrupted, of short calls only few."""
    machine = Machine(slice_s=0.003)
    short, long = machine.net(0.0007), machine.net(0.01)
    assert run(machine, short, long).ratio < 0.6 * 0.07
    told = run(machine, short, long, machine.waited)
    assert told.ratio == pytest.approx(0.07)
    assert told.candidate_ms == pytest.approx(0.7)
    assert told.baseline_ms == pytest.approx(10.0)
    assert told.candidate_p95_ms > 3.0  # the percentile holds what the machine did to single calls
    assert told.baseline_p95_ms > 19.0
    assert time_alone(side(long), machine.clock, waited=machine.waited) == pytest.approx(0.01)


@pytest.mark.parametrize("seconds", [0.0001, 0.0007, 0.012, 0.3])
def test_a_call_pays_for_its_own_waits_only(seconds):
    """A core that is lost between two clock readings, but not in a call, once made calls of negative time."""
    machine = Machine(steal_s=0.06)
    found = run(machine, machine.net(seconds), machine.net(seconds), machine.waited)
    assert (found.ratio, found.ratio_low, found.ratio_high) == pytest.approx((1.0, 1.0, 1.0))
    # What was lost after the second reading is the clock's; it is never less than the call.
    assert found.candidate_ms >= seconds * 1e3 * (1 - 1e-9)
    alone = time_alone(side(machine.net(seconds)), machine.clock, waited=machine.waited)
    assert alone >= seconds * (1 - 1e-9)


@pytest.mark.parametrize("lost", [(1e9, 0.001), (0.008, 0.008), (0.002, 0.0003), (0.0005, 0.0002)])
@pytest.mark.parametrize("seconds", [0.0003, 0.0008, 0.0012, 0.01])
def test_no_call_has_a_time_of_zero_or_less(seconds, lost):
    """The core is lost at random, also within short calls, whose waits once went to the next long one."""
    every_s, wait_s = lost
    rng = np.random.default_rng(0)
    machine = Machine()
    left = rng.exponential(every_s)

    def call():
        nonlocal left
        machine.now += seconds
        left -= seconds
        while left <= 0:
            wait = rng.exponential(wait_s)
            machine.now += wait
            machine.waited_s += wait
            left += rng.exponential(every_s)

    calls = Side(itertools.repeat(call), seconds)
    blocks = [_block(calls, machine.clock, machine.waited, Schedule()) for _ in range(20)]
    times = np.concatenate([block.times for block in blocks])
    assert times.min() >= seconds * (1 - 1e-9)
    assert np.median(times) == pytest.approx(seconds, rel=0.01)


def test_a_clock_that_goes_back_is_refused():
    """The logarithm of such a ratio is no number, and a study would store it."""
    settled, block = [0.0, 1.0], [10.0, 9.0, 8.0, 7.0, 1000.0]
    calls = Side(itertools.repeat(lambda: None), 1e-4)
    for measure in (time_alone, lambda calls, clock: compare(calls, calls, clock, batch=1, threads=1)):
        readings = itertools.chain([0.0], itertools.cycle([*settled, *block]))
        with pytest.raises(MeasurementFailed, match="the clock gave -1 s for a call"):
            measure(calls, lambda readings=readings: next(readings))


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_fifth_stays_within_three_percent(seed):
    machine = Machine(noise=0.2, seed=seed)
    found = run(machine, machine.net(0.005), machine.net(0.005))
    assert found.ratio == pytest.approx(1.0, rel=0.03)
    assert found.ratio_low <= found.ratio <= found.ratio_high


def test_times_and_counts_are_those_of_the_run():
    machine = Machine()
    sides = side(machine.net(0.002, 0.03)), side(machine.net(0.02))
    found = compare(*sides, machine.clock, batch=64, threads=2)
    assert found.candidate_ms == pytest.approx(2.0)
    assert found.baseline_ms == pytest.approx(20.0)
    assert found.calls_per_block == 13  # 25 ms of 2 ms each
    assert (found.batch, found.threads) == (64, 2)


def test_a_call_longer_than_a_block_is_timed_once_a_block_and_warmed_up_once():
    machine = Machine()
    found = run(machine, machine.net(0.3, 0.1), machine.net(0.6, 0.1), min_pairs=4, max_pairs=4)
    assert found.calls_per_block == 1
    assert found.ratio == pytest.approx(0.5)
    assert machine.calls == 4 * 2 * 2


def test_it_stops_when_the_interval_is_narrow_and_otherwise_at_the_most_pairs():
    noisy = Machine(noise=0.5)
    long_calls = noisy.net(0.06), noisy.net(0.06)
    assert run(noisy, *long_calls, max_pairs=18).pairs == 18
    assert run(noisy, *long_calls, max_pairs=18, tolerance=10.0).pairs == 12


@pytest.mark.parametrize("seconds", [10.0, 60.0])
def test_calls_of_seconds_are_called_a_few_times_only(seconds):
    """Nothing is gained by warming up for them, and four pairs are enough once they take long."""
    noisy = Machine(noise=0.5)
    found = run(noisy, noisy.net(seconds), noisy.net(2 * seconds))
    assert (found.pairs, noisy.calls) == (4, 8)
    time_alone(side(noisy.net(seconds)), noisy.clock)
    assert noisy.calls == 8 + 4


@pytest.mark.parametrize("seconds", [1e-5, 0.003, 0.04, 0.4, 2.0, 10.0])
def test_the_time_that_is_expected_is_enough(seconds):
    """The limit of time follows from it."""
    machine = Machine(noise=0.2)
    run(machine, machine.net(seconds), machine.net(2 * seconds))
    assert machine.now < 1.5 * Schedule().expected_s(seconds, 2 * seconds)
    assert Schedule().expected_s(seconds, 2 * seconds) < max(30.0, 40 * seconds)


def test_every_pair_takes_the_next_copy_so_that_lucky_places_in_memory_widen_the_interval():
    """Six of copies that differ by a sixth once gave an interval without width, of one lucky copy."""
    rng = np.random.default_rng(0)
    machine = Machine()
    held = 0
    for _ in range(100):
        of_candidate, of_baseline = (
            side(*(machine.net(FAST_S * float(np.exp(rng.normal(0.0, 0.05)))) for _ in range(29)))
            for _ in range(2)
        )
        found = compare(of_candidate, of_baseline, machine.clock, batch=1, threads=1)
        held += found.ratio_low <= 1.0 <= found.ratio_high
    assert held >= 90


def test_pairs_alternate_their_order():
    machine = Machine()
    order = []

    def net(name):
        call = machine.net(0.1)

        def logged():
            order.append(name)
            call()

        logged.seconds = 0.1
        return logged

    run(machine, net("c"), net("y"), min_pairs=4, max_pairs=4)
    assert "".join(order[::2]) == "cyyccyyc"


@pytest.mark.parametrize(
    "bounds", [{"min_pairs": 13}, {"max_pairs": 17}, {"min_pairs": 2}, {"min_pairs": 0}, {"max_pairs": 4}]
)
def test_numbers_of_pairs_without_an_interval_are_refused(bounds):
    with pytest.raises(ValueError, match="even"):
        Schedule(**bounds)
