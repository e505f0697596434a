"""This package is worlds that nobody thought of: the whole scheduler, in virtual time, under faults, by seed.

A world is everything that follows from one seed: one to three processes, each with the real scheduler, from
`open_scheduler` down to the bytes of an invocation; a Postgres that is tests/model_database.py behind a
network; a trigger engine in it, or behind HTTP, or a foreign one; a population that changes; callers who
tick, hang up and look at freshness; and what goes wrong with all of them. START with world.py; plan.py is
what is drawn.

    python -m tests.simulation --worlds 100000        all cores; keeps tests/figures/simulation.json
    python -m tests.simulation --seed 1 --first 4711 --worlds 1      one world again, to the last event

Every process is a trio loop of its own (process.py), stepped from outside on a clock of its own that may
drift. So a freeze is one: the loop is not stepped, in the middle of a pass if need be, while timers run out
and answers pile up. And a kill is one: from some step of some task on, nothing that the process says is
heard; it is then unwound to see that it lets go of everything. trio's order of tasks is drawn from the seed,
as are all dice; two interpreters with different hash seeds come to the same trace (test_replay.py).

The witness (witness.py) keeps its own books of what was on the wire and what took effect, and finds, at once
where it can be found at once, else when the world is over:

- a summary or a row that does not add up, or whose counts are not those that were seen; a row that the checks
  of the table would refuse;
- more than `max_concurrency` invocations of a run in flight;
- two live runs that act at once: an invocation decided on after another run has begun, or in flight then;
- an invocation past the hard deadline, a chunk begun while the process drains, an answer later than the hard
  deadline and the graces that spec.md allows;
- a notification twice in its cooldown; more dispatched than were sent; a dry run that sends;
- a mark that has passed somebody who was not finished, or that is short of who was finished without a gap;
- a run that does not begin where the last one of its types has left off, as of its verdict or, if it was
  killed, of the last heartbeat that took effect;
- somebody who was there all the time and was not visited by ⌈1/f⌉ + 1 runs, f the smallest share that one of
  them was seen to finish: over any runs that followed one another, and once more when nothing goes wrong;
- a third try at a chunk or at a half of one, a second that was not due, too early, or under another
  Idempotency-Key; a retry or a half that was left out although there was time; an error of anybody but the
  poisoned where nothing else goes wrong;
- a completed run that has not visited whoever was there throughout; a total that is not the population's;
- a freshness that claims what was not there;
- a session, a call, a channel or a task that is left; a process that does not end when it is told to; no run
  that begins within half a minute after the last fault.

That it can find them is tested by breaking the product on purpose, or, for what is SQL, the stand-in for it
(mutations.py says which; test_finds.py).

Where it is less than reality:

- A process is frozen and killed between two steps of its tasks, never within one. Between the look at its
  deadline and the system call that sends an invocation there is such a moment; what the two are apart in the
  simulation, a pass of the loop in the database's client, it sees, and forgives what was decided before.
- A statement is one step on the model: nothing of what Postgres does between concurrent statements is here
  (tests/postgres). That the model says what Postgres says, one statement after another, is held by
  tests/postgres/test_model_differential.py.
- The default transport is here from its connecting to the bytes of a request and its answer, over a stream
  that is no socket. Sockets, TLS and the other transports are not (tests/transports), and neither are
  Hypercorn and Quart (tests/web).
- Not judged: retries and halves of a run that was frozen, that has lost its lease or its database, or that is
  dry; whether the same try goes on while Postgres is away; what was finished, of a try that had no answer, in
  the database or in a run that was frozen; fairness where one budget holds no chunk at all, or, once nothing
  goes wrong any more, less than a fifth of all.
- Where Postgres's clock is put forward by more than the fence allows for, a lease ends early, and two runs
  may act at once until the next heartbeat; that is bounded, not forbidden. While it is put back, which run
  was the last one can't be told by it: then nothing is asked of fairness, and a lease lasts until the clock
  has caught up.
"""
