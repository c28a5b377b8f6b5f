"""What can happen at a point: a process dies, raises, is cut off or paused, its clock steps."""

import os
import signal
import socket

from rollout import faults


class Injected(Exception):  # noqa: N818 - it is put there, nothing is wrong
    """What a point raises: no code of ours expects it."""


class Arm:
    """An action for the k-th point that is passed (from 0 on): once, or from there on always."""

    def __init__(self, hit, act, *, always=False):
        self.hit, self.act, self.always = hit, act, always
        self.passed = []
        self.fired = ""

    def __call__(self, name):
        number = len(self.passed)
        self.passed.append(name)
        if number == self.hit or (self.always and number > self.hit):
            self.fired = self.fired or name
            self.act(self)


def kill(_arm):
    """End the process as the operating system would: nothing is written, nothing said."""
    os.kill(os.getpid(), signal.SIGKILL)


def raises(arm):
    """Raise what nobody expects."""
    raise Injected(arm.fired)


def cut(replica):
    """Return an action that cuts the connections that a replica has in use."""

    def act(_arm):
        for raw in list(replica.held):
            if hasattr(raw, "fileno"):  # PostgreSQL: the network is gone, the server may not know
                with socket.socket(fileno=os.dup(raw.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)
            else:
                raw.close()

    return act


def pause(meanwhile):
    """Return an action that lets `meanwhile` happen elsewhere before this replica goes on."""

    def act(arm):
        with faults.install_action(arm.elsewhere.append):
            meanwhile()

    return act


def step(clock, by):
    """Return an action that sets a replica's wall clock on or back; time since boot goes on."""

    def act(_arm):
        clock.at += by

    return act
