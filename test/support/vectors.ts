/**
 * Conversations with the real client, recorded once and replayed for ever: what is served in them, and how
 * a recording is made into the server's bytes again. `script/vectors` records, `vectors.test.ts` replays.
 *
 * Nothing in a replay depends on time: the client's bytes are there at once, the clock stands still and the
 * seed is fixed. So the server's bytes must be the same every time, down to the borders of its frames.
 */

import { hash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { type MemoryNode, MemoryTree } from './memory-tree.ts'
import { converse, sessionContext } from './session.ts'

export const VECTORS = fileURLToPath(new URL('../vectors/', import.meta.url))

export interface VectorCase {
  name: string
  /** Options of the client. */
  options: readonly string[]
  /** What the device holds before: nothing, or one of the two modules. Undefined lists without a device. */
  device: 'empty' | 'old' | 'new' | undefined
}

export const VECTOR_CASES: readonly VectorCase[] = [
  { name: 'full', options: ['-aH'], device: 'empty' },
  { name: 'no-op', options: ['-aH'], device: 'new' },
  { name: 'update', options: ['-aH', '--delete', '-B700'], device: 'old' },
  { name: 'checksum', options: ['-ac'], device: 'old' },
  { name: 'compress', options: ['-az'], device: 'empty' },
  { name: 'compress-update', options: ['-az', '-B700'], device: 'old' },
  { name: 'filters', options: ['-a', '--include=*/', '--include=*.txt', '--exclude=*'], device: 'empty' },
  { name: 'list', options: ['-r'], device: undefined },
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

const image = noise('image', 6000)
const patched = Buffer.concat([image.subarray(0, 2000), Buffer.from('a patch'), image.subarray(2100)])

function build(version: 'old' | 'new'): MemoryNode {
  const isNew = version === 'new'
  const linked = { link: 1, mtime: 1_600_000_000 }
  return directory({
    'changed.txt': file(`this is ${version}\n`, { mtime: isNew ? 1_700_000_100 : 1_700_000_000 }),
    'image.bin': file(isNew ? patched : image, { mtime: isNew ? 1_700_000_100 : 1_700_000_000 }),
    'same.txt': file('the same in both\n', { mtime: 1_195_776_000, mtimeNsec: 250_000_000 }),
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
