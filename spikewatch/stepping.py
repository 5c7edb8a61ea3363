"""Stepping: which steps and forward passes are observed, and what an observed one hands over.

The root's hooks tell that a forward pass begins, and whether it trains; the clock tells that a step
has ended; the sampler says whether the next one is observed. Then the observers' hooks are put on,
and when the step ends their counters go to the recorder.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .callers import forward_raised, loss_scale
from .evaluations import Evaluations
from .finding import Finder
from .layers import Layer
from .ledger import Ledger
from .listening import Listening
from .observers import Observers
from .observing import Observer
from .recorder import Recorder, utc_now
from .renewal import Renewal
from .sampling import Sampler
from .session import LiveSession
from .snapshot import take
from .steps import StepClock
from .unheard import unheard
from .unseen import Unseen


class Stepping:
    """The observers of one model, listened to on the steps that the sampler chooses."""

    def __init__(
        self,
        model: nn.Module,
        observers: Sequence[Observer],
        finder: Finder,
        recorder: Recorder,
        sampler: Sampler,
        *,
        run: str,
        track_weights: int,
        optimizers: Sequence[Optimizer],
        first_step: int,
        after_step: Callable[[], None],
    ) -> None:
        self.session = LiveSession(recorder, track_weights=track_weights)
        self.session.step = self.first_step = first_step
        self.observers = Observers(observers, self.session)
        self._run = run
        self._recorder = recorder
        self._sampler = sampler
        self._ledger = Ledger(sampler, recorder)
        self._after_step = after_step
        self._optimizers = optimizers
        self._unseen = Unseen(model, self.session)
        self._evaluations = Evaluations(sampler)
        self._train_active = self._train_detailed = False  # as it is again after an evaluation
        self._goes_on_evaluating = False  # a step ends within inference
        self._listening = Listening(
            self.observers.found,
            self.session,
            before=self._before_root,
            after=self._after_root,
            after_part=self._after_part,
        )
        self._renewal = Renewal(
            model, finder, self.observers, self._listening, self._unseen, flush=self._flush
        )
        self._is_new = False  # the step was chosen to be observed, and no forward pass ran in it
        self._in_step = False  # the latest of them trains, and all was done that it asks for
        self._is_spoilt = False  # what is counted of this step is not the whole of some passes
        self._raised = ""  # phase of the latest forward pass, if it raised and nothing came since
        self._replicas = threading.Lock()
        self._n_replicas = 0  # of DataParallel, that run now
        self._a_replica_raised = False
        self._clock: StepClock | None = None

    @property
    def layers(self) -> list[Layer]:
        """What is watched, in the model's order; layers found within another one after it."""
        return self.observers.layers

    @property
    def running(self) -> bool:
        """Whether steps are counted."""
        return self._clock is not None

    @property
    def fresh(self) -> bool:
        """Whether a forward pass ran since the last step ended."""
        return self._clock is not None and self._clock.fresh

    @property
    def in_forward(self) -> bool:
        """Whether a forward pass of the model runs now; or has run, in a step not observed."""
        counts_only = self._clock is not None and self._clock.counts_only
        return counts_only or self.session.root_phase is not None

    def start(self, model: nn.Module) -> None:
        """Put the hooks on: the root's own, and those of the observers for step 0."""
        session = self.session
        self._recorder.on_wake = self._look
        listening = self._listening
        self._clock = StepClock(
            model, self._end_step, self._see_nothing, listening.root, others=self._optimizers
        )
        self._optimizers = ()
        session.on_touch = self._clock.see_forward
        session.on_sample = self._evaluations.begins_sample
        session.on_optimizes = self._clock.optimizes
        listening.start(model)
        self.observers.place()
        self._train_active = self._observe(self.first_step)
        listening.listen(on=True)

    def stop(self) -> None:
        """Take every hook off the model, and hand over what was counted so far."""
        self._hand_over()
        self._listening.stop()
        self.stop_clock()

    def end_without_model(self) -> None:
        """The model is gone, and its hooks with it: hand over what was counted."""
        try:
            self._hand_over()
        except Exception as error:  # noqa: BLE001 - contract 1; the garbage collector calls this
            self.session.fault("", error)
        self._listening.root.let_go()
        self.stop_clock()

    def _look(self) -> None:
        """Look out, from the writer's thread, for what no hook tells."""
        self._unseen.look()
        if (clock := self._clock) is not None:
            clock.look()

    def _hand_over(self) -> None:
        if self.fresh:
            self._flush("train")
        self._flush("eval")

    def stop_clock(self) -> None:
        """Count no more steps; hooks that are still on return at once."""
        if self._clock is not None:
            self._clock.stop()
            self._clock = None
        self.session.on_touch = self.session.on_sample = self.session.on_optimizes = None
        self.session.active = False

    def observe_tap(self, name: str, tensor: Tensor) -> None:
        """Watch a tensor that the user taps; see `spikewatch.tap`."""
        if self._clock is not None:
            self.observers.tap(name, tensor)

    # ---------------------------------------------------------------- forward passes

    def _before_root(self, module: nn.Module, *_: Any) -> None:
        clock, session = self._clock, self.session
        if clock is None:
            return
        if self._raised:  # and the loop goes on
            self._drop_pass(self._raised, of_root=True)
        if self._goes_on(clock, module):
            session.root_phase = "train"
            session.n_forwards += 1
            session.root_pass.enter(session.step)
            return
        began, step = time.perf_counter(), session.step
        try:
            self._begin_forward(clock, module)
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault("", error)
        if session.step == step:  # else a step has ended in there, and has counted that
            session.spent_s += time.perf_counter() - began

    def _goes_on(self, clock: StepClock, module: nn.Module) -> bool:
        """Whether a forward pass is one more of a step of training, and needs only to be counted.

        A model may be called for each time step.
        """
        training = self._in_step and module.training and torch.is_grad_enabled()
        return training and "_is_replica" not in vars(module) and clock.goes_on()

    def _begin_forward(self, clock: StepClock, module: nn.Module) -> None:
        session = self.session
        training = module.training and torch.is_grad_enabled()
        if "_is_replica" in vars(module):
            self._before_replica("train" if training else "eval")
            return
        clock.before_forward(training=training)
        if not training and clock.only_evaluates:
            self._pay_for_evaluations()
            if self._evaluations.is_whole:
                self._goes_on_evaluating = True
                clock.end_evaluation()
                self._goes_on_evaluating = False
        session.root_phase = "train" if training else "eval"
        session.n_forwards += 1
        session.root_pass.enter(session.step)
        self._listening.see_root()
        self._in_step = training
        if training:
            # What an evaluation counted is flushed when the step ends: one row for each step.
            session.active, session.detailed = self._train_active, self._train_detailed
            self._count_evaluations()
        else:
            session.active = self._evaluations.observe(usual=clock.usual_forwards)
            session.detailed = self._evaluations.detailed
        if session.active and (self._is_new if training else not clock.fresh):
            self._look_anew(module, clock, training=training)
        self._listening.listen(on=session.active)
        clock.see_forward()

    def _look_anew(self, model: nn.Module, clock: StepClock, *, training: bool) -> None:
        """Watch the layers that the model has now; a first step with new ones is read closely."""
        self._renewal.follow(model, clock)
        if training:
            self._is_new = False
            if self._renewal.take_new():
                self.session.detailed = self._train_detailed = True

    def _count_evaluations(self) -> None:
        """What was spent between two steps was spent on evaluations, if there were any."""
        session = self.session
        if session.eval_pending and not self._ledger.evaluations_s:
            self._ledger.evaluations_s = session.spent_s

    def _pay_for_evaluations(self) -> None:
        """What comes before any training is not paid for when a step ends: that may never be."""
        self._ledger.tell_of_evaluations(self.session.spent_s)
        self.session.spent_s = 0.0

    def _before_replica(self, phase: str) -> None:
        """DataParallel: replicas share the hooks, and run side by side, in threads of their own."""
        session = self.session
        with self._replicas:
            self._n_replicas += 1
            if self._n_replicas == 1:
                session.root_phase = phase
                session.n_forwards += 1
        session.touch()

    def _after_root(self, module: nn.Module, *_: Any) -> None:
        raised, is_replica = forward_raised(), "_is_replica" in vars(module)
        if is_replica:
            with self._replicas:
                self._n_replicas -= 1
                self._a_replica_raised |= raised
                if self._n_replicas:
                    return
                raised, self._a_replica_raised = self._a_replica_raised, False
        if raised and self.session.active:
            if is_replica:
                self._drop_pass(self.session.phase(), of_root=False)
            else:  # unless the training ends with it: then what was seen until then is wanted
                self._raised = self.session.phase()
        self.session.root_phase = None
        self.session.root_pass.leave()

    def _after_part(self, *_: Any) -> None:
        if self.session.active and forward_raised():
            self._drop_pass(self.session.phase(), of_root=False)

    def _drop_pass(self, phase: str, *, of_root: bool) -> None:
        """A forward pass has raised, and the loop may go on: what it did must not count.

        It cannot be told from what passes before it did in the same step. Those of an evaluation
        are dropped with it; those of training have gradients to come, and the step gets no row.
        """
        session, clock, self._raised = self.session, self._clock, ""
        try:
            with torch.inference_mode(False), unheard():
                self.observers.forget(phase)
            if phase == "eval":
                session.eval_pending = False
                self._evaluations.end()
            elif clock is not None:
                self._is_spoilt = not (of_root and clock.take_back_forward())
            self._unseen.raised()
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault("", error)

    # ---------------------------------------------------------------- steps

    def _end_step(self) -> None:
        session = self.session
        session.root_phase = None  # where no hook told of the forward pass's end
        self._in_step = False
        if self._raised:
            self._drop_pass(self._raised, of_root=True)
        if not session.eval_pending and self._ledger.idles():
            session.step += 1
        else:
            self._account()
        session.root_pass.end_step(end_is_told=self._listening.hears_end)
        self._arm()
        self._after_step()

    def _arm(self) -> None:
        """Have a step that is not observed go by, with its forward passes only counted."""
        session, clock, listening = self.session, self._clock, self._listening
        idle = listening.root_is_called and not (listening.is_on or session.eval_pending)
        if clock is not None and idle and not self._train_active:
            session.active = False
            clock.arm()

    def _account(self) -> None:
        """Hand over what was counted, tell the sampler what it cost, and ask what comes next."""
        session = self.session
        try:
            began = time.perf_counter()
            observed = self._train_active or session.eval_pending
            if self._train_active and not self._goes_on_evaluating:
                self._end_observed()
            if session.eval_pending:
                evaluated = time.perf_counter()
                self._flush("eval")
                self._ledger.evaluations_s += time.perf_counter() - evaluated
            session.step += 1
            judged = time.perf_counter()
            usual = 0 if self._clock is None else self._clock.usual_forwards
            n_hooks = 1 + self._listening.root.n_calls(usual)  # the optimizer's, and the model's
            own_s = session.spent_s + judged - began
            self._ledger.tell(own_s, observed=observed, n_hooks=n_hooks)
            if not self._goes_on_evaluating:  # else what was chosen for training is still to come
                self._train_active = self._observe(session.step)
            if not self._listening.root_is_called:
                model, clock = self._listening.model, self._clock
                if self._is_new and model is not None and clock is not None:
                    self._look_anew(model, clock, training=True)
                self._listening.listen(on=True)
            session.spent_s = time.perf_counter() - judged
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault("", error)

    def _end_observed(self) -> None:
        """An observed step of training ends: hand over what was counted, tell what was not seen."""
        session, clock = self.session, self._clock
        if clock is not None and clock.repeats:
            self._unseen.repeated()
            return
        session.loss_scale = loss_scale()
        if clock is not None:
            clock.turns.observe(session.step)
            session.misses_turns = bool(clock.turns.missing)
        was_whole = not self._is_spoilt
        self._flush("train")
        if session.misses_turns and clock is not None:
            if missed := clock.turns.always_missed(session.step):
                optimizer, n_steps = missed
                self._unseen.missed_turns(clock.names_of(optimizer), n_steps)
        elif was_whole:
            self._unseen.after_step(self.observers.found, self.layers)

    def _see_nothing(self) -> None:
        if self._listening.is_on:
            self._unseen.blind()
        else:  # the root was called at first, and its parts are now
            self._listening.root_is_called = False
            self._listening.listen(on=True)

    def _observe(self, step: int) -> bool:
        """Ask the sampler whether what comes next is observed, and how closely."""
        session = self.session
        session.active = self._is_new = self._ledger.choose(step - self.first_step)
        session.detailed = self._train_detailed = self._sampler.detailed()
        return session.active

    def _flush(self, phase: str) -> None:
        # A step may end inside of inference mode, by the next forward. What listens to the user's
        # operations is not to hear ours.
        with torch.inference_mode(False), unheard():
            if phase == "train" and self._is_spoilt:
                self._is_spoilt = False
                self.observers.forget(phase)
                return
            counts = self.observers.flush(phase)
            if phase == "eval":
                self.session.eval_pending = False
                if not self._goes_on_evaluating:
                    self._evaluations.end()
            if counts:
                snapshot = take(
                    counts,
                    run=self._run,
                    rank=self._recorder.rank,
                    phase=phase,
                    step=self.session.step,
                    at=utc_now(),
                    spiking=self.observers.are_of_spikes,
                    note=self.session.note,
                )
                self._recorder.submit(snapshot)
