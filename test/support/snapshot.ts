/**
 * What a tree on disk is, exactly: every entry by lstat, names as bytes, contents as SHA-256, hard links
 * as groups. Two snapshots are compared entry by entry and the difference is told as a person would.
 *
 * What a protocol version cannot carry is left out of the comparison by name (`Tolerance`), so that a
 * test says what it does not look at.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  type BigIntStats,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { ascii, type ByteString, byteString, compareBytes, showBytes, toBuffer } from '../../src/lib/bytes.ts'

export type SnapshotType =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'char-device'
  | 'block-device'
  | 'fifo'
  | 'socket'

export interface SnapshotEntry {
  type: SnapshotType
  mode: number
  uid: number
  gid: number
  /** Of files and symlinks; 0 for the others, whose size means nothing. */
  size: number
  mtime: number
  mtimeNsec: number
  linkTarget: ByteString
  major: number
  minor: number
  /** The other names of this inode inside the tree, sorted; empty when there are none. */
  links: readonly ByteString[]
  sha256: string
}

/** By path relative to the tree's root, which is '.' itself. */
export type Snapshot = ReadonlyMap<ByteString, SnapshotEntry>

/** What a comparison leaves out. Nothing, unless told. */
export interface Tolerance {
  /** Compare whole seconds only. */
  wholeSeconds?: boolean
  /** Compare the low 32 bits of the seconds only. */
  mtime32?: boolean
  /** Ignore times altogether. */
  times?: 'ignored' | 'compared'
  /** Ignore owner and group. */
  owners?: 'ignored' | 'compared'
  /** Ignore permission bits. */
  modes?: 'ignored' | 'compared'
  /** Which hard links are compared. */
  hardLinks?: 'all' | 'regular-files' | 'ignored'
}

/** What rsync at this protocol version can carry with `-aH` and nothing else. */
export function carriedBy(protocol: number): Tolerance {
  return {
    wholeSeconds: protocol < 31,
    mtime32: protocol < 30,
    hardLinks: protocol < 28 ? 'regular-files' : 'all',
  }
}

/** Reads the tree at `dir`, contents included. */
export function snapshot(dir: string): Snapshot {
  const entries = new Map<ByteString, SnapshotEntry>()
  const namesOfInode = new Map<string, ByteString[]>()
  const inodes = new Map<ByteString, string>()

  const visit = (path: ByteString, place: Buffer): void => {
    const stat = lstatSync(place, { bigint: true })
    const entry = describe(stat, place)
    entries.set(path, entry)
    if (entry.type === 'directory') {
      const names = readdirSync(place, { encoding: 'buffer' }).map((name) => byteString(name))
      for (const name of names.sort(compareBytes)) {
        const child = path === '.' ? name : (`${path}/${name}` as ByteString)
        visit(child, Buffer.concat([place, Buffer.from('/'), toBuffer(name)]))
      }
    } else if (stat.nlink > 1n) {
      const inode = `${stat.dev}:${stat.ino}`
      inodes.set(path, inode)
      namesOfInode.set(inode, [...(namesOfInode.get(inode) ?? []), path])
    }
  }
  visit(ascii('.'), Buffer.from(dir))
  for (const [path, inode] of inodes) {
    entries.get(path)!.links = namesOfInode.get(inode)!.filter((other) => other !== path)
  }
  return entries
}

function describe(stat: BigIntStats, place: Buffer): SnapshotEntry {
  const type = typeOf(stat)
  const second = 1_000_000_000n
  const nsec = ((stat.mtimeNs % second) + second) % second
  const isDevice = type === 'char-device' || type === 'block-device'
  const linkTarget = type === 'symlink' ? byteString(readlinkSync(place, { encoding: 'buffer' })) : ascii('')
  return {
    type,
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: type === 'file' || type === 'symlink' ? Number(stat.size) : 0,
    mtime: Number((stat.mtimeNs - nsec) / second),
    mtimeNsec: Number(nsec),
    linkTarget,
    // Linux: 12 bits of major and 20 of minor, the high bits of both above the historic 16.
    major: isDevice ? Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & 0xfffff000n)) : 0,
    minor: isDevice ? Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xffffff00n)) : 0,
    links: [],
    sha256: type === 'file' ? sha256Of(place) : '',
  }
}

function typeOf(stat: BigIntStats): SnapshotType {
  if (stat.isFile()) return 'file'
  if (stat.isDirectory()) return 'directory'
  if (stat.isSymbolicLink()) return 'symlink'
  if (stat.isCharacterDevice()) return 'char-device'
  if (stat.isBlockDevice()) return 'block-device'
  if (stat.isFIFO()) return 'fifo'
  return 'socket'
}

const READ_SIZE = 4 << 20
const readBuffer = Buffer.allocUnsafe(READ_SIZE)

function sha256Of(place: Buffer): string {
  const hash = createHash('sha256')
  const file = openSync(place, 'r')
  try {
    for (;;) {
      const size = readSync(file, readBuffer, 0, READ_SIZE, null)
      if (size === 0) return hash.digest('hex')
      hash.update(readBuffer.subarray(0, size))
    }
  } finally {
    closeSync(file)
  }
}

// ---------------------------------------------------------------------------------------------------
// Comparing.

/** One line for each difference; empty when the trees are the same. */
export function differences(expected: Snapshot, actual: Snapshot, tolerance: Tolerance = {}): string[] {
  const lines: string[] = []
  for (const path of [...new Set([...expected.keys(), ...actual.keys()])].sort(compareBytes)) {
    const a = expected.get(path)
    const b = actual.get(path)
    const name = showBytes(path)
    if (!a) lines.push(`${name}: should not be there (${b!.type})`)
    else if (!b) lines.push(`${name}: missing (${a.type})`)
    else {
      const fields = fieldDifferences(a, b, tolerance)
      if (fields.length > 0) lines.push(`${name}: ${fields.join(', ')}`)
    }
  }
  return lines
}

function fieldDifferences(a: SnapshotEntry, b: SnapshotEntry, tolerance: Tolerance): string[] {
  if (a.type !== b.type) return [`type ${b.type}, expected ${a.type}`]
  const found: string[] = []
  const check = (field: string, expected: unknown, actual: unknown): void => {
    if (expected !== actual) found.push(`${field} ${actual}, expected ${expected}`)
  }
  const seconds = (entry: SnapshotEntry): number => (tolerance.mtime32 ? entry.mtime >>> 0 : entry.mtime)
  const octal = (entry: SnapshotEntry): string => entry.mode.toString(8).padStart(4, '0')

  if (tolerance.modes !== 'ignored') check('mode', octal(a), octal(b))
  if (tolerance.owners !== 'ignored') check('owner', `${a.uid}:${a.gid}`, `${b.uid}:${b.gid}`)
  if (tolerance.times !== 'ignored') {
    check('mtime', seconds(a), seconds(b))
    if (!tolerance.wholeSeconds) check('nanoseconds', a.mtimeNsec, b.mtimeNsec)
  }
  check('size', a.size, b.size)
  check('target', showBytes(a.linkTarget), showBytes(b.linkTarget))
  check('device', `${a.major},${a.minor}`, `${b.major},${b.minor}`)
  check('content', a.sha256.slice(0, 12), b.sha256.slice(0, 12))
  const which = tolerance.hardLinks ?? 'all'
  if (which === 'all' || (which === 'regular-files' && a.type === 'file')) {
    check('links', showLinks(a.links), showLinks(b.links))
  }
  return found
}

function showLinks(links: readonly ByteString[]): string {
  return links.length === 0 ? 'none' : links.map((link) => showBytes(link)).join('+')
}

/** How many differences a failed assertion tells before it only counts. */
const SHOWN_DIFFERENCES = 25

/** Fails with the list of differences when the trees are not the same. */
export function assertSameTree(expected: Snapshot, actual: Snapshot, tolerance: Tolerance = {}): void {
  const lines = differences(expected, actual, tolerance)
  if (lines.length === 0) return
  const more = lines.length > SHOWN_DIFFERENCES ? [`... and ${lines.length - SHOWN_DIFFERENCES} more`] : []
  assert.fail(
    `the trees differ in ${lines.length} of ${expected.size} entries:\n  ` +
      [...lines.slice(0, SHOWN_DIFFERENCES), ...more].join('\n  '),
  )
}

/** The part of a snapshot beneath `path`, with names relative to it. */
export function beneath(tree: Snapshot, path: string): Snapshot {
  const part = new Map<ByteString, SnapshotEntry>()
  for (const [name, entry] of tree) {
    if (name === path) part.set(ascii('.'), entry)
    else if (name.startsWith(`${path}/`)) part.set(name.slice(path.length + 1) as ByteString, entry)
  }
  return part
}

/** The paths without '.', sorted: for tests that are about which entries arrive. */
export function pathsOf(tree: Snapshot): string[] {
  return [...tree.keys()].filter((path) => path !== '.').sort(compareBytes)
}
