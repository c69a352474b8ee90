/**
 * The program's log on stderr: one JSON object a line, or readable text when a person looks on. systemd's journal gets
 * entries with fields, UPSERV_SESSION and so on; where that can't be, lines of text with their priority in front, so
 * that `journalctl -p warning` finds what is wrong.
 */
import { fstatSync } from 'node:fs'
import { type Logger, pino } from 'pino'
import { ConfigError } from '../errors.ts'
import { fieldName, Journal, type JournalEntry } from './journal.ts'

export type { Logger }

/** Syslog's priorities for pino's levels, as sd-daemon(3) has them in front of a line. */
const PRIORITIES: Record<string, number> = { trace: 7, debug: 7, info: 6, warn: 4, error: 3, fatal: 2 }

/** In front of the names of our own fields. */
const PREFIX = 'UPSERV_'
const IDENTIFIER: readonly [string, string] = ['SYSLOG_IDENTIFIER', 'upserv']

let journal: Journal | undefined

/** For who is about to end: what was logged is in the journal when this returns. */
export async function closeLog(): Promise<void> {
  await journal?.close()
}

/**
 * @param usually the level where `LOG_LEVEL` names none.
 * @throws ConfigError for a `LOG_LEVEL` that is none of pino's.
 */
export function createLogger({
  fields = false,
  usually = 'info',
}: {
  fields?: boolean
  usually?: string
} = {}): Logger {
  const level = levelOf(process.env.LOG_LEVEL, usually)
  const write = (format: (json: string) => string) => ({
    write: (line: string) => void process.stderr.write(format(line)),
  })
  const destination = process.stderr.isTTY
    ? write(readable)
    : goesToJournal(process.env.JOURNAL_STREAM)
      ? toJournal(fields ? Journal.open() : undefined)
      : pino.destination({ fd: 2, sync: true })
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination)
}

/** In whatever case it is written: INFO is how others have it. */
function levelOf(named: string | undefined, usually: string): string {
  const level = named?.trim().toLowerCase() || usually
  const levels = [...Object.keys(pino.levels.values), 'silent']
  if (levels.includes(level)) return level
  throw new ConfigError(`LOG_LEVEL: there is no level ${JSON.stringify(named)}`, {
    hint: `It is one of ${levels.join(', ')}.`,
  })
}

function toJournal(opened: Journal | undefined): { write(line: string): void } {
  journal = opened
  return {
    write: (line) => {
      const asText = (): void => void process.stderr.write(forJournal(line))
      if (opened) opened.write(entryOf(line), asText)
      else asText()
    },
  }
}

/** An entry from pino's line. */
export function entryOf(json: string): JournalEntry {
  const { name, text, facts } = partsOf(json)
  const fields = facts.flatMap(([key, value]): (readonly [string, string])[] => {
    const field = fieldName(PREFIX, key)
    return field === undefined ? [] : [[field, value]]
  })
  return { priority: PRIORITIES[name] ?? 6, message: text, fields: [IDENTIFIER, ...fields] }
}

/** systemd names the stream that it reads by device and inode: what was redirected since then is another one. */
function goesToJournal(stream: string | undefined): boolean {
  if (stream === undefined) return false
  const { dev, ino } = fstatSync(2)
  return stream === `${dev}:${ino}`
}

/** "<4>message key=value" from pino's line: the journal has the time. */
export function forJournal(json: string): string {
  const { name, text } = partsOf(json)
  return `<${PRIORITIES[name] ?? 6}>${text}\n`
}

/** "12:01:33 info  message key=value" from pino's line. */
export function readable(json: string): string {
  const { name, time, text } = partsOf(json)
  return `${time.slice(11, 19)} ${name.padEnd(5)} ${text}\n`
}

function partsOf(json: string): {
  name: string
  time: string
  text: string
  facts: (readonly [key: string, value: string])[]
} {
  const { level, time, msg, ...rest } = JSON.parse(json) as { level: number; time: string; msg: string }
  const name = pino.levels.labels[level] ?? String(level)
  const facts = Object.entries(rest).map(
    ([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)] as const,
  )
  const shown = facts.map(([key, value]) => `${key}=${value}`)
  // A value from outside must neither begin a line of its own nor drive the terminal.
  const text = [msg, ...shown].join(' ').replaceAll(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, '?')
  return { name, time, text, facts }
}
