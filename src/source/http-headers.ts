/**
 * The response headers that resuming a download depends on (RFC 9110). Pure codecs.
 *
 * Parts of a file may be put together only if both are known to be of the same version. What tells that
 * is a validator: a strong ETag, or a Last-Modified that is old enough to be sure of. A weak ETag (`W/`)
 * promises the same meaning, not the same bytes, and never serves.
 */
import type { IncomingHttpHeaders } from 'node:http'

type Headers = Readonly<IncomingHttpHeaders | Record<string, string | string[] | undefined>>

/** Which version of its file the upstream is sending. */
export interface FileVersion {
  /** As it was sent, strong or weak; undefined when there is none or it is malformed. */
  etag: string | undefined
  /** Only where it is strong in the sense of RFC 9110, section 8.8.2.2. */
  lastModified: string | undefined
  /** Bytes of the whole file. */
  size: number | undefined
}

export interface ContentRange {
  start: number
  /** The last byte, inclusive. */
  end: number
  /** Bytes of the whole file; undefined for `*`. */
  total: number | undefined
}

/** `bytes 5-9/10`; undefined when it is anything else. */
export function parseContentRange(value: string | undefined): ContentRange | undefined {
  const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(value?.trim() ?? '')
  if (!match) return undefined
  const start = Number(match[1])
  const end = Number(match[2])
  const total = match[3] === '*' ? undefined : Number(match[3])
  if (end < start || (total !== undefined && end >= total) || !Number.isSafeInteger(total ?? end))
    return undefined
  return { start, end, total }
}

/** Seconds or a date, as milliseconds from `now`; undefined when it is neither. */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  const text = value?.trim() ?? ''
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  // Only dates that start with a day's name are HTTP dates; Date.parse alone would take "-1" for a year.
  const date = /^[a-z]{3,9},? /i.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

/** The version that a whole answer (200) carries. */
export function versionOf(headers: Headers): FileVersion {
  return {
    etag: parseEtag(header(headers, 'etag')),
    lastModified: strongDate(header(headers, 'last-modified'), header(headers, 'date')),
    size: contentLength(headers),
  }
}

export function contentLength(headers: Headers): number | undefined {
  const value = header(headers, 'content-length')
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

/** What to send as If-Range; undefined when no part can be trusted to fit another. */
export function strongValidator(version: Pick<FileVersion, 'etag' | 'lastModified'>): string | undefined {
  return isStrong(version.etag) ? version.etag : version.lastModified
}

/** Whether two whole answers are of one version, byte for byte. Without validators nobody can tell: no. */
export function isSameVersion(a: FileVersion, b: FileVersion): boolean {
  if (a.size !== b.size) return false
  if (isStrong(a.etag) && isStrong(b.etag)) return a.etag === b.etag
  return a.lastModified !== undefined && a.lastModified === b.lastModified
}

/** One value of a header: the first, where a server repeats it. */
export function header(headers: Headers, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

function parseEtag(value: string | undefined): string | undefined {
  return value !== undefined && /^(?:W\/)?"[\x21\x23-\x7e]*"$/.test(value) ? value : undefined
}

function isStrong(etag: string | undefined): etag is string {
  return etag?.startsWith('"') === true
}

/** A file written within the second in which it was served may change again within that second. */
function strongDate(lastModified: string | undefined, date: string | undefined): string | undefined {
  if (lastModified === undefined || date === undefined) return undefined
  return Date.parse(date) - Date.parse(lastModified) >= 1000 ? lastModified : undefined
}
