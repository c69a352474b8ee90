/**
 * The long computations over a file's content, as plain tasks that run in whichever thread has time.
 */
import { readSync } from 'node:fs'
import { StoreCorrupt } from '../../errors.ts'
import {
  type BlockSumRule,
  createBlockSum,
  type DigestName,
  fileDigest,
  prepareBlockSum,
} from '../digests.ts'
import { type BlockSums, type Delta, matchBlocks } from './match.ts'

/** Bytes that rest in a file which this process has open. */
export interface Place {
  fd: number
  offset: number
  size: number
}

export type Task =
  | { type: 'match'; place: Place; sums: BlockSums; rule: BlockSumRule; inplace: boolean }
  | {
      type: 'digest'
      place: Place
      name: DigestName
      seed: number
      /** What the content's XXH128 was when the build came in; computed on the way and compared. */
      expected: Uint8Array | undefined
    }

export interface TaskResult {
  match: Delta
  digest: Uint8Array
}

/** @throws StoreCorrupt when the content is not what it was when the build came in. */
export async function runTask<T extends Task>(task: T): Promise<TaskResult[T['type']]>
export async function runTask(task: Task): Promise<Delta | Uint8Array> {
  switch (task.type) {
    case 'match': {
      await prepareBlockSum(task.rule)
      const { fd, offset, size } = task.place
      const source = {
        size,
        read: (target: Uint8Array, position: number) => readExactly(fd, target, offset + position),
      }
      return matchBlocks(source, task.sums, createBlockSum(task.rule), task.inplace)
    }
    case 'digest': {
      if (task.expected) {
        const actual = fileDigest('xxh128', 0, pieces(task.place))
        if (Buffer.compare(actual, task.expected) !== 0) {
          throw new StoreCorrupt('a blob is not what it was when its build came in', {
            hint: 'Remove the build and ask for it again: it is then fetched anew.',
          })
        }
      }
      return fileDigest(task.name, task.seed, pieces(task.place))
    }
  }
}

/** Each piece is only good until the next one is asked for. */
function* pieces({ fd, offset, size }: Place): Generator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(size, 1 << 18))
  for (let position = 0; position < size; position += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, size - position))
    readExactly(fd, piece, offset + position)
    yield piece
  }
}

function readExactly(fd: number, target: Uint8Array, position: number): void {
  for (let filled = 0; filled < target.length; ) {
    const got = readSync(fd, target, filled, target.length - filled, position + filled)
    if (got === 0) throw new StoreCorrupt(`a pack ends ${target.length - filled} bytes too early`)
    filled += got
  }
}
