/**
 * Conversations with the real client, recorded once and replayed for ever: what is served in them, and how
 * a recording is made into the server's bytes again. `script/vectors` records, `vectors.test.ts` replays.
 *
 * Nothing in a replay depends on time: the client's bytes are there at once, the clock stands still and the
 * seed is fixed. So the server's bytes must be the same every time, down to the borders of its frames.
 */

import { hash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { ascii } from '../../src/lib/bytes.ts'
import { type MemoryNode, MemoryTree } from './memory-tree.ts'
import { converse, sessionContext } from './session.ts'

export const VECTORS = fileURLToPath(new URL('../vectors/', import.meta.url))

export interface VectorCase {
  name: string
  /** Options of the client. */
  options: readonly string[]
  /** What the device holds before: nothing, or one of the two modules. Undefined lists without a device. */
  device: 'empty' | 'old' | 'new' | undefined
  /** The oldest protocol at which the client has such options. */
  since?: number
  /** What it hears on stdin. */
  input?: string
}

export const VECTOR_CASES: readonly VectorCase[] = [
  { name: 'full', options: ['-aH'], device: 'empty' },
  { name: 'no-op', options: ['-aH'], device: 'new' },
  { name: 'update', options: ['-aH', '--delete', '-B700'], device: 'old' },
  { name: 'checksum', options: ['-ac'], device: 'old' },
  { name: 'compress', options: ['-az'], device: 'empty' },
  { name: 'compress-update', options: ['-az', '-B700'], device: 'old' },
  { name: 'lz4-update', options: ['-a', '--compress-choice=lz4', '-B700'], device: 'old' },
  { name: 'filters', options: ['-a', '--include=*/', '--include=*.txt', '--exclude=*'], device: 'empty' },
  { name: 'list', options: ['-r'], device: undefined },
  { name: 'dry-run', options: ['-aHn', '--delete'], device: 'old' },
  { name: 'inplace', options: ['-a', '--inplace', '-B700'], device: 'old' },
  { name: 'rule-files', options: ['-a', '--filter=:- same.txt', '--delete'], device: 'old', since: 29 },
  {
    name: 'files-from',
    options: ['-a', '--files-from=-', '--from0'],
    device: 'empty',
    input: 'same.txt\0sub/deep.txt\0sub/deeper/\0',
  },
  {
    name: 'files-from-build',
    options: ['-a', '--files-from=:same.txt', '--ignore-missing-args'],
    device: 'empty',
  },
  { name: 'relative', options: ['-aR'], device: 'empty' },
  { name: 'numeric-ids', options: ['-a', '--numeric-ids'], device: 'empty' },
  { name: 'attributes', options: ['-aHAX'], device: 'empty', since: 30 },
  { name: 'attributes-update', options: ['-aAX', '-B700'], device: 'old', since: 30 },
  ...['zstd', 'lz4', 'zlibx', 'zlib'].map((codec) => ({
    name: `compress-${codec}`,
    options: ['-a', `--compress-choice=${codec}`, '-B700'],
    device: 'old' as const,
    since: 30,
  })),
  ...['xxh128', 'xxh3', 'xxh64', 'md5', 'sha1', 'none'].map((digest) => ({
    name: `digest-${digest}`,
    options: ['-a', ...(digest === 'none' ? [] : ['-c']), `--checksum-choice=${digest}`, '-B700'],
    device: 'old' as const,
    since: 30,
  })),
]

/** Bytes that don't compress and never change. */
function noise(label: string, size: number): Buffer {
  const blocks: Buffer[] = []
  for (let i = 0; i * 64 < size; i++) blocks.push(hash('sha512', `${label} ${i}`, 'buffer'))
  return Buffer.concat(blocks).subarray(0, size)
}

const file = (data: Buffer | string, more: Partial<MemoryNode> = {}): MemoryNode => ({
  mode: 0o100644,
  data: Buffer.from(data),
  ...more,
})
const directory = (children: Record<string, MemoryNode>, more: Partial<MemoryNode> = {}): MemoryNode => ({
  mode: 0o040755,
  children,
  ...more,
})

/** One attribute too long for the list, so that it is asked for, one that fits, and an ACL. */
const ATTRIBUTES = [
  { name: ascii('system.posix_acl_access'), value: acl('0600 0400 0400 0400 0000') },
  { name: ascii('user.long'), value: noise('attribute', 200) },
  { name: ascii('user.short'), value: Buffer.from('short') },
]

/** Version 2, then owner, user 1000, group, mask and others. */
function acl(permissions: string): Buffer {
  const [owner, user, group, mask, others] = permissions.split(' ')
  const nobody = 'ffffffff'
  return Buffer.from(
    `02000000 0100${owner}${nobody} 0200${user}e8030000 0400${group}${nobody} 1000${mask}${nobody} 2000${others}${nobody}`.replaceAll(
      ' ',
      '',
    ),
    'hex',
  )
}

const image = noise('image', 6000)
const patched = Buffer.concat([image.subarray(0, 2000), Buffer.from('a patch'), image.subarray(2100)])

function build(version: 'old' | 'new'): MemoryNode {
  const isNew = version === 'new'
  const linked = { link: 1, mtime: 1_600_000_000 }
  return directory({
    'changed.txt': file(`this is ${version}\n`, { mtime: isNew ? 1_700_000_100 : 1_700_000_000 }),
    'image.bin': file(isNew ? patched : image, { mtime: isNew ? 1_700_000_100 : 1_700_000_000 }),
    'same.txt': file('the same in both\n', {
      mtime: 1_195_776_000,
      mtimeNsec: 250_000_000,
      xattrs: ATTRIBUTES,
    }),
    empty: file('', { mode: 0o100600 }),
    'sp ace': file('x', { uid: 1000, gid: 100 }),
    link: { mode: 0o120777, target: 'same.txt' },
    'hard-1': file('linked\n', linked),
    ...(isNew ? { 'hard-2': file('linked\n', linked) } : { gone: file('gone in new\n') }),
    fifo: { mode: 0o010644 },
    null: { mode: 0o020666, major: 1, minor: 3 },
    sub: directory({ 'deep.txt': file('deep\n'), deeper: directory({ f: file('f\n') }) }, { mode: 0o040750 }),
  })
}

/** The modules; whoever opens them closes them. */
export function vectorTrees(): { old: MemoryTree; new: MemoryTree } {
  return { old: new MemoryTree(build('old')), new: new MemoryTree(build('new')) }
}

/** What the server says to a client that says this. */
export async function replay(trees: ReturnType<typeof vectorTrees>, client: Uint8Array): Promise<Buffer> {
  const { output, report } = await converse(sessionContext(trees), client)
  if (report.outcome !== 'done')
    throw new Error(`the replay ended as "${report.outcome}"`, { cause: report.error })
  return output
}
