/**
 * Byte strings: names that must survive from wire to store without a charset.
 *
 * File names, link targets and attribute names are bytes; nothing says that they are UTF-8. A
 * `ByteString` is a JavaScript string that holds one byte per character (0 to 255, "latin1"), which V8
 * stores in one byte each, compares like memcmp and can use as a Map key. The brand keeps it apart from
 * text: only the functions here cross the border.
 */

declare const bytesBrand: unique symbol
/** One byte per character, 0 to 255. Not text: see `showBytes` for what a human may look at. */
export type ByteString = string & { readonly [bytesBrand]: true }

/** The bytes of `data` as a ByteString. */
export function byteString(data: Uint8Array, start = 0, end = data.length): ByteString {
  return asBuffer(data).toString('latin1', start, end) as ByteString
}

/** UTF-8 text as a ByteString. */
export function utf8Bytes(text: string): ByteString {
  return Buffer.from(text, 'utf8').toString('latin1') as ByteString
}

/** A literal that is plain ASCII in our own source, such as '/' or 'root'. */
export function ascii(text: string): ByteString {
  return text as ByteString
}

/** The bytes of a ByteString in a fresh buffer. */
export function toBuffer(bytes: ByteString): Buffer {
  return Buffer.from(bytes, 'latin1')
}

/** Joins parts with a separator, staying in bytes. */
export function joinBytes(parts: readonly ByteString[], separator: string): ByteString {
  return parts.join(separator) as ByteString
}

/** Splits at a one-character ASCII separator, staying in bytes. */
export function splitBytes(bytes: ByteString, separator: string): ByteString[] {
  return bytes.split(separator) as ByteString[]
}

/**
 * Compares as memcmp does: by unsigned bytes, a prefix first. (Strings of one byte per character compare
 * by UTF-16 unit, which is the same thing.)
 */
export function compareBytes(a: ByteString, b: ByteString): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/**
 * For log lines and messages: decoded as UTF-8 where it is that, with control characters, backslashes and
 * stray bytes as \n, \\ or \xNN, so that a hostile name can neither forge a log line nor drive a terminal.
 */
export function showBytes(bytes: ByteString, limit = 200): string {
  const cut = bytes.length > limit ? bytes.slice(0, limit) : bytes
  const buffer = Buffer.from(cut, 'latin1')
  let text: string = cut
  let unsafe = /[\x00-\x1f\x7f-\xff\\]/g
  try {
    text = strictUtf8.decode(buffer).replaceAll('\\', '\\\\')
    unsafe = DRIVES_TERMINALS
  } catch {
    // Not UTF-8: every byte that is not ASCII is shown by its number.
  }
  const shown = text.replace(unsafe, escapeCharacter)
  return cut.length < bytes.length ? `${shown}...` : shown
}

/**
 * The same for text that others wrote: a message of a parent server, or words of a request. What it says of names as
 * showBytes has them stays as it is, so a backslash may be anybody's.
 */
export function showText(text: string): string {
  return text.replace(DRIVES_TERMINALS, escapeCharacter)
}

/** For programs, and a terminal that shows it to a person: JSON in which such characters are escaped as JSON has it. */
export function showJson(value: unknown): string {
  // What is still as it is stands in a string, but for the ends of our own lines.
  return JSON.stringify(value, null, 2).replace(DRIVES_TERMINALS, (c) =>
    c === '\n' ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** Control characters, ends of lines, and what turns the direction in which text is read. */
const DRIVES_TERMINALS = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

function escapeCharacter(c: string): string {
  if (c === '\n') return '\\n'
  if (c === '\t') return '\\t'
  if (c === '\\') return '\\\\'
  const code = c.charCodeAt(0)
  return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`
}

/** The same memory as a Buffer, for its methods. */
export function asBuffer(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength)
}

/** A copy for another thread: with bytes goes all the memory that they lie in. */
export function alone(data: Uint8Array): Uint8Array {
  return new Uint8Array(data)
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
