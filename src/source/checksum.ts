/**
 * Checksum files as they are found beside archives: what they say, and where to look for one.
 *
 * Formats: `<hex>  name` and `<hex> *name` (md5sum, sha256sum), `SHA256 (name) = <hex>` (BSD), bare hex.
 * Other lines (comments, a signature's frame) are passed over. The number of digits says which algorithm
 * it is. OLPC's build machines left a local name in the line, so the name decides only where there is
 * more than one digest to choose from.
 */
import { SourceError, UpstreamUnreachable } from '../errors.ts'
import type { Checksum, ChecksumAlgorithm, SourceEvent } from './source.ts'
import { fileNameOf, showUrl, withSuffix } from './url.ts'

export interface Digest {
  algorithm: ChecksumAlgorithm
  hex: string
}

/** Weakest first: of several digests for one file the last of these is taken. */
const ALGORITHMS: readonly ChecksumAlgorithm[] = ['md5', 'sha256', 'sha512']
const BY_DIGITS = new Map<number, ChecksumAlgorithm>([
  [32, 'md5'],
  [64, 'sha256'],
  [128, 'sha512'],
])
const GNU_LINE = /^([0-9a-f]+)(?: [ *]?| *\t)(.+)$/i
const BSD_LINE = /^([a-z0-9-]+) ?\((.+)\) ?= ?([0-9a-f]+)$/i
const BARE_LINE = /^([0-9a-f]+)$/i

/** What is tried when no checksum is configured, in this order. */
export const DEFAULT_SUFFIXES = ['.sha256', '.sha512', '.md5']

/** The digest that a checksum file gives for an archive of this name; undefined when it gives none. */
export function parseChecksum(text: string, fileName: string): Digest | undefined {
  const lines = text
    .replace(/^\ufeff/, '')
    .split(/\r\n|\n|\r/)
    .map((line) => parseLine(line.trim()))
    .filter((line) => line !== undefined)
  const named = lines.filter((line) => line.name !== undefined && baseName(line.name) === fileName)
  const choice = named.length > 0 ? strongest(named) : onlyDigest(lines)
  return choice && { algorithm: choice.algorithm, hex: choice.hex }
}

interface Line extends Digest {
  name: string | undefined
}

function parseLine(line: string): Line | undefined {
  const bsd = BSD_LINE.exec(line)
  if (bsd) {
    const digest = toDigest(bsd[3]!)
    const tag = bsd[1]!.toLowerCase().replace('-', '')
    return digest?.algorithm === tag ? { ...digest, name: bsd[2]! } : undefined
  }
  const [, hex, name] = BARE_LINE.exec(line) ?? GNU_LINE.exec(line) ?? []
  const digest = hex === undefined ? undefined : toDigest(hex)
  return digest && { ...digest, name }
}

function toDigest(hex: string): Digest | undefined {
  const algorithm = BY_DIGITS.get(hex.length)
  return algorithm && { algorithm, hex: hex.toLowerCase() }
}

/**
 * The best of several digests for one name. Two that differ in the same algorithm say nothing: a
 * concatenation of old and new, say.
 */
function strongest(lines: readonly Line[]): Line | undefined {
  const rank = Math.max(...lines.map((line) => ALGORITHMS.indexOf(line.algorithm)))
  return onlyDigest(lines.filter((line) => line.algorithm === ALGORITHMS[rank]))
}

function onlyDigest(lines: readonly Line[]): Line | undefined {
  return new Set(lines.map((line) => line.hex)).size === 1 ? lines[0] : undefined
}

function baseName(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

/** Reads a small file upstream: undefined when there is none, SourceError when it cannot be had. */
export type ReadBeside = (url: URL) => Promise<Uint8Array | undefined>

/** A checksum, and the file that it was read from. */
export interface FoundChecksum {
  checksum: Checksum
  at: URL
  file: Uint8Array
}

/**
 * Finds the checksum of an archive. One that is configured must be there and must hold a digest, unless it
 * is said not to be required. Without configuration the usual names are tried: many servers answer for names
 * that they do not have, with a page for people or a refusal, so what is no checksum there is passed over,
 * with an event. An upstream that fails is never taken for one that has no checksum.
 */
export async function findChecksum(
  archive: URL,
  configured: URL | undefined,
  read: ReadBeside,
  onEvent: (event: SourceEvent) => void,
  required = configured !== undefined,
): Promise<FoundChecksum | undefined> {
  const fileName = fileNameOf(archive)
  if (configured) {
    const bytes = await read(configured)
    if (!bytes && !required) return undefined
    if (!bytes) {
      throw new SourceError(`the checksum file ${showUrl(configured)} does not exist`, {
        hint: "Remove or correct the source's checksum key. Upstream may also be half published: try later.",
      })
    }
    const digest = parseChecksum(decode(bytes), fileName)
    if (!digest) {
      throw new SourceError(`${showUrl(configured)} holds no checksum for ${fileName}`, {
        hint: 'Read are the formats of md5sum, sha256sum, sha512sum and their --tag forms.',
      })
    }
    return { checksum: { ...digest, url: showUrl(configured) }, at: configured, file: bytes }
  }
  for (const suffix of DEFAULT_SUFFIXES) {
    const url = withSuffix(archive, suffix)
    let reason = 'what answers there holds no checksum'
    try {
      const bytes = await read(url)
      if (!bytes) continue
      const digest = parseChecksum(decode(bytes), fileName)
      if (digest) return { checksum: { ...digest, url: showUrl(url) }, at: url, file: bytes }
    } catch (error) {
      if (!(error instanceof SourceError) || error instanceof UpstreamUnreachable) throw error
      reason = error.message
    }
    onEvent({ type: 'checksum-ignored', url: showUrl(url), reason })
  }
  if (!required) return undefined
  throw new SourceError(`no checksum was published for ${showUrl(archive)}`, {
    hint: `Looked for: ${DEFAULT_SUFFIXES.join(', ')} behind its name. Its source wants one.`,
  })
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes)
}
