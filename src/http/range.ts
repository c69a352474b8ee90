/** Ranges of bytes as a request asks for them, RFC 9110, section 14. */

export interface ByteRange {
  from: number
  /** Behind the last byte. */
  end: number
}

/**
 * The one range that is asked for. Undefined: the whole, also where several are asked for or what is asked
 * makes no sense, as the standard allows. 'none': there are no such bytes.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | 'none' | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '')
  if (!match || (match[1] === '' && match[2] === '')) return undefined
  if (match[1] === '') {
    const last = Math.min(Number(match[2]), size)
    return last === 0 ? 'none' : { from: size - last, end: size }
  }
  const from = Number(match[1])
  const end = match[2] === '' ? size : Math.min(size, Number(match[2]) + 1)
  if (match[2] !== '' && Number(match[2]) < from) return undefined
  return from >= size ? 'none' : { from, end }
}
