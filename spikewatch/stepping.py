"""Stepping: which steps and forward passes are observed, and what an observed one hands over.

The root's hooks tell that a forward pass begins, and whether it trains; the clock tells that a step
has ended; the sampler says whether the next one is observed. Then the observers' hooks are put on,
and when the step ends their counters go to the recorder.
"""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .callers import loss_scale
from .evaluations import Evaluations
from .layers import Layer, called_parts
from .ledger import Ledger
from .observing import Counts, Observer, load_hook, load_tap
from .recorder import Recorder, utc_now
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
        self._run = run
        self._observers = list(observers)
        self._taps: dict[str, Any] = {}
        self._recorder = recorder
        self._sampler = sampler
        self._ledger = Ledger(sampler, recorder)
        self._after_step = after_step
        self._optimizers = optimizers
        self._unseen = Unseen(model, self.session)
        self._evaluations = Evaluations(sampler)
        self._train_active = self._train_detailed = False  # as it is again after an evaluation
        self._goes_on_evaluating = False  # a step ends within inference
        self._model = weakref.ref(model)
        self._root: Any = None  # the hook of the model itself
        self._before_hook: Any = None  # its handle
        self._after_hook: Any = None
        self._part_hooks: list[
            Any
        ] = []  # of what a model is made of, while it is not called itself
        self.always_on = False
        """Whether a compiler came by: it would compile anew for a hook that comes or goes."""
        self._listening = (False, False)  # whether the observers' hooks are on; all of them
        self._root_is_called = False  # then the root's hooks see every forward pass
        self._in_step = False  # the latest of them trains, and all was done that it asks for
        self._replicas = threading.Lock()
        self._n_replicas = 0  # of DataParallel, that run now
        self._clock: StepClock | None = None

    @property
    def observers(self) -> list[Observer]:
        """Those that collectors found, and those of tapped tensors."""
        return [*self._observers, *self._taps.values()]

    @property
    def layers(self) -> list[Layer]:
        """What they watch, in the model's order; layers found within another one after it."""
        watched = [x for x in self.observers if x.layer.kind != "synapse"]
        return [y for x in watched for y in (x.layer, *getattr(x, "inner_layers", ()))]

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
        root = self._root = load_hook().of_root(self._before_root, self)
        self._clock = StepClock(
            model, self._end_step, self._see_nothing, root, others=self._optimizers
        )
        self._optimizers = ()
        session.on_touch = self._clock.see_forward
        session.on_sample = self._evaluations.begins_sample
        session.on_optimizes = self._clock.optimizes
        self._before_hook = root.put_on(model)
        touch = load_hook()(lambda *_: session.touch(), self)
        self._part_hooks = [m.register_forward_pre_hook(touch) for m in called_parts(model)]
        for observer in self._observers:
            session.place(observer.layer)
            if observer.layer.kind not in ("candidate", "synapse"):
                session.confirm(observer.layer)
        self._train_active = self._observe(self.first_step)
        self._listen(True)

    def stop(self) -> None:
        """Take every hook off the model, and hand over what was counted so far."""
        self._hand_over()
        self._root.let_go()
        for handle in (self._before_hook, self._after_hook, *self._part_hooks):
            if handle is not None:
                handle.remove()
        for observer in self._observers:
            observer.stop()
        self._listening = (False, False)
        self.stop_clock()

    def end_without_model(self) -> None:
        """The model is gone, and its hooks with it: hand over what was counted."""
        try:
            self._hand_over()
        except Exception as error:  # noqa: BLE001 - contract 1; the garbage collector calls this
            self.session.fault("", error)
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
        if self._clock is None:
            return
        tapped = self._taps.get(name)
        if tapped is None:
            tapped = self._taps[name] = load_tap()(name)
            tapped.start(self.session)
            self.session.confirm(tapped.layer)
        with unheard():  # as in a hook
            tapped.observe_tensor(tensor)

    # ---------------------------------------------------------------- forward passes

    def _before_root(self, module: nn.Module, *_: Any) -> None:
        clock, session = self._clock, self.session
        if clock is None:
            return
        if self._goes_on(clock, module):
            session.root_phase = "train"
            session.n_forwards += 1
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
        self._sees_root()
        self._in_step = training
        if training:
            # What an evaluation counted is flushed when the step ends: one row for each step.
            session.active, session.detailed = self._train_active, self._train_detailed
            self._count_evaluations()
        else:
            session.active = self._evaluations.observe(usual=clock.usual_forwards)
            session.detailed = self._evaluations.detailed
        self._listen(session.active)
        clock.see_forward()

    def _sees_root(self) -> None:
        """The model itself is called: no need to listen to its parts."""
        self._root_is_called = True
        for handle in self._part_hooks:
            handle.remove()
        self._part_hooks = []

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
        if "_is_replica" in vars(module):
            with self._replicas:
                self._n_replicas -= 1
                if self._n_replicas:
                    return
        self.session.root_phase = None

    # ---------------------------------------------------------------- steps

    def _end_step(self) -> None:
        session = self.session
        session.root_phase = None  # where no hook told of the forward pass's end
        self._in_step = False
        if not session.eval_pending and self._ledger.idles():
            session.step += 1
        else:
            self._account()
        self._arm()
        self._after_step()

    def _arm(self) -> None:
        """Have a step that is not observed go by, with its forward passes only counted."""
        session, clock = self.session, self._clock
        idle = self._root_is_called and not (self._listening[0] or session.eval_pending)
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
                session.loss_scale = loss_scale()
                self._flush("train")
                self._unseen.after_step(self._observers, self.layers)
            if session.eval_pending:
                evaluated = time.perf_counter()
                self._flush("eval")
                self._ledger.evaluations_s += time.perf_counter() - evaluated
            session.step += 1
            judged = time.perf_counter()
            usual = 0 if self._clock is None else self._clock.usual_forwards
            n_hooks = 1 + self._root.n_calls(usual)  # the optimizer's, and the model's
            own_s = session.spent_s + judged - began
            self._ledger.tell(own_s, observed=observed, n_hooks=n_hooks)
            if not self._goes_on_evaluating:  # else what was chosen for training is still to come
                self._train_active = self._observe(session.step)
            if not self._root_is_called:
                self._listen(True)
            session.spent_s = time.perf_counter() - judged
        except Exception as error:  # noqa: BLE001 - contract 1
            session.fault("", error)

    def _see_nothing(self) -> None:
        if self._listening[0]:
            self._unseen.blind()
        else:  # the root was called at first, and its parts are now
            self._root_is_called = False
            self._listen(True)

    def _observe(self, step: int) -> bool:
        """Ask the sampler whether what comes next is observed, and how closely."""
        session = self.session
        session.active = self._ledger.choose(step - self.first_step)
        session.detailed = self._train_detailed = self._sampler.detailed()
        return session.active

    def _listen(self, on: bool) -> None:
        """Put the observers' hooks on, or take them off: a hook that returns at once costs, too.

        They are off between observed steps only where the root's own hooks tell of each forward
        pass. Where parts of a model are called by themselves, they stay on.
        """
        wanted = (on, on and self.session.detailed)
        if wanted == self._listening:
            return
        self._listening = wanted
        self._listen_to_root(on)
        for observer in self._observers:
            # Where a compiler came by, hooks that come and go would have it compile once more.
            if not getattr(observer, "always_on", False):
                observer.stop()
            if on:
                observer.start(self.session)

    def _listen_to_root(self, on: bool) -> None:
        """Have the end of each forward pass told, or not: it matters in observed ones only."""
        if on and self._after_hook is None and (model := self._model()) is not None:
            hook = load_hook()(self._after_root, self)
            self._after_hook = model.register_forward_hook(hook, always_call=True)
        elif not on and self._after_hook is not None and not self.always_on:
            self._after_hook.remove()
            self._after_hook = None

    def _flush(self, phase: str) -> None:
        # A step may end inside of inference mode, by the next forward. What listens to the user's
        # operations is not to hear ours.
        with torch.inference_mode(False), unheard():
            counts: list[tuple[str, Counts]] = []
            for observer in self.observers:
                counted = observer.flush(phase)
                if counted is not None:
                    name = observer.layer.name
                    counts.append((name, counted))
                    counts += [(name + suffix, site) for suffix, site in counted.sites.items()]
            if phase == "eval":
                self.session.eval_pending = False
                if not self._goes_on_evaluating:
                    self._evaluations.end()
            if counts:
                spiking = any(x.layer.kind in ("spiking", "tap") for x in self._observers)
                keys = {"run": self._run, "rank": self._recorder.rank, "spiking": spiking}
                step, at = self.session.step, utc_now()
                self._recorder.submit(take(counts, **keys, phase=phase, step=step, at=at))
