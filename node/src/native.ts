// The addon's surface, as `bindings/node` offers it. Nothing here is public.

import { createRequire } from "node:module";

/** `bindings/node/src/port.rs` */
export interface NativePort {
  drain(max: number): { text: string; wide: boolean; objects: unknown[]; more: boolean };
  cancelCall(call: number): void;
  close(): void;
  logFrom(level: number): void;
}

export interface NativeTransport {
  close(): void;
  isUsed(): boolean;
}

export interface NativeListener {
  close(): void;
}

export interface NativeJob {
  /** JSON of a list, the empty text after the last event; `null` when there is nothing yet. */
  nextBatch(port: NativePort, stream: number, max: number): { text: string; wide: boolean } | null;
  takeChunks(): void;
  finishChunks(port: NativePort, call: number): void;
  resultBytes(port: NativePort, call: number): void;
  stopReading(): void;
  result(port: NativePort, call: number): void;
}

export interface NativeClient {
  connect(
    port: NativePort,
    call: number,
    transport: NativeTransport,
    token: string | NativePort,
    resume?: string,
  ): void;
  welcome(): string | null;
  job(jobId: string): NativeJob;
  jobs(): string[];
  listJobs(port: NativePort, call: number, request: string): void;
  negotiatedFeatures(): string[];
  latestEventSeq(): number;
  submit(port: NativePort, call: number, request: string): void;
  subscribe(port: NativePort, call: number, request: string): void;
  unsubscribe(jobId: string): void;
  cancelJob(jobId: string, reason: string): void;
  ack(lastProcessedSeq: number): void;
  close(port: NativePort, call: number, reason: string): void;
}

export interface NativeRegistry {
  call(port: NativePort, call: number, operation: string, args: string): void;
  close(): void;
}

export interface NativeRuntime {
  registerAgent(port: NativePort, name: string, version: string | undefined, restartable: boolean): void;
  setDefaultAgentVersion(name: string, version: string): void;
  agentInventory(): string;
  accept(port: NativePort, call: number, transport: NativeTransport): void;
  serve(port: NativePort, call: number, listener: NativeListener): void;
  shutdown(port: NativePort, call: number, reason: string, graceMs: number): void;
}

export interface NativeInvocation {
  budget(): string | null;
  emit(kind: string, body: string): boolean;
  drained(port: NativePort, call: number): void;
  authorize(namespace: string, target: string): void;
  openResult(resultId?: string, chunkBytes?: number): string;
  writeResult(data: Uint8Array, utf8: boolean): { taken: number; mustWait: boolean };
  flushResult(): void;
  finishResult(summary?: string): void;
  delegate(port: NativePort, call: number, request: string): void;
  childResult(port: NativePort, call: number, jobId: string): void;
  cancelChild(jobId: string, reason: string): void;
  complete(result: string): void;
  fail(error: string): void;
  cancelled(): void;
}

export interface NativeVerifyRequest {
  accept(principal: string): void;
  refuse(error: string): void;
}

export interface NativeTokenRequest {
  give(token: string): void;
  refuse(error: string): void;
}

interface Native {
  NativePort: new (wake: () => void) => NativePort;
  NativeClient: new (options: string) => NativeClient;
  NativeRegistry: new (options: string) => NativeRegistry;
  NativeRuntime: new (port: NativePort, options: string, tokens?: [string, string][] | string) => NativeRuntime;
  attach(): void;
  callFunction(name: string, args: string): string;
  connectWebsocket(port: NativePort, call: number, url: string, options: string): void;
  implVersion(): string;
  listen(port: NativePort, call: number, options: string): void;
  memoryPair(): [NativeTransport, NativeTransport];
  protocolVersion(): string;
}

export const native = createRequire(import.meta.url)("../arcp.node") as Native;

native.attach();
