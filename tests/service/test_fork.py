"""A child that was forked in the worst moment: nothing that it may call waits for its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.architecture.tree import ROOT
from tests.service.system import WAIT_S

# The child makes each call in a thread; one that does not come back in time hangs for ever.
PROGRAM = """
import io, json, os, sys, threading, time, traceback
import ckptlog
from ckptlog import CheckpointError, CheckpointManager, FileSystemCheckpointStorage, LoggerFactory
from tests.holding import all_locks_held
from tests.service.system import serve

folder, limit_s = sys.argv[1], 20

class Part:
    get_state = lambda self: {"a": 1}
    set_state = lambda self, state: None

service = serve(f"{folder}/system", Part(), intervalSeconds=600).start()
capture = service.create_checkpoint()
service.recover_from_checkpoint(capture.id)
service.on("*", id)
config = ckptlog.CheckpointConfiguration(storage_dir=f"{folder}/store", max_storage_size_gb=1)
manager = CheckpointManager(config=config)
storage = FileSystemCheckpointStorage(manager=manager)
first = manager.create_checkpoint("t", "T", 1)
lease = manager.acquire_lease("kept").keep(lambda _: None)
bus = ckptlog.InProcessEventBus()
unsubscribe = bus.subscribe("*", id)
monitoring = ckptlog.CheckpointMonitoring()
monitoring.attach(manager)
performance = ckptlog.CheckpointPerformanceMonitor(manager)
performance.attach()
notary = manager.store.notary
notary.sign()
subscription, named = manager.store.watch(), manager.store.watch("consumer")
LoggerFactory.show(io.StringIO())

calls = {
    "get_metrics": service.get_metrics,
    "state": lambda: service.state,
    "current_operation": lambda: service.current_operation,
    "alerts": lambda: service.alerts,
    "on": lambda: service.on("*", id)(),
    "create_checkpoint": service.create_checkpoint,
    "list_checkpoints": service.list_checkpoints,
    "recover": service.recover_from_checkpoint,
    "start": service.start,
    "pause": service.pause,
    "stop": service.stop,
    "create": lambda: manager.create_checkpoint("t", "T", 2),
    "update": lambda: manager.update_checkpoint(first, data={"x": 1}),
    "get": lambda: manager.get_checkpoint(first),
    "list": lambda: manager.get_task_checkpoints("t"),
    "delete": lambda: manager.delete_checkpoint(first),
    "validate": manager.validate_checkpoint_integrity,
    "acquire": lambda: manager.acquire_lease("other").release(),
    "renew": lease.renew,
    "release": lease.release,
    "refresh": storage.refresh,
    "subscribe": lambda: bus.subscribe("*", id),
    "unsubscribe": unsubscribe,
    "publish": lambda: bus.publish("type", 1),
    "metric": lambda: monitoring.emit_checkpoint_metric("name", 1.0),
    "operation": lambda: monitoring.log_checkpoint_operation("name", {"duration_ms": 3}),
    "health": monitoring.check_system_health,
    "report": monitoring.generate_health_report,
    "prometheus": lambda: list(ckptlog.PrometheusCollector(manager, monitoring).collect()),
    "latency": lambda: performance.track_operation_latency("name", 1.0),
    "performance": performance.get_performance_report,
    "sample": performance.sample,
    "detach": monitoring.close,
    "next": lambda: next(subscription),
    "unwatch": subscription.close,
    "unwatch named": named.close,
    "watch": lambda: manager.store.watch("another").close(),
    "log": lambda: LoggerFactory.get_logger("a").warning("b"),
    "show": lambda: LoggerFactory.show(io.StringIO()),
    "sign": notary.sign,
    "close storage": storage.close,
    "close manager": manager.close,
    "close service": service.close,
}
reading, writing = os.pipe()
with all_locks_held() as names:
    pid = os.fork()
if pid:
    os.close(writing)
    with open(reading) as file:
        print(json.dumps({"names": names, **json.loads(file.read() or "{}")}))
    os.waitpid(pid, 0)
    alive = service.get_metrics().total_checkpoints
    service.close()
    os._exit(0)
hung, wrong = {}, {}
for name, call in calls.items():
    def run():
        try:
            call()
        except (CheckpointError, StopIteration):
            pass
        except BaseException:
            wrong[name] = traceback.format_exc()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        limit_s = 2
        frame = sys._current_frames()[thread.ident]
        hung[name] = traceback.format_stack(frame)[-4:]
os.write(writing, json.dumps({"hung": hung, "wrong": wrong}).encode())
os._exit(0)
"""


def test_a_child_that_is_forked_while_every_lock_is_held(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3 * WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["names"]) > 50, "the hunter sees few locks"
    assert (found["hung"], found["wrong"]) == ({}, {})
