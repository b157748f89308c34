import { attempt, toJson } from "./errors.js";
import { native, type NativeRegistry } from "./native.js";
import { port } from "./port.js";

/** How a registry's client behaves. */
export interface RegistryOptions {
  /** Milliseconds to wait for an answer; 30 000. */
  timeoutMs?: number;
  /** Tries after the first, where doing it twice does no harm; 3. */
  retryAttempts?: number;
  /** Milliseconds before the second try, at most; 1000. Doubles with each try. */
  retryDelayMs?: number;
  /** Milliseconds between tries, at most; 60 000. */
  maxRetryDelayMs?: number;
  userAgent?: string;
  /** By default that of the environment variable ARCP_TOKEN. */
  token?: string;
  /** By default that of ARCP_AGENT_KEY. */
  agentKey?: string;
  /** With adminPassword; by default those of ARCP_ADMIN_USERNAME and ARCP_ADMIN_PASSWORD. */
  adminUsername?: string;
  adminPassword?: string;
  /** Owner of agents registered without one; that of ARCP_OWNER, or `unknown`. */
  owner?: string;
  /** A file of certificates (PEM) that are trusted besides the system's. */
  caFile?: string;
}

/** An agent to register. Members keep the wire's names; those that may be left out get a sensible value. */
export interface AgentRegistration {
  agent_id: string;
  name: string;
  agent_type: string;
  endpoint: string;
  capabilities: readonly string[];
  context_brief: string;
  version?: string;
  owner?: string;
  public_key?: string;
  communication_mode?: "remote" | "local" | "hybrid";
  metadata?: Record<string, unknown>;
  features?: readonly string[];
  max_tokens?: number;
  language_support?: readonly string[];
  rate_limit?: number;
  requirements?: Record<string, unknown>;
  policy_tags?: readonly string[];
}

/** An agent as a registry tells it. Members keep the wire's names. */
export interface AgentInfo extends Required<Omit<AgentRegistration, "max_tokens" | "rate_limit" | "requirements">> {
  status: "alive" | "dead";
  last_seen: string;
  registered_at: string;
  metrics?: Record<string, unknown> | null;
  [member: string]: unknown;
}

/** Which agents to discover. */
export interface DiscoverOptions {
  agentType?: string;
  /** Agents that can do all of these. */
  capabilities?: readonly string[];
  /** The most on one page, up to 100; 50. */
  limit?: number;
  /** Without the first ones; 0. */
  offset?: number;
  signal?: AbortSignal;
}

/** A client of an agent registry. Failures are `RegistryError`s. */
export class RegistryClient {
  readonly #native: NativeRegistry;

  /**
   * Sends nothing yet.
   *
   * @throws ArgumentError naming the option that is wrong.
   */
  constructor(baseUrl: string, options: RegistryOptions = {}) {
    const seconds = (milliseconds: number | undefined) => (milliseconds === undefined ? undefined : milliseconds / 1000);
    const settings = {
      base_url: baseUrl,
      timeout: seconds(options.timeoutMs),
      retry_attempts: options.retryAttempts,
      retry_delay: seconds(options.retryDelayMs),
      max_retry_delay: seconds(options.maxRetryDelayMs),
      user_agent: options.userAgent,
      token: options.token,
      agent_key: options.agentKey,
      admin_username: options.adminUsername,
      admin_password: options.adminPassword,
      owner: options.owner,
      ca_file: options.caFile,
    };
    this.#native = attempt(() => new native.NativeRegistry(toJson(settings, "options")));
  }

  /** How the registry is. */
  async health(options: { signal?: AbortSignal } = {}): Promise<Record<string, unknown>> {
    return this.call("health_check", {}, options);
  }

  /** Registers an agent, with its own key, or with what the client may log in with. */
  async register(
    agent: AgentRegistration,
    { agentKey, signal }: { agentKey?: string; signal?: AbortSignal } = {},
  ): Promise<AgentInfo> {
    return this.call("register_agent", { ...agent, agent_key: agentKey }, signal ? { signal } : {});
  }

  /** Agents that are alive. */
  async discover({ agentType, signal, ...rest }: DiscoverOptions = {}): Promise<AgentInfo[]> {
    return this.call("discover_agents", { agent_type: agentType, ...rest }, signal ? { signal } : {});
  }

  /**
   * Any operation of the registry by its name, with its arguments by theirs: `search_agents` (`query`, ...), `get_agent`,
   * `update_heartbeat`, `unregister_agent`, `login_admin`, ... The names are those of the Python client's methods.
   */
  async call<Answer>(
    operation: string,
    args: Record<string, unknown> = {},
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Answer> {
    const text = toJson(args, "arguments");
    const start = (call: number) => this.#native.call(port.native, call, operation, text);
    return (await port.call<Answer>(start, { signal })).value;
  }

  /** Closes idle connections; the next call opens new ones. */
  close(): void {
    this.#native.close();
  }
}
