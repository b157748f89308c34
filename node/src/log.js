import { port } from "./port.js";
const LEVELS = { trace: 5, debug: 10, info: 20, warn: 30, error: 40 };
/** Sends the core's own log lines of `level` and above to `logger`; before this call there are none. */
export function setLogger(logger, level = "info") {
    port.logFrom(LEVELS[level], (severity, target, message) => {
        const line = `${target}: ${message}`;
        if (severity >= LEVELS.error)
            logger.error(line);
        else if (severity >= LEVELS.warn)
            logger.warn(line);
        else if (severity >= LEVELS.info)
            logger.info(line);
        else
            logger.debug(line);
    });
}
