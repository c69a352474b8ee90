/**
 * --files-from: the names to send come from the client's socket or from a file of the build.
 * docs/rsync-protocol.md, section 2.8.
 */
import { PeerError, RefusedError } from '../errors.ts'
import type { ByteReader, Decoded } from '../lib/byte-reader.ts'
import { ascii, type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import { isRegularMode } from '../lib/file-mode.ts'
import type { Connection } from './connection.ts'
import { findListed, type SourcePath } from './paths.ts'
import type { Tree } from './tree.ts'
import type { TransferOptions } from './wire/arguments.ts'

/** The longest name, as Linux has it. */
const MAX_NAME = 4096
/** All names together: some million, and no more memory than a long file list takes. */
const MAX_BYTES = 64 * 1024 * 1024
const NUL = 0

/** All names are read before the list is begun: a client that writes them also reads what we send. */
export async function readListedNames(
  connection: Connection,
  tree: Tree,
  module: ByteString,
  options: TransferOptions,
  protocol: number,
): Promise<Iterable<SourcePath>> {
  const names =
    options.filesFrom === '-'
      ? await namesFromSocket(connection, protocol)
      : await namesFromBuild(tree, withoutModule(options.filesFrom ?? ascii(''), module), options.from0)
  const base = withoutModule(options.paths[0] ?? ascii(''), module)
  return sourcesOf(tree, base, names, options.relative)
}

/** One source at a time: a million names stay names until their turn comes. */
function* sourcesOf(
  tree: Tree,
  base: ByteString,
  names: readonly ByteString[],
  relative: boolean,
): Generator<SourcePath> {
  for (const name of names) yield findListed(tree, base, name, relative)
}

async function namesFromSocket(connection: Connection, protocol: number): Promise<ByteString[]> {
  // At protocol 30 the names travel outside the frames.
  return protocol === 30 ? connection.outsideFrames(readNames) : readNames(connection.in)
}

async function readNames(input: ByteReader): Promise<ByteString[]> {
  const names: ByteString[] = []
  let bytes = 0
  for (;;) {
    const name = await input.decode(decodeName)
    if (name === '') return names
    bytes += name.length + 1
    if (bytes > MAX_BYTES) throw new PeerError('files-from', `more than ${MAX_BYTES} bytes of names`)
    names.push(name)
  }
}

/** [files-from] One name, ended by NUL. */
function decodeName(bytes: Uint8Array): Decoded<ByteString> | undefined {
  const end = bytes.indexOf(NUL)
  if (end > MAX_NAME || (end < 0 && bytes.length > MAX_NAME)) {
    throw new PeerError('files-from', `a name of more than ${MAX_NAME} bytes`)
  }
  return end < 0 ? undefined : { value: byteString(bytes, 0, end), size: end + 1 }
}

async function namesFromBuild(tree: Tree, path: ByteString, from0: boolean): Promise<ByteString[]> {
  const { node } = findListed(tree, ascii(''), path, false)
  if (node < 0 || !isRegularMode(tree.mode(node))) {
    throw new RefusedError(`ERROR: --files-from: the build has no file "${showBytes(path)}"`, 11)
  }
  const content = await tree.open(node)
  try {
    if (content.size > MAX_BYTES)
      throw new RefusedError(`ERROR: --files-from: "${showBytes(path)}" is too large`, 11)
    const bytes = Buffer.alloc(content.size)
    await content.read([bytes], 0)
    const names = bytes.toString('latin1').split(from0 ? '\0' : /[\r\n\0]+/) as ByteString[]
    // Comments, but not among names that may hold anything.
    return names.filter((name) => name !== '' && (from0 || !/^[#;]/.test(name)))
  } finally {
    content.close()
  }
}

function withoutModule(path: ByteString, module: ByteString): ByteString {
  return path.startsWith(module) ? (path.slice(module.length) as ByteString) : path
}
