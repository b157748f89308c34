import assert from "node:assert/strict";
import { test } from "node:test";

import * as arcp from "arcp";

test("every code has its class, with the flag the core gives it", () => {
  const codes = {
    PERMISSION_DENIED: arcp.PermissionDeniedError,
    LEASE_SUBSET_VIOLATION: arcp.LeaseSubsetViolationError,
    JOB_NOT_FOUND: arcp.JobNotFoundError,
    DUPLICATE_KEY: arcp.DuplicateKeyError,
    AGENT_NOT_AVAILABLE: arcp.AgentNotAvailableError,
    AGENT_VERSION_NOT_AVAILABLE: arcp.AgentVersionNotAvailableError,
    CANCELLED: arcp.CancelledError,
    TIMEOUT: arcp.TimeoutError,
    RESUME_WINDOW_EXPIRED: arcp.ResumeWindowExpiredError,
    HEARTBEAT_LOST: arcp.HeartbeatLostError,
    LEASE_EXPIRED: arcp.LeaseExpiredError,
    BUDGET_EXHAUSTED: arcp.BudgetExhaustedError,
    INVALID_REQUEST: arcp.InvalidRequestError,
    UNAUTHENTICATED: arcp.UnauthenticatedError,
    INTERNAL_ERROR: arcp.InternalError,
  };
  for (const [code, Class] of Object.entries(codes)) {
    const made = new Class("no", { details: { k: 1 } });
    const read = arcp.errorFromPayload(made.toPayload());
    assert.ok(read instanceof Class && read instanceof arcp.ARCPError && read instanceof Error);
    assert.equal(read.name, Class.name);
    assert.deepEqual(read.toPayload(), { code, message: "no", retryable: made.retryable, details: { k: 1 } });
  }
  assert.equal(new arcp.InternalError("x").retryable, true);
  assert.equal(new arcp.PermissionDeniedError("x").retryable, false);
});

test("a foreign code keeps its text, and what is no payload is refused", () => {
  const foreign = arcp.errorFromPayload({ code: "ACME_QUOTA", message: "later", retryable: true });
  assert.equal(foreign.constructor, arcp.ARCPError);
  assert.deepEqual(foreign.toPayload(), { code: "ACME_QUOTA", message: "later", retryable: true });
  assert.throws(() => arcp.errorFromPayload("nonsense"), arcp.ARCPError);
});

test("the pure functions", () => {
  assert.deepEqual(arcp.parseAgentRef("echo@1.0"), { name: "echo", version: "1.0" });
  assert.deepEqual(arcp.parseAgentRef("echo"), { name: "echo", version: undefined });
  assert.throws(() => arcp.parseAgentRef("@"), arcp.InvalidRequestError);
  assert.deepEqual(arcp.parseBudgetAmount("USD:5.25"), { currency: "USD", amount: "5.25" });
  arcp.validateLeaseOp({ "fs.read": ["/a/**"] }, "fs.read", "/a/b");
  assert.throws(() => arcp.validateLeaseOp({ "fs.read": ["/a/**"] }, "fs.read", "/b"), arcp.PermissionDeniedError);
  assert.equal(arcp.isLeaseSubset({ "fs.read": ["/a/b"] }, { "fs.read": ["/a/**"] }), true);
  assert.equal(arcp.isLeaseSubset({ "fs.read": ["/**"] }, { "fs.read": ["/a/**"] }), false);
  assert.throws(
    () => arcp.assertLeaseSubset({ "fs.read": ["/**"] }, { "fs.read": ["/a/**"] }),
    arcp.LeaseSubsetViolationError,
  );
  assert.deepEqual(arcp.intersectFeatures(["b", "a", "c"], ["a", "b"]), ["b", "a"]);
  assert.equal(arcp.PROTOCOL_VERSION, "1.1");
});

test("an envelope is read and printed", () => {
  const text =
    '{"arcp":"1.1","id":"m1","type":"session.ack","session_id":"s1","payload":{"last_processed_seq":9007199254740993}}';
  const envelope = arcp.Envelope.parse(text, "runtime");
  assert.equal(envelope.type, "session.ack");
  assert.equal(envelope.sessionId, "s1");
  assert.equal(envelope.payload["last_processed_seq"], 9007199254740993n);
  assert.match(envelope.toString(), /9007199254740993/);
  assert.throws(() => arcp.Envelope.parse("[]"), arcp.InvalidRequestError);
});
