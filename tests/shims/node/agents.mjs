// The corpus agents (see ../README.md).

import { ARCPError, PermissionDeniedError } from "../../../node/dist/index.js";

function cancelled(signal, milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}

export const AGENTS = {
  async echo(input, ctx) {
    await ctx.log("info", "echo started");
    return { echoed: input };
  },

  async events(_input, ctx) {
    await ctx.status("working", "step one");
    await ctx.log("info", "hello");
    await ctx.thought("thinking");
    await ctx.toolCall({ tool: "clock", args: {}, call_id: "c1" });
    await ctx.toolResult({ call_id: "c1", result: "19:30" });
    await ctx.metric({ name: "files.read", value: 2.5, unit: "files" });
    await ctx.progress(1, { total: 2, units: "steps" });
    await ctx.artifactRef({ uri: "file:///report.txt", content_type: "text/plain", byte_size: 12 });
    await ctx.emitEvent("x-vendor.example.note", { text: "a note" });
    return { count: 9 };
  },

  async sleeper(_input, ctx) {
    await ctx.status("running");
    if (!(await cancelled(ctx.signal, 30_000))) return { slept: true };
    await ctx.log("info", "cleaned up");
    throw ctx.signal.reason;
  },

  fails() {
    throw new Error("boom");
  },

  refuses() {
    throw new PermissionDeniedError("policy says no", { details: { why: "policy" } });
  },

  async authorizes(input, ctx) {
    try {
      ctx.authorize("fs.read", input.path);
      return { allowed: true };
    } catch (error) {
      if (!(error instanceof ARCPError)) throw error;
      const { code, message, retryable } = error;
      await ctx.toolResult({ call_id: "c1", error: { code, message, retryable } });
      return { allowed: false };
    }
  },

  async slow(input, ctx) {
    for (let i = 1; i <= input.n; i++) await ctx.progress(i, { total: input.n });
    return { sent: input.n };
  },

  async streams(_input, ctx) {
    const writer = ctx.streamResult();
    await writer.write("[1,2");
    writer.flush();
    await writer.write(",3]");
    await writer.close({ summary: "three numbers" });
  },

  async delegates(input, ctx) {
    const child = await ctx.delegate({ agent: "echo", input, delegateId: "d1" });
    return { child: await child.result() };
  },
};
