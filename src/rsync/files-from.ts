/**
 * --files-from: the names to send come from the client's socket or from a file of the build.
 * docs/rsync-protocol.md, section 2.8.
 */
import { PeerError, RefusedError } from '../errors.ts'
import type { ByteReader, Decoded } from '../lib/byte-reader.ts'
import { ascii, type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import { isRegularMode } from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import type { Connection } from './connection.ts'
import { cleanBase, findListed, type SourcePath } from './paths.ts'
import type { Tree } from './tree.ts'
import type { TransferOptions } from './wire/arguments.ts'

/** The longest name, and the longest directory that names are relative to, as Linux has it. */
const MAX_NAME = 4096
/** All names together: some million, and no more memory than a long file list takes. */
const MAX_BYTES = 64 * 1024 * 1024
/** A name of one byte takes up as much memory as one of thirty: this bounds those. */
const MAX_NAMES = 2_000_000
/** Of a list in the build so much is cut into names at a time: about a millisecond's work. */
const PIECE = 64 * 1024
const NUL = 0

/** All names are read before the list is begun: a client that writes them also reads what we send. */
export async function readListedNames(
  connection: Connection,
  tree: Tree,
  module: ByteString,
  options: TransferOptions,
  protocol: number,
): Promise<AsyncIterable<SourcePath>> {
  const base = withoutModule(options.paths[0] ?? ascii(''), module)
  // Each name is put behind it.
  if (base.length > MAX_NAME)
    throw new PeerError('files-from', `a directory's name of more than ${MAX_NAME} bytes`)
  const names =
    options.filesFrom === '-'
      ? await namesFromSocket(connection, protocol)
      : await namesFromBuild(tree, withoutModule(options.filesFrom ?? ascii(''), module), options.from0)
  return sourcesOf(tree, cleanBase(base), names, options.relative)
}

/** One source at a time: a million names stay names until their turn comes. */
async function* sourcesOf(
  tree: Tree,
  base: ByteString,
  names: readonly ByteString[],
  relative: boolean,
): AsyncGenerator<SourcePath> {
  for (const name of names) yield await findListed(tree, base, name, relative)
}

async function namesFromSocket(connection: Connection, protocol: number): Promise<ByteString[]> {
  // At protocol 30 the names travel outside the frames.
  return protocol === 30 ? connection.outsideFrames(readNames) : readNames(connection.in)
}

async function readNames(input: ByteReader): Promise<ByteString[]> {
  const names: ByteString[] = []
  let bytes = 0
  for (;;) {
    // All that are there at a time: waiting for each by itself takes longer than reading it.
    const { found, ended } = await input.decode(decodeNames)
    for (const name of found) {
      bytes += name.length + 1
      if (bytes > MAX_BYTES) throw new PeerError('files-from', `more than ${MAX_BYTES} bytes of names`)
      if (names.push(name) > MAX_NAMES) throw new PeerError('files-from', `more than ${MAX_NAMES} names`)
    }
    if (ended) return names
  }
}

/** [files-from] Names, each ended by NUL; an empty one ends them all. */
function decodeNames(bytes: Uint8Array): Decoded<{ found: ByteString[]; ended: boolean }> | undefined {
  const found: ByteString[] = []
  for (let at = 0; ; ) {
    const end = bytes.indexOf(NUL, at)
    if ((end < 0 ? bytes.length : end) - at > MAX_NAME) {
      throw new PeerError('files-from', `a name of more than ${MAX_NAME} bytes`)
    }
    if (end === at) return { value: { found, ended: true }, size: at + 1 }
    if (end < 0) return at === 0 ? undefined : { value: { found, ended: false }, size: at }
    found.push(byteString(bytes, at, end))
    at = end + 1
  }
}

async function namesFromBuild(tree: Tree, path: ByteString, from0: boolean): Promise<ByteString[]> {
  const { node } = await findListed(tree, ascii(''), path, false)
  if (node < 0 || !isRegularMode(tree.mode(node))) {
    throw new RefusedError(`ERROR: --files-from: the build has no file "${showBytes(path)}"`, 11)
  }
  const content = await tree.open(node)
  try {
    if (content.size > MAX_BYTES)
      throw new RefusedError(`ERROR: --files-from: "${showBytes(path)}" is too large`, 11)
    const tooMuch = (what: string): RefusedError =>
      new RefusedError(`ERROR: --files-from: "${showBytes(path)}" holds ${what}`, 11)
    const pacer = new Pacer()
    const names: ByteString[] = []
    let rest = ''
    for (let at = 0; at < content.size; at += PIECE) {
      if (pacer.due) await pacer.rest()
      const bytes = Buffer.alloc(Math.min(PIECE, content.size - at))
      await content.read([bytes], at)
      const pieces = (rest + bytes.toString('latin1')).split(from0 ? '\0' : /[\r\n\0]+/)
      rest = at + PIECE < content.size ? pieces.pop()! : ''
      if (rest.length > MAX_NAME) throw tooMuch(`a name of more than ${MAX_NAME} bytes`)
      for (const name of pieces as ByteString[]) {
        // Comments, but not among names that may hold anything.
        if (name !== '' && (from0 || !/^[#;]/.test(name))) names.push(name)
      }
      if (names.length > MAX_NAMES) throw tooMuch(`more than ${MAX_NAMES} names`)
    }
    return names
  } finally {
    content.close()
  }
}

function withoutModule(path: ByteString, module: ByteString): ByteString {
  return path.startsWith(module) ? (path.slice(module.length) as ByteString) : path
}
