/** The program's log: one JSON object a line on stderr, or readable text when a person looks on. */
import { type Logger, pino } from 'pino'

export type { Logger }

/** Text for a terminal, JSON for everything else. `LOG_LEVEL` is pino's own: debug, info, warn, error. */
export function createLogger(): Logger {
  const level = process.env.LOG_LEVEL ?? 'info'
  const destination = process.stderr.isTTY
    ? { write: (line: string) => void process.stderr.write(readable(line)) }
    : pino.destination({ fd: 2, sync: true })
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination)
}

/** "12:01:33 info  message key=value" from pino's line. */
function readable(json: string): string {
  const { level, time, msg, ...rest } = JSON.parse(json) as { level: number; time: string; msg: string }
  const name = pino.levels.labels[level] ?? String(level)
  const facts = Object.entries(rest).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  // A value from outside must neither begin a line of its own nor drive the terminal.
  const line = [time.slice(11, 19), name.padEnd(5), msg, ...facts].join(' ')
  return `${line.replaceAll(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, '?')}\n`
}
