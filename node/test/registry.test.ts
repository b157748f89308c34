import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { ARCPError, ArgumentError, RegistryClient, RegistryError } from "arcp";

type Answer = (request: IncomingMessage, body: string, response: ServerResponse) => void;

/** A registry that answers as a test says, for as long as `use` runs. */
async function registry(answer: Answer, use: (url: string) => Promise<void>): Promise<void> {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () => answer(request, body, response.setHeader("content-type", "application/json")));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const AGENT = {
  agent_id: "my-agent",
  name: "My agent",
  agent_type: "testing",
  endpoint: "http://127.0.0.1:9",
  capabilities: ["echo"],
  context_brief: "Says what it hears",
};

test("an agent registers with its key and is discovered", async () => {
  const asked: string[] = [];
  const answers: Record<string, unknown> = {
    "/auth/agent/request_temp_token": { temp_token: "TT" },
    "/agents/register": { access_token: "AT" },
    "/agents/my-agent?include_metrics=true": { ...AGENT, status: "alive" },
    "/public/discover?limit=5&offset=0&agent_type=testing&capabilities=echo": [AGENT],
    "/health": { status: "healthy" },
  };
  const answer: Answer = (request, _body, response) => {
    asked.push(`${request.url} ${request.headers.authorization ?? "-"}`);
    response.end(JSON.stringify(answers[request.url ?? ""]));
  };
  await registry(answer, async (url) => {
    const client = new RegistryClient(url);
    assert.deepEqual(await client.health(), { status: "healthy" });
    assert.equal((await client.register(AGENT, { agentKey: "key" })).status, "alive");
    const found = await client.discover({ agentType: "testing", capabilities: ["echo"], limit: 5 });
    assert.deepEqual(found, [AGENT]);
    client.close();
  });
  assert.deepEqual(asked.slice(1, 4), [
    "/auth/agent/request_temp_token -",
    "/agents/register Bearer TT",
    "/agents/my-agent?include_metrics=true Bearer AT",
  ]);
});

test("a refusal is a RegistryError that says what and why", async () => {
  const problem = { type: "https://arcp.0x001.tech/docs/problems/agent-not-found", title: "x", detail: "no such agent" };
  const refuse: Answer = (_request, _body, response) => response.writeHead(404).end(JSON.stringify(problem));
  await registry(refuse, async (url) => {
    const failed = new RegistryClient(url).call("get_public_agent", { agent_id: "nobody" });
    await assert.rejects(failed, (error) => {
      assert.ok(error instanceof RegistryError && error instanceof ARCPError);
      assert.deepEqual([error.code, error.status, error.kind, error.retryable], ["agent-not-found", 404, "not_found", false]);
      assert.match(error.message, /^Failed to get public agent nobody: .*no such agent/);
      return true;
    });
  });
});

test("what is wrong on this side is told before anything is sent", async () => {
  assert.throws(() => new RegistryClient("http://127.0.0.1:9", { timeoutMs: 0 }), ArgumentError);
  const client = new RegistryClient("http://127.0.0.1:9", { retryAttempts: 0 });
  const bad = client.register({ ...AGENT, name: "x" });
  await assert.rejects(bad, /Invalid registration data: name/);
  await assert.rejects(client.health(), (error) => error instanceof RegistryError && error.kind === "connection");
});

test("an abort gives a call up", async () => {
  const silent: Answer = () => undefined;
  await registry(silent, async (url) => {
    const signal = AbortSignal.timeout(50);
    await assert.rejects(new RegistryClient(url).health({ signal }), { name: "TimeoutError" });
  });
});
