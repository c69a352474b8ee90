/**
 * Times as upstreams write them beside names: ISO 8601, those of HTTP, and those in the directory indexes of
 * web servers. Where no zone is written it is taken to be UTC, in which nginx writes them. Pure.
 */

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const CLOCK = '(?<hour>\\d\\d):(?<minute>\\d\\d)(?::(?<second>\\d\\d)(?:\\.\\d{1,9})?)?'
const FORMS = [
  // ISO 8601; with a blank in place of the T, Apache; with the name of the month, lighttpd.
  new RegExp(
    `(?<!\\d)(?<year>\\d{4})-(?<month>\\d\\d|[A-Z][a-z]{2})-(?<day>\\d\\d)(?!\\d)(?:[T ]${CLOCK} ?(?<zone>Z|[+-]\\d\\d:?\\d\\d)?)?`,
  ),
  // nginx: 02-Nov-2007 12:00. HTTP: Fri, 02 Nov 2007 12:00:00 GMT.
  new RegExp(`(?<!\\d)(?<day>\\d\\d?)[- ](?<month>[A-Z][a-z]{2})[- ](?<year>\\d{4}) ${CLOCK}`),
]
const FIRST_YEAR = 1970
/** What is said to be later is a mistake. */
const LAST_YEAR = 2199

/** The first time in a text; undefined when there is none, or none that a calendar has. */
export function timeIn(text: string): Date | undefined {
  for (const form of FORMS) {
    const found = form.exec(text)?.groups
    if (found) return timeOf(found)
  }
  return undefined
}

/** Seconds or milliseconds since 1970, whichever makes sense; undefined when neither does. */
export function timeOfNumber(value: number): Date | undefined {
  const time = new Date(value < 1e11 ? value * 1000 : value)
  return isPlausible(time) && value > 0 ? time : undefined
}

function timeOf({ year, month, day, hour, minute, second, zone }: Record<string, string | undefined>) {
  const monthNumber = /^\d/.test(month!) ? Number(month) - 1 : MONTHS.indexOf(month!.toLowerCase())
  const parts = [year, monthNumber, day, hour ?? 0, minute ?? 0, second ?? 0].map(Number)
  const time = new Date(Date.UTC(...(parts as [number, number, number, number, number, number])))
  // What rolls over into another month, day or hour is no time: 31 April, 25 o'clock.
  const read = [
    time.getUTCFullYear(),
    time.getUTCMonth(),
    time.getUTCDate(),
    time.getUTCHours(),
    time.getUTCMinutes(),
  ]
  if (!isPlausible(time) || read.some((value, i) => value !== parts[i])) return undefined
  const [, sign, hours, minutes] = /^([+-])(\d\d):?(\d\d)$/.exec(zone ?? '') ?? []
  const offset = (Number(hours ?? 0) * 60 + Number(minutes ?? 0)) * (sign === '-' ? -1 : 1)
  return new Date(time.getTime() - offset * 60_000)
}

function isPlausible(time: Date): boolean {
  const year = time.getUTCFullYear()
  return year >= FIRST_YEAR && year <= LAST_YEAR
}
