"""`proconsul dev`: federates datacenters on this machine, proves it, and stays up to be tried."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from proconsul.app.worlds import netns
from proconsul.app.worlds.loopback import LoopbackNetwork
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.network import Network
from proconsul.app.worlds.programs import Programs
from proconsul.app.worlds.proof import Step, steps
from proconsul.app.worlds.spec import Host, Software, WorldError, world_spec
from proconsul.app.worlds.world import World
from proconsul.config.goflags import (
    Flag,
    FlagError,
    Parsed,
    bool_flag,
    int_flag,
    parse,
    string_flag,
)
from proconsul.interfaces.cli.command import Command

STEP_TIMEOUT_S = 60.0
_HELP = """
Usage: proconsul dev [options]

  Builds federated datacenters on this machine, whose servers reach each other
  through Envoy mesh gateways alone, proves that, and stays up until Ctrl-C.

  As root each host gets a network namespace and each datacenter a NAT router,
  and the kernel enforces and counts the isolation. Otherwise the hosts are
  loopback addresses.

      $ proconsul dev -datacenters 3 -servers 3"""


def flags() -> list[Flag]:
    """The command's flags."""
    return [
        int_flag("datacenters", "How many: 1 to 5.", 2),
        int_flag("servers", "Servers in each datacenter: 1 or 3.", 1),
        int_flag("gateways", "Mesh gateways in each datacenter: 1 to 9.", 1),
        bool_flag("once", "End after the proof, with status 0 if everything was proved."),
        bool_flag("netns", "Insist on network namespaces, and fail where they are refused."),
        bool_flag("loopback", "Use loopback addresses even if namespaces are possible."),
        bool_flag("keep", "Leave configuration, certificates, data and logs behind."),
        string_flag("dir", "Directory for them; a temporary one by default."),
        string_flag("envoy-binary", "The envoy binary to run. Default: the one on $PATH."),
        string_flag("consul-binary", "Run this real Consul 1.8 as the agents, to compare."),
        string_flag("log-level", "Of the agents.", "DEBUG"),
    ]


def run(argv: Sequence[str]) -> int:
    """The command; its exit status."""
    command = Command(_HELP, lambda _: 0, flags())
    if any(a in {"-h", "-help", "--help"} for a in argv):
        sys.stdout.write(command.help() + "\n")
        return 0
    try:
        parsed = parse(flags(), argv)
        if parsed.args:
            raise FlagError(f"unexpected arguments: {' '.join(parsed.args)}")
        return _Demo(parsed).run()
    except FlagError as error:
        sys.stderr.write(f"{error}\n\n{command.help()}\n")
    except WorldError as error:
        sys.stderr.write(f"==> {error}\n")
    return 1


def choose_network(parsed: Parsed) -> tuple[Network, str]:
    """Namespaces where possible. Also why not, if not. Raises WorldError."""
    if parsed["netns"] and parsed["loopback"]:
        raise WorldError("-netns and -loopback exclude each other")
    if parsed["loopback"]:
        return LoopbackNetwork(), "asked for by -loopback"
    reason = netns.why_not()
    if not reason:
        return NetnsNetwork(), ""
    if parsed["netns"]:
        raise WorldError(f"no network namespaces: {reason}")
    return LoopbackNetwork(), f"no network namespaces: {reason}"


class _Demo:
    """One run: says what it does while it does it."""

    def __init__(self, parsed: Parsed) -> None:
        self._flags = parsed
        self._began = time.monotonic()
        self._step_began = self._began

    def run(self) -> int:
        network, reason = choose_network(self._flags)
        consul = str(self._flags["consul-binary"])
        spec = world_spec(
            self._flags["datacenters"],
            self._flags["servers"],
            self._flags["gateways"],
            Software.CONSUL if consul else Software.PROCONSUL,
            log_level=str(self._flags["log-level"]),
        )
        directory = Path(str(self._flags["dir"])).resolve() if self._flags["dir"] else None
        programs = Programs(consul=consul, envoy=str(self._flags["envoy-binary"]))
        with _signals_end_it():
            try:
                world = World(spec, network, programs, directory, keep=bool(self._flags["keep"]))
            except OSError as error:
                raise WorldError(
                    f"{error}: name a directory to write to by -dir or TMPDIR"
                ) from error
            try:
                return self._with(world, reason)
            except KeyboardInterrupt:
                return 130 if self._flags["once"] else 0
            finally:
                self._end(world)

    def _with(self, world: World, reason: str) -> int:
        self._say(f"network: {world.network.kind}{f' ({reason})' if reason else ''}")
        self._say(f"files and logs: {world.directory}")
        self._say(_layout(world))
        try:
            world.build()
            self._done("hosts, routers, certificates and gossip key are there")
            for host in world.hosts:
                world.start_agent(host)
            self._done(f"{len(world.hosts)} agents started")
            for host in world.gateways():
                world.start_envoy(host)
            self._done(f"{len(world.gateways())} Envoys started")
            for step in steps(world):
                self._prove(step)
        except (WorldError, OSError) as error:
            self._fail(world, error)
            return 1
        self._say(f"\nProved, after {time.monotonic() - self._began:.1f} s.")
        if self._flags["once"]:
            return 0
        self._say(_invitation(world))
        self._stay(world)
        return 0

    def _prove(self, step: Step) -> None:
        seen = step.run(STEP_TIMEOUT_S)
        self._done(step.title)
        self._say(textwrap.indent(seen, " " * 14))

    def _stay(self, world: World) -> None:
        gone: set[str] = set()
        while True:
            time.sleep(0.5)
            for process in world.processes():
                if not process.running and process.name not in gone:
                    gone.add(process.name)
                    self._say(f"{process.name} has ended; its log: {process.log}")

    def _fail(self, world: World, error: Exception) -> None:
        self._say(f"\nNOT PROVED, after {time.monotonic() - self._began:.1f} s: {error}")
        with contextlib.suppress(OSError, WorldError, AttributeError):
            self._say("\n" + "\n".join(world.network.evidence().lines))
        for process in world.processes():
            state = "" if process.running else " (has ended)"
            self._say(f"\n--- {process.name}{state}, the end of {process.log}")
            self._say(textwrap.indent(process.tail(), "    "))
        for server in world.servers():
            self._say(f"\n--- federation status at {server.name}")
            self._say(textwrap.indent(_federation_status(world, server), "    "))

    def _end(self, world: World) -> None:
        # A second Ctrl-C must not leave half a world behind
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(KeyboardInterrupt):
            self._say("ending the world ...")
        world.stop()
        where = f"; files are kept in {world.directory}" if world.keeps_files else ""
        self._say(f"ended: no process, no namespace is left{where}")

    def _done(self, title: str) -> None:
        now = time.monotonic()
        self._say(f"{now - self._began:7.2f} s +{now - self._step_began:.2f}  {title}")
        self._step_began = now

    @staticmethod
    def _say(text: str) -> None:
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except OSError:
            # Nobody reads any more (`| head`), or the disk is full: as if it had been interrupted
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            raise KeyboardInterrupt from None


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """SIGTERM and SIGHUP end the world as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        # Also SIGINT: a shell starts background jobs with it ignored
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _layout(world: World) -> str:
    lines = []
    for datacenter in world.spec.datacenters:
        primary = " (primary)" if datacenter is world.spec.primary else ""
        hosts = [h for h in world.hosts if h.datacenter is datacenter]
        lines.append(f"{datacenter.name}{primary}")
        lines += [
            f"    {h.name:<10} {h.role.value:<8} {h.lan:<12} WAN {h.wan}"
            f"{' (leads nowhere)' if h.is_server else ':8443'}"
            for h in hosts
        ]
    return "\n".join(lines)


def _invitation(world: World) -> str:
    command = Path(sys.argv[0]).name if not sys.argv[0].endswith("main.py") else "proconsul"
    if Path(".venv/bin/proconsul").exists():
        command = ".venv/bin/proconsul"
    first, last = world.servers()[0], world.servers()[-1]
    here, there = first.datacenter.name, last.datacenter.name
    at = f"-http-addr {world.url(last).removeprefix('http://')}"
    lines = ["\nThe agents, on this machine:"]
    lines += [
        f"    {world.url(h)}  {h.name} ({h.role.value} of {h.datacenter.name})" for h in world.hosts
    ]
    lines += [
        "Try:",
        f"    {command} members -wan {at}",
        f"    {command} federation status {at}",
        f"    {command} kv put -datacenter {here} {at} greeting hello",
        f"    curl '{world.url(last)}/v1/kv/greeting?dc={here}&raw'",
        f"    curl '{world.url(first)}/v1/catalog/services?dc={there}&pretty'",
        f"    curl '{world.url(last)}/v1/internal/federation-states?pretty'",
    ]
    if world.gateways():
        envoy = world.envoy(world.gateways()[-1])
        lines.append(f"    kill -9 {envoy.pid}    # the gateway of {there}; what is seen then?")
    lines += [f"    tail -f {world.directory}/*/*.log", "Ctrl-C ends it."]
    return "\n".join(lines)


def _federation_status(world: World, server: Host) -> str:
    address = world.url(server).removeprefix("http://")
    argv = [*world.programs.proconsul(), "federation", "status", "-http-addr", address]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{shlex.join(argv)}: {error}"
    return (done.stdout + done.stderr).strip()
