/** Bodies of the protocol's kinds. Members keep the wire's names. */
export interface EventBodies {
  log: { level: string; message: string; attributes?: Record<string, unknown> };
  thought: { text: string };
  tool_call: { tool: string; args?: Record<string, unknown>; call_id: string };
  tool_result: { call_id: string; result?: unknown; error?: ToolError };
  status: { phase: string; message?: string };
  metric: { name: string; value: number; unit?: string; dimensions?: Record<string, unknown> };
  artifact_ref: { uri: string; content_type: string; byte_size?: number; sha256?: string };
  delegate: { delegate_id: string; agent: string; [member: string]: unknown };
  progress: { current: number; total?: number; units?: string; message?: string };
  result_chunk: { result_id: string; chunk_seq: number; data: string; encoding: "utf8" | "base64"; more: boolean };
}

/** Why a tool failed. */
export interface ToolError {
  code: string;
  message: string;
  retryable: boolean;
  details?: Record<string, unknown>;
}

/** A kind of the protocol. */
export type EventKind = keyof EventBodies;

interface Event<Kind, Body> {
  /** Its number in the session, from 1 on. */
  event_seq: number;
  kind: Kind;
  /** When the agent made it, RFC 3339. */
  ts: string;
  body: Body;
}

/** What an agent told; `x-vendor.*` and kinds of newer peers have any body. */
export type JobEvent =
  | { [Kind in EventKind]: Event<Kind, EventBodies[Kind]> }[EventKind]
  | Event<`x-vendor.${string}`, unknown>;
