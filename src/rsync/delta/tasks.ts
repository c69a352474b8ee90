/**
 * The long computations over a file's content, as plain tasks that run in whichever thread has time: over
 * bytes in memory, or over bytes that the thread reads by itself.
 */
import { readSync } from 'node:fs'
import { StoreCorrupt, StoreError } from '../../errors.ts'
import {
  type BlockSumRule,
  createBlockSum,
  type DigestName,
  fileDigest,
  prepareBlockSum,
} from '../digests.ts'
import { type SumHead, sumBytes } from '../wire/sums.ts'
import { type BlockSums, type Delta, type MatchSource, matchBlocks, weakSum } from './match.ts'

/** Bytes that rest in a file which this process has open. */
export interface Place {
  fd: number
  offset: number
  size: number
}

/** So much of a basis is read at a time. */
const SUMS_WINDOW = 1 << 18

export type Task =
  /** The client's part: the sums of its blocks, as it sends them. */
  | { type: 'sums'; head: SumHead; rule: BlockSumRule }
  | { type: 'match'; sums: BlockSums; rule: BlockSumRule; inplace: boolean }
  | {
      type: 'digest'
      name: DigestName
      seed: number
      /** Where the bytes to be digested begin; what is before them only counts for `expected`. */
      from: number
      /** What the whole content's XXH128 was when the build came in; computed on the way and compared. */
      expected: Uint8Array | undefined
    }

export interface TaskResult {
  sums: Uint8Array
  match: Delta
  digest: Uint8Array
}

/**
 * @param bytes where they rest, or the bytes themselves.
 * @throws StoreError when they can't be read, or are not what they were when the build came in.
 */
export async function runTask<T extends Task>(
  task: T,
  bytes: Place | Uint8Array,
): Promise<TaskResult[T['type']]>
export async function runTask(task: Task, bytes: Place | Uint8Array): Promise<Delta | Uint8Array> {
  const source = bytes instanceof Uint8Array ? inMemory(bytes) : onDisk(bytes)
  switch (task.type) {
    case 'sums': {
      await prepareBlockSum(task.rule)
      return blockSums(source, task.head, createBlockSum(task.rule))
    }
    case 'match': {
      await prepareBlockSum(task.rule)
      return matchBlocks(source, task.sums, createBlockSum(task.rule), task.inplace)
    }
    case 'digest': {
      if (task.expected) {
        const actual = fileDigest('xxh128', 0, pieces(source, 0))
        if (Buffer.compare(actual, task.expected) !== 0) {
          throw new StoreCorrupt('a blob is not what it was when its build came in', {
            hint: 'Remove the build and ask for it again: it is then fetched anew.',
          })
        }
      }
      return fileDigest(task.name, task.seed, pieces(source, task.from))
    }
  }
}

/** As a generator sends them behind `head`. docs/rsync-protocol.md, section 8.2. */
function blockSums(
  source: MatchSource,
  head: SumHead,
  strongOf: (block: Uint8Array) => Uint8Array,
): Uint8Array {
  const { blockLength, strongLength } = head
  const sums = Buffer.alloc(sumBytes(head))
  const window = new Uint8Array(blockLength * Math.max(1, Math.floor(SUMS_WINDOW / blockLength)))
  for (let position = 0, at = 0; position < source.size; position += window.length) {
    const bytes = window.subarray(0, Math.min(window.length, source.size - position))
    source.read(bytes, position)
    for (let start = 0; start < bytes.length; start += blockLength) {
      const end = Math.min(bytes.length, start + blockLength)
      sums.writeUInt32LE(weakSum(bytes, start, end), at)
      sums.set(strongOf(bytes.subarray(start, end)).subarray(0, strongLength), at + 4)
      at += 4 + strongLength
    }
  }
  return sums
}

/** Each piece is only good until the next one is asked for. */
function* pieces(source: MatchSource, from: number): Generator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(source.size - from, 1 << 18))
  for (let position = from; position < source.size; position += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, source.size - position))
    source.read(piece, position)
    yield piece
  }
}

function inMemory(bytes: Uint8Array): MatchSource {
  return {
    size: bytes.length,
    read: (target, position) => target.set(bytes.subarray(position, position + target.length)),
  }
}

function onDisk({ fd, offset, size }: Place): MatchSource {
  return { size, read: (target, position) => readExactly(fd, target, offset + position) }
}

function readExactly(fd: number, target: Uint8Array, position: number): void {
  for (let filled = 0; filled < target.length; ) {
    let got: number
    try {
      got = readSync(fd, target, filled, target.length - filled, position + filled)
    } catch (cause) {
      throw new StoreError(`a pack cannot be read: ${(cause as Error).message}`, { cause })
    }
    if (got === 0) throw new StoreCorrupt(`a pack ends ${target.length - filled} bytes too early`)
    filled += got
  }
}
