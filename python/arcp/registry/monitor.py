"""How a registry is doing, for its operators (REG-002, REG-051 to REG-054)."""

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from arcp._check import expect_seconds

__all__ = ["MetricsSnapshot", "get_system_health", "monitor_system"]

CPU_MOST = 90.0
"""Percent; more is a warning."""
MEMORY_MOST = 95.0
"""Percent; more is critical."""


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """A registry at one moment."""

    timestamp: datetime
    """When."""
    prometheus_metrics: str
    """Its figures, as Prometheus reads them."""
    agent_stats: dict[str, Any]
    """What `get_system_stats` gives."""
    resource_utilization: dict[str, float]
    """What `get_resource_utilization` gives."""

    def get_metric_value(self, name: str) -> float | None:
        r"""The number at the end of the first line that begins with `name`; `None` when there is none.

        >>> MetricsSnapshot(datetime.now(), "arcp_requests_total 7\n", {}, {}).get_metric_value("arcp_requests_total")
        7.0
        """
        for line in self.prometheus_metrics.splitlines():
            if line.startswith(name):
                try:
                    return float(line.rpartition(" ")[2])
                except ValueError:
                    return None
        return None


def snapshot(text: str) -> MetricsSnapshot:
    """What the core gives, read."""
    read = json.loads(text)
    return MetricsSnapshot(
        datetime.fromisoformat(read["timestamp"]),
        read["prometheus_metrics"],
        read["agent_stats"],
        read["resource_utilization"],
    )


MonitorCallback = Callable[[MetricsSnapshot], object]
Take = Callable[[], Awaitable[MetricsSnapshot]]


async def watch(take: Take, interval: float, callback: MonitorCallback | None, duration: float | None) -> None:
    """Hands out snapshots; see `RegistryClient.monitor_system`."""
    if not expect_seconds("interval", interval):
        raise ValueError(f"interval must be more than 0 seconds, got {interval}")
    expect_seconds("duration", duration)
    ends = None if duration is None else time.monotonic() + duration
    while True:
        try:
            taken = await take()
            if callback is None:
                print(_line(taken), flush=True)
            elif inspect.isawaitable(done := callback(taken)):
                await done
        except Exception as error:
            print(f"Monitoring failed: {error}", flush=True)
        pause = interval if ends is None else min(interval, ends - time.monotonic())
        if pause <= 0:
            return
        await asyncio.sleep(pause)
        if ends is not None and time.monotonic() >= ends:
            return


def _line(taken: MetricsSnapshot) -> str:
    load = ", ".join(f"{name} {value:.1f} %" for name, value in taken.resource_utilization.items())
    alive, total = _agents(taken.agent_stats)
    return f"{taken.timestamp:%H:%M:%S} agents {alive} of {total} alive, {load}"


def _agents(stats: dict[str, Any]) -> tuple[int, int]:
    """How many agents are alive, and how many there are."""
    counts: dict[str, Any] = stats.get("registry_statistics") or stats
    return int(counts.get("alive_agents") or 0), int(counts.get("total_agents") or 0)


async def judged(take: Take) -> dict[str, Any]:
    """What `RegistryClient.admin_health_check` says."""
    try:
        taken = await take()
    except Exception as error:
        return {"status": "error", "timestamp": datetime.now(UTC).isoformat(), "error": str(error), "checks": {}}
    load = taken.resource_utilization
    cpu, memory = load.get("cpu", 0.0), load.get("memory", 0.0)
    alive, total = _agents(taken.agent_stats)
    checks: dict[str, dict[str, Any]] = {
        "cpu_usage": {"status": "warning" if cpu > CPU_MOST else "healthy", "value": cpu, "threshold": CPU_MOST},
        "memory_usage": {
            "status": "critical" if memory > MEMORY_MOST else "healthy",
            "value": memory,
            "threshold": MEMORY_MOST,
        },
        "agent_availability": {
            "status": "warning" if alive < total or total == 0 else "healthy",
            "alive_agents": alive,
            "total_agents": total,
        },
    }
    found = {check["status"] for check in checks.values()}
    status = next((grave for grave in ("critical", "warning") if grave in found), "healthy")
    return {"status": status, "timestamp": taken.timestamp.isoformat(), "checks": checks}


async def exported(format: str, text: Callable[[], Awaitable[str]], take: Take) -> str:
    """What `RegistryClient.export_metrics` gives."""
    if format == "prometheus":
        return await text()
    if format != "json":
        raise ValueError(f"Unsupported format: {format}. Use 'prometheus' or 'json'")
    taken = await take()
    shown = {
        "timestamp": taken.timestamp.isoformat(),
        "agent_stats": taken.agent_stats,
        "resource_utilization": taken.resource_utilization,
        "metrics_size": len(taken.prometheus_metrics),
    }
    return json.dumps(shown, indent=2)


async def get_system_health(base_url: str, username: str, password: str) -> dict[str, Any]:
    """Logs in and gives what `RegistryClient.admin_health_check` says."""
    from arcp.registry.client import RegistryClient

    async with RegistryClient(base_url) as client:
        await client.login_admin(username, password)
        return await client.admin_health_check()


async def monitor_system(
    base_url: str, username: str, password: str, interval: float = 30, duration: float | None = None
) -> None:
    """Logs in and prints a line every `interval` seconds; see `RegistryClient.monitor_system`."""
    from arcp.registry.client import RegistryClient

    async with RegistryClient(base_url) as client:
        await client.login_admin(username, password)
        await client.monitor_system(interval, duration=duration)
