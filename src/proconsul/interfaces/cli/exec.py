"""`exec`: runs a command on many nodes (`command/exec`); agents do it by `services.agent.remote_exec`."""

from __future__ import annotations

import base64
import json
import queue
import sys
import threading
import time
from typing import Any

from proconsul.config.goflags import Flag, Parsed, bool_flag, string_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    err,
    out,
)
from proconsul.interfaces.cli.event import FILTER_FLAGS, check_filters
from proconsul.util.goduration import format_duration, parse_duration

PREFIX = "_rexec"
TTL = "15s"
RENEW_S = 5.0
_NS = 1_000_000_000
_FAILED = 2

News = tuple[str, str, bytes]
"""(kind, node, content); kinds are ack, heartbeat, output, exit, error and failed."""


class _Job:
    """One command under way."""

    def __init__(self, client: Client, parsed: Parsed, spec: dict[str, Any]) -> None:
        self._client, self._parsed, self._spec = client, parsed, spec
        self._news: queue.Queue[News] = queue.Queue()
        self._over = threading.Event()
        self._session = ""

    def say(self, text: str) -> None:
        """What only -verbose shows."""
        if self._parsed["verbose"]:
            out(text)

    def run(self, filters: dict[str, str], foreign: dict[str, Any] | None) -> int:
        """The exit status."""
        try:
            self._session = self._create_session(foreign)
        except CommandError as error:
            raise CommandError(f"Failed to create session: {error}") from None
        threading.Thread(target=self._renew, daemon=True).start()
        try:
            self.say(f"Created remote execution session: {self._session}")
            self._upload()
            self.say("Uploaded remote execution spec")
            time.sleep(self._parsed["wait-repl"])
            self.say(f"Fired remote execution event: {self._fire(filters)}")
            return self._await()
        finally:
            self._over.set()
            self._clean()

    def _create_session(self, foreign: dict[str, Any] | None) -> str:
        body: dict[str, Any] = {"Name": "Remote Exec", "Behavior": "delete", "TTL": TTL}
        if foreign is not None:
            rows = self._client.get("/v1/health/service/consul", {"passing": "1"})
            if not rows:
                raise CommandError("Failed to find Consul server in remote datacenter")
            node, here = rows[0]["Node"]["Node"], foreign["Config"]
            self.say(f"Binding session to remote node {node}@{self._parsed['datacenter']}")
            name = f"Remote Exec via {here['NodeName']}@{here['Datacenter']}"
            body |= {"Name": name, "Node": node, "Checks": [], "NodeChecks": []}
        return str(json.loads(self._client.put_json("/v1/session/create", body))["ID"])

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                self._client.put(f"/v1/session/renew/{self._session}")
            except CommandError as error:
                err(f"Session renew failed: {error}")
                return

    @property
    def _directory(self) -> str:
        return f"{self._parsed['prefix'].rstrip('/')}/{self._session}"

    def _upload(self) -> None:
        key = f"{self._directory}/job"
        try:
            answer = self._client.put(
                f"/v1/kv/{key}", json.dumps(self._spec).encode(), {"acquire": self._session}
            )
        except CommandError as error:
            raise CommandError(f"Failed to create job file: {error}") from None
        if b"true" not in answer:
            raise CommandError(f"Failed to create job file: failed to acquire key {key}")

    def _fire(self, filters: dict[str, str]) -> str:
        payload = {"Prefix": self._parsed["prefix"], "Session": self._session}
        try:
            fired = self._client.put("/v1/event/fire/_rexec", json.dumps(payload).encode(), filters)
        except CommandError as error:
            raise CommandError(f"Failed to fire event: {error}") from None
        return str(json.loads(fired)["ID"])

    def _clean(self) -> None:
        """The session first: nobody can write results any more when the keys are deleted."""
        try:
            self._client.put(f"/v1/session/destroy/{self._session}")
            self._client.delete(f"/v1/kv/{self._directory}", {"recurse": ""})
        except CommandError:
            return  # its TTL ends the session, and that deletes the keys

    # -- results -----------------------------------------------------------------------------

    def _await(self) -> int:
        began = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()
        acks = exits = bad = 0
        while True:
            wait_s = self._parsed["wait"] * (2 if acks > exits else 1)
            try:
                kind, node, content = self._news.get(timeout=wait_s)
            except queue.Empty:
                break
            match kind:
                case "ack":
                    acks += 1
                    if self._parsed["verbose"]:
                        out(_targeted(node, "acknowledged", arrow=True))
                case "heartbeat":
                    if self._parsed["verbose"]:
                        out(_targeted(node, "heartbeat received", arrow=True))
                case "output":
                    out(_targeted(node, content.decode("utf-8", "replace"), arrow=False))
                case "exit":
                    exits += 1
                    code = content.decode("ascii", "replace")
                    out(_targeted(node, f"finished with exit code {code}", arrow=True))
                    bad += code != "0"
                case "error":
                    err(content.decode("utf-8", "replace"))
                case _:
                    raise CommandError(f"Failed to read results: {content.decode()}")
        out(f"{exits} / {acks} node(s) completed / acknowledged")
        self.say(f"Completed in {time.monotonic() - began:.2f} seconds")
        return _FAILED if bad or exits < acks else 0

    def _read(self) -> None:
        """On a thread: tells of each key below our directory as it appears."""
        index, seen, directory = 0, set[str](), self._directory + "/"
        wait = format_duration(self._parsed["wait"])
        while not self._over.is_set():
            query = {"keys": "", "wait": wait, **({"index": str(index)} if index else {})}
            try:
                keys, index = self._client.get_indexed(f"/v1/kv/{directory}", query)
                for key in keys or ():
                    if key not in seen:
                        seen.add(key)
                        self._look(key, key.removeprefix(directory))
            except CommandError as error:
                self._news.put(("failed", "", str(error).encode()))
                return

    def _look(self, key: str, name: str) -> None:
        if name == "job":
            return
        if name.endswith("/ack"):
            self._news.put(("ack", name.removesuffix("/ack"), b""))
            return
        node, divider, _ = name.rpartition("/out/")
        if not divider and not name.endswith("/exit"):
            self._news.put(("error", "", f"Unknown key '{name}', ignoring.".encode()))
            return
        rows = self._client.get_or_none(f"/v1/kv/{key}")
        if not rows:
            self._news.put(("error", "", f"Failed to read key '{key}': <nil>".encode()))
            return
        value = base64.b64decode(rows[0]["Value"] or "")
        if not divider:
            self._news.put(("exit", name.removesuffix("/exit"), value))
        else:
            self._news.put(("output" if value else "heartbeat", node, value))


def _targeted(node: str, text: str, *, arrow: bool) -> str:
    lead = "==>" if arrow else "   "
    return "\n".join(f"{lead} {node}: {line}" for line in text.split("\n")).rstrip()


def _run(parsed: Parsed) -> int:
    command, args = " ".join(parsed.args), list(parsed.args)
    spec: dict[str, Any] = {}
    if command == "-":
        if not parsed["shell"]:
            raise CommandError("Cannot configure -shell=false when reading from stdin")
        if script := sys.stdin.buffer.read():
            spec["Script"] = base64.b64encode(script).decode()
    elif not parsed["shell"]:
        if args:
            spec["Args"] = args
    elif command:
        spec["Command"] = command
    if not spec:
        err(f"Must specify a command to execute\n\n{EXEC.help()}")
        return 1
    spec["Wait"] = int(parsed["wait"] * _NS)
    filters = check_filters(parsed)
    client = connect(parsed)
    try:
        about = client.get("/v1/agent/self")
    except CommandError as error:
        raise CommandError(f"Error querying Consul agent: {error}") from None
    job = _Job(client, parsed, spec)
    foreign = parsed["datacenter"] not in ("", about["Config"]["Datacenter"])
    if foreign:
        job.say("Remote exec in foreign datacenter, using Session TTL")
    return job.run(filters, about if foreign else None)


EXEC = Command(
    usage="""
Usage: proconsul exec [options] [-|command...]

  Runs a command on all nodes that match, and prints what they say. With - a script
  is read from standard input. Agents take part where disable_remote_exec is false.
  It ends with 2 if the command failed anywhere.""",
    run=_run,
    flags=(
        *FILTER_FLAGS,
        string_flag("prefix", "Prefix of the keys that carry job and results.", PREFIX),
        bool_flag("shell", "Run the command by a shell.", True),
        Flag(
            "wait",
            "How long nothing may come before it is over.",
            parse_duration,
            2.0,
            value_name="duration",
        ),
        Flag(
            "wait-repl",
            "How long the job may take to reach all servers, before agents are told.",
            parse_duration,
            0.2,
            value_name="duration",
        ),
        bool_flag("verbose", "Say what is done."),
        *CLIENT_FLAGS,
        *SERVER_FLAGS,
    ),
)
