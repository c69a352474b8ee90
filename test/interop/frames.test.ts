/**
 * zstd frames that hold several files (src/rsync/frames.ts), with the real client: whoever asks, in whatever order
 * and whatever has been forgotten meanwhile, gets what is in the build.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Answers, type RefineJob } from '../../src/rsync/answers.ts'
import { createBestFrame, squeezeBest } from '../../src/rsync/codecs.ts'
import { Derived } from '../../src/rsync/derived.ts'
import type { Kept, TakeMemory } from '../../src/rsync/kept.ts'
import { MemoryTree } from '../support/memory-tree.ts'
import { pick, randomOf, seedOfRun } from '../support/random.ts'
import { rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { listen, memoryKept, SEED, sessionContext, type TestPort } from '../support/session.ts'
import { randomBytes } from '../support/tree.ts'

const MIB = 2 ** 20
const signal = new AbortController().signal
const seed = seedOfRun()
const random = randomOf(seed)

/** Words that all files share, so that what came before is worth something. */
const WORDS = Array.from({ length: 100 }, (_, n) => randomBytes(n, 12).toString('base64'))

function words(number: number, size: number): Buffer {
  const random = randomOf(number)
  const all: string[] = []
  for (let n = number, length = 0; length < size; n++, length += 30)
    all.push(`line ${n * n} of ${pick(random, WORDS)}`)
  return Buffer.from(all.join('\n')).subarray(0, size)
}

/** Of every size that matters: nothing, some bytes, more than an answer holds itself, more than one piece, too large. */
const SIZES = [0, 1, 300, 5_000, 60_000, 70_000, 400_000, MIB + 5, 2 * MIB, 9 * MIB]
/** Most sizes twice; the largest once, as to compress it as hard as can be is most of what this takes. */
const FILES = new Map(
  Array.from({ length: 17 }, (_, n) => [`f${String(n).padStart(2, '0')}`, words(n, SIZES[(n * 7) % 10]!)]),
)

/** Keeps everything but what it is told to forget. */
class Forgetful implements Kept {
  readonly #kept = memoryKept(512 * MIB)
  forgets: (size: number) => boolean = () => false
  readonly #forgotten = new Set<string>()

  get(key: Uint8Array, take?: TakeMemory) {
    return this.#forgotten.has(nameOf(key)) ? undefined : this.#kept.get(key, take)
  }
  peek(key: Uint8Array) {
    return this.#forgotten.has(nameOf(key)) ? undefined : this.#kept.peek(key)
  }
  put(key: Uint8Array, bytes: Uint8Array) {
    if (this.forgets(bytes.length)) this.#forgotten.add(nameOf(key))
    else this.#forgotten.delete(nameOf(key))
    return this.#kept.put(key, bytes)
  }
}

const nameOf = (key: Uint8Array): string => Buffer.from(key).toString('latin1')

describe(`frames (FUZZ_SEED=${seed})`, () => {
  let scratch: Scratch
  let tree: MemoryTree
  let port: TestPort
  let answers: Answers
  let kept: Forgetful
  let derived: Derived
  const jobs: RefineJob[] = []
  before(async () => {
    scratch = makeScratch('frames')
    const children = Object.fromEntries(
      [...FILES].map(([name, data]) => [name, { mode: 0o100644, mtime: 1, data }]),
    )
    tree = new MemoryTree({ mode: 0o040755, children })
    kept = new Forgetful()
    derived = new Derived({ kept, checksumSeed: SEED })
    answers = new Answers({ derived, kept, onQuick: (job) => jobs.push(job) })
    port = await listen(sessionContext({ m: tree }, { derived, answers }))
  })
  after(async () => {
    await port?.[Symbol.asyncDispose]()
    await derived?.close()
    tree?.close()
    scratch?.[Symbol.dispose]()
  })

  /** Pulls into a directory that has these files. @returns bytes that the server sent. */
  async function pull(
    name: string,
    has: ReadonlyMap<string, Buffer> = new Map(),
    ...options: string[]
  ): Promise<number> {
    const target = join(scratch.path, name)
    rmSync(target, { recursive: true, force: true })
    mkdirSync(target)
    for (const [file, data] of has) writeFileSync(join(target, file), data)
    await rsyncSucceeds(['-a', '-z', ...options, `rsync://127.0.0.1:${port.port}/m/`, target])
    assert.deepEqual(readdirSync(target).sort(), [...FILES.keys()])
    for (const [file, data] of FILES)
      assert.ok(data.equals(readFileSync(join(target, file))), `${file} is another`)
    return port.reports.at(-1)!.bytesOut
  }

  /** What the refiner does with its thread. */
  async function refine(): Promise<void> {
    for (const job of jobs.splice(0)) {
      if (job.type === 'frame') await answers.refineFrame(job.files, createBestFrame, signal)
      if (job.type === 'piece')
        await answers.refinePiece(job, (bytes, last) => squeezeBest(job.codec, bytes, last))
    }
  }

  const someOld = (): Map<string, Buffer> =>
    new Map(
      [...FILES].flatMap(([name, data]): [string, Buffer][] => {
        const what = random(4)
        if (what === 0) return []
        if (what === 1) return [[name, data.subarray(0, random(data.length + 1))]]
        const other = Buffer.from(data)
        for (let k = 0; k < 3 && data.length > 0; k++) other[random(data.length)]! ^= 0x55
        return [[name, what === 2 ? other : data]]
      }),
    )

  test('the first client, the second, and those after it was compressed better: ever fewer bytes', async () => {
    const first = await pull('first')
    const second = await pull('second')
    assert.ok(Math.abs(second - first) < first / 100, `${first}, then ${second} bytes`)
    assert.equal(port.reports.at(-1)!.figures?.reused, FILES.size)
    assert.ok(jobs.some(({ type }) => type === 'frame'))
    await refine()
    const third = await pull('third')
    assert.ok(third < 0.95 * second, `${second}, then ${third} bytes`)
    assert.deepEqual(
      jobs.filter(({ type }) => type === 'frame'),
      [],
      'nothing is left to be compressed better',
    )
  })

  test('files of a frame take fewer bytes than by themselves', async () => {
    const together = await pull('together')
    let alone = 0
    for (const name of FILES.keys()) {
      await rsyncSucceeds(['-a', '-z', `rsync://127.0.0.1:${port.port}/m/${name}`, join(scratch.path, 'one')])
      alone += port.reports.at(-1)!.bytesOut
    }
    assert.ok(together < alone, `${together} against ${alone} bytes`)
  })

  for (let round = 0; round < 5; round++) {
    test(`devices that differ, some at once, with things forgotten meanwhile: round ${round}`, async () => {
      // Of what is kept from now on some is lost at once.
      const often = random(6)
      kept.forgets = (size) => random(10) < often && (random(2) === 0 || size > 20_000)
      const olds = [someOld(), someOld()]
      await Promise.all(
        [olds[0]!, olds[1]!, olds[0]!].map((old, i) =>
          pull(
            `differs-${i}`,
            old,
            ...(random(3) === 0 ? ['-I'] : []),
            ...(random(4) === 0 ? ['--compress-level=9'] : []),
          ),
        ),
      )
      if (random(2) === 0) await refine().catch((error) => assert.match(String(error), /not kept/))
      kept.forgets = () => false
      await pull('again', olds[0]!)
    })
  }
})
