import { port } from "./port.js";

/** What a logger offers; `console`, pino and winston all do. */
export interface Logger {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error";

const LEVELS: Record<LogLevel, number> = { trace: 5, debug: 10, info: 20, warn: 30, error: 40 };

/** Sends the core's own log lines of `level` and above to `logger`; before this call there are none. */
export function setLogger(logger: Logger, level: LogLevel = "info"): void {
  port.logFrom(LEVELS[level], (severity, target, message) => {
    const line = `${target}: ${message}`;
    if (severity >= LEVELS.error) logger.error(line);
    else if (severity >= LEVELS.warn) logger.warn(line);
    else if (severity >= LEVELS.info) logger.info(line);
    else logger.debug(line);
  });
}
