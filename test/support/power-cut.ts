/** Cuts the power at every call that changes the disk, in every way that a file system may take it. */

import { type Fate, MemoryDisk } from './memory-disk.ts'
import { seededRandom } from './random.ts'
import { changesDisk, type DiskCall, type Judge, WatchedDisk } from './watched-disk.ts'

type Content = Fate['content']

const BYTES_LOST: Content = (durable) => durable
const BYTES_KEPT: Content = (_, written) => written
const HALF_THE_BYTES: Content = (durable, written) =>
  written.subarray(0, Math.floor((durable.length + written.length) / 2))
/** The length made it to the disk, and something else in place of the bytes. */
const GARBAGE: Content = (durable, written) => {
  const bytes = Buffer.alloc(written.length, 0xdb)
  written.copy(bytes, 0, 0, Math.min(durable.length, written.length))
  return bytes
}
const CONTENTS = [BYTES_LOST, BYTES_KEPT, HALF_THE_BYTES, GARBAGE]

export const FATES: readonly Fate[] = [
  { name: 'what was not synced is lost', keepsChange: () => false, content: BYTES_LOST },
  { name: 'all is kept', keepsChange: () => true, content: BYTES_KEPT },
  { name: 'names are kept, bytes lost', keepsChange: () => true, content: BYTES_LOST },
  { name: 'names are kept, bytes are garbage', keepsChange: () => true, content: GARBAGE },
  { name: 'names are kept, half the bytes', keepsChange: () => true, content: HALF_THE_BYTES },
  { name: 'bytes are kept, names lost', keepsChange: () => false, content: BYTES_KEPT },
  { name: 'only the last name is kept', keepsChange: (i, n) => i === n - 1, content: BYTES_LOST },
  { name: 'only the last name is lost', keepsChange: (i, n) => i < n - 1, content: BYTES_KEPT },
]

/**
 * One change of names is lost, with those that follow it on the same name; all others are kept. The newest
 * is number 0: of old ones there are ever more, in directories that are never synced.
 */
export function fateLacking(change: number): Fate {
  return {
    name: `the change before the last ${change} is lost`,
    keepsChange: (index, count) => count - 1 - index !== change,
    content: BYTES_KEPT,
  }
}

/** Any subset of names and, of each file, any part. */
export function randomFate(seed: number): Fate {
  const random = seededRandom(seed)
  const share = [0.15, 0.5, 0.85][Math.floor(random() * 3)]!
  return {
    name: `at random (seed ${seed})`,
    keepsChange: () => random() < share,
    content: (...args) => CONTENTS[Math.floor(random() * CONTENTS.length)]!(...args),
  }
}

/** The disk right before a call that changes it, and what had been promised by then. */
export interface Moment<Promised> {
  readonly at: string
  readonly disk: MemoryDisk
  readonly promised: Promised
}

/**
 * Runs `work` on a disk, remembering how the disk stood before each call that changes it and at the end.
 * `promised` says what counts at that moment. fsyncs whose reason is `without` do nothing.
 */
export async function momentsOf<Promised>(
  work: (disk: WatchedDisk, machine: MemoryDisk) => Promise<void>,
  promised: () => Promised,
  { disk = new MemoryDisk(), without }: { disk?: MemoryDisk; without?: string } = {},
): Promise<{ moments: Moment<Promised>[]; calls: DiskCall[] }> {
  const moments: Moment<Promised>[] = []
  const calls: DiskCall[] = []
  const remember = (at: string): void => {
    moments.push({ at, disk: disk.killed(), promised: promised() })
  }
  const judge: Judge = (call) => {
    if (!changesDisk(call)) return undefined
    calls.push(call)
    remember(`before call ${calls.length}, ${call.name} ${call.path}${call.why ? ` (${call.why})` : ''}`)
    return call.name === 'sync' && call.why === without ? 'skipped' : undefined
  }
  await work(new WatchedDisk(disk, judge), disk)
  remember('at the end')
  return { moments, calls }
}

/** Checks that wait for threads, as digests do, run side by side. */
const AT_ONCE = 8

/**
 * Plays each moment with each fate and calls `check` with what is left. Equal disks about which the same
 * was promised are checked once. Returns how many were. @throws BrokenPromise
 */
export async function cutPower<Promised>(
  moments: readonly Moment<Promised>[],
  fates: (moment: number) => Iterable<Fate>,
  check: (disk: MemoryDisk, promised: Promised) => Promise<void>,
): Promise<number> {
  const seen = new Set<string>()
  const left = (function* () {
    for (const [number, { at, disk, promised }] of moments.entries()) {
      for (const fate of fates(number)) {
        const after = disk.afterPowerCut(fate)
        const key = `${promised} ${after.fingerprint()}`
        if (seen.has(key)) continue
        seen.add(key)
        yield { at: `power cut ${at}, ${fate.name}`, disk: after, promised }
      }
    }
  })()
  const checkOneByOne = async () => {
    for (const { at, disk, promised } of left) {
      try {
        await check(disk, promised)
      } catch (cause) {
        throw new BrokenPromise(`${at}: ${(cause as Error).message}`, { cause })
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, checkOneByOne))
  return seen.size
}

export class BrokenPromise extends Error {}
