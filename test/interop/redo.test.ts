/**
 * Redo: what the client built does not match the file's digest, so it asks again, with sums of full length.
 *
 * Made to happen by a basis that changes once its sums have been sent: when our side begins to answer, the
 * client's receiver has not sent its basis yet.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Answers } from '../../src/rsync/answers.ts'
import { createBestFrame } from '../../src/rsync/codecs.ts'
import { Derived } from '../../src/rsync/derived.ts'
import { createBlockSum, prepareBlockSum } from '../../src/rsync/digests.ts'
import { Refiner } from '../../src/rsync/refiner.ts'
import { chanceTwins } from '../support/chance.ts'
import { MemoryTree } from '../support/memory-tree.ts'
import { PROTOCOLS, parseStats, rsyncEnds } from '../support/rsync.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { listen, memoryKept, SEED, sessionContext, type TestPort } from '../support/session.ts'
import { randomBytes, splice } from '../support/tree.ts'

const older = randomBytes(300, 200_000)
const newer = splice(older, 100_000, 0, randomBytes(301, 500))
/** The basis with a byte of its first block changed: the sums that were sent are wrong now. */
const spoilt = splice(older, 10, 1, Buffer.from([older[10]! ^ 1]))

/** Tells when a file's data is about to be sent. */
class WatchedTree extends MemoryTree {
  onSent: () => void = () => {}

  sent(): void {
    this.onSent()
  }
}

let scratch: Scratch
let tree: WatchedTree
let port: TestPort
before(async () => {
  scratch = makeScratch('redo')
  const file = { mode: 0o100644, data: newer, mtime: 1_700_000_000 }
  tree = new WatchedTree({ mode: 0o040755, children: { file, other: file } })
  port = await listen(sessionContext({ m: tree }))
})
after(async () => {
  await port?.[Symbol.asyncDispose]()
  tree?.close()
  scratch?.[Symbol.dispose]()
})

let devices = 0
function deviceWith(basis: Buffer): { device: string; path: string } {
  const device = join(scratch.path, `device-${++devices}`)
  const path = join(device, 'file')
  mkdirSync(device)
  writeFileSync(path, basis)
  utimesSync(path, 1, 1)
  return { device, path }
}

for (const protocol of PROTOCOLS) {
  // One after the other: they share the tree and its hook.
  describe(`protocol ${protocol}`, { concurrency: 1 }, () => {
    for (const options of [[], ['-z'], ['--inplace'], ['--delay-updates'], ['-B', '2000']]) {
      const how = ['-a', ...options].join(' ')

      test(`protocol ${protocol}: ${how}: a basis that changes once is asked for again`, async () => {
        const { device, path } = deviceWith(older)
        let sent = 0
        tree.onSent = () => {
          if (++sent === 1) writeFileSync(path, spoilt)
        }
        const source = `rsync://127.0.0.1:${port.port}/m/file`
        const args = ['-av', '--stats', ...options, source, `${device}/`]
        const { stdout, stderr } = await rsyncEnds(0, args, { protocol })
        assert.match(stdout + stderr, /WARNING: file failed verification -- update (discarded|retained)/)
        assert.match(stdout + stderr, /will try again/)
        assert.deepEqual(readFileSync(path), newer)
        assert.equal(parseStats(stdout).transferred, 2)
        const { outcome, figures } = port.reports.at(-1)!
        assert.equal(outcome, 'done')
        assert.equal(figures.files, 2)
      })
    }

    test(`protocol ${protocol}: a basis that changes every time ends with 23, the next file is right`, async () => {
      const { device, path } = deviceWith(older)
      let sent = 0
      tree.onSent = () => {
        // Each time in another block, of those that the client is about to rely on.
        const at = 5000 * ++sent
        writeFileSync(path, splice(older, at, 1, Buffer.from([older[at]! ^ 1])))
      }
      const source = `rsync://127.0.0.1:${port.port}/m/`
      const { stdout, stderr } = await rsyncEnds(23, ['-a', source, `${device}/`], { protocol })
      assert.match(stdout + stderr, /ERROR: file failed verification -- update discarded/)
      assert.deepEqual(readFileSync(join(device, 'other')), newer)
    })

    test(`protocol ${protocol}: --append with verification starts over where the beginning is wrong`, async () => {
      tree.onSent = () => {}
      const { device, path } = deviceWith(spoilt.subarray(0, 90_000))
      const append = protocol < 30 ? '--append' : '--append-verify'
      const source = `rsync://127.0.0.1:${port.port}/m/file`
      await rsyncEnds(0, ['-a', append, source, `${device}/`], { protocol })
      assert.deepEqual(readFileSync(path), newer)
      assert.equal(port.reports.at(-1)!.figures.files, 2)
    })
  })
}

test('a frame that is compressed better while one of its files is asked for again: all get the right bytes', async (t) => {
  // So large that its frame ends with it, and is compressed better before the session comes to the redo.
  const large = Buffer.alloc(8 * 2 ** 20, 'what all of it is made of, ')
  large.set(randomBytes(303, 200_000), 1000)
  const held = new WatchedTree({
    mode: 0o040755,
    children: {
      file: { mode: 0o100644, data: newer, mtime: 1_700_000_000 },
      large: { mode: 0o100644, data: large, mtime: 1_700_000_000 },
    },
  })
  const kept = memoryKept(64 * 2 ** 20)
  const derived = new Derived({ kept, checksumSeed: SEED })
  const refining: Promise<void>[] = []
  const answers: Answers = new Answers({
    derived,
    kept,
    onQuick: (job) => {
      if (job.type === 'frame')
        refining.push(answers.refineFrame(job.files, createBestFrame, new AbortController().signal))
    },
  })
  await using served = await listen(sessionContext({ m: held }, { derived, answers }))
  t.after(async () => {
    await derived.close()
    held.close()
  })
  for (const isSpoilt of [true, false, true, false]) {
    const { device, path } = deviceWith(older)
    let files = 0
    held.onSent = () => {
      if (++files === 1 && isSpoilt) writeFileSync(path, spoilt)
    }
    const source = `rsync://127.0.0.1:${served.port}/m/`
    const { stdout } = await rsyncEnds(0, ['-avz', '--stats', source, `${device}/`])
    assert.ok(readFileSync(path).equals(newer))
    assert.ok(readFileSync(join(device, 'large')).equals(large))
    assert.equal(parseStats(stdout).transferred, isSpoilt ? 3 : 2)
    assert.ok(refining.length > 0, 'it began while the first client was there')
    assert.equal(files, isSpoilt ? 3 : 2)
    await Promise.all(refining)
  }
})

const BLOCK = 700

describe('a block that is taken for another by its short sums', { concurrency: 1 }, () => {
  for (const { protocol, options, rule } of [
    { protocol: 32, options: [], rule: { name: 'xxh128', seed: SEED, seedFirst: true } },
    { protocol: 32, options: ['-z'], rule: { name: 'xxh128', seed: SEED, seedFirst: true } },
    { protocol: 31, options: ['-zz'], rule: { name: 'xxh128', seed: SEED, seedFirst: true } },
    { protocol: 30, options: ['--checksum-choice=md5'], rule: { name: 'md5', seed: SEED, seedFirst: true } },
    { protocol: 29, options: ['-z'], rule: { name: 'md4-seeded', seed: SEED, seedFirst: true } },
  ] as const) {
    const how = [`--protocol=${protocol}`, ...options].join(' ')

    test(`${how}: one device asks twice, and no other one after it`, async (t) => {
      await prepareBlockSum(rule)
      const [twin, its] = chanceTwins(7, BLOCK, createBlockSum(rule))
      const basis = splice(older, 100 * BLOCK, BLOCK, twin)
      const data = splice(splice(basis, 100 * BLOCK, BLOCK, its), 0, 0, randomBytes(302, 99))
      const held = new MemoryTree({
        mode: 0o040755,
        children: { file: { mode: 0o100644, data, mtime: 1_700_000_000 } },
      })
      const kept = memoryKept()
      const derived = new Derived({ kept, checksumSeed: SEED })
      // What is compressed again behind the first device's back must not bring the match back.
      const refiner = new Refiner((problem) => assert.fail(problem))
      const answers = new Answers({ derived, kept, onQuick: (job) => refiner.add(job) })
      refiner.serve(answers)
      await using served = await listen(sessionContext({ m: held }, { derived, answers }))
      t.after(async () => {
        await refiner.close()
        await derived.close()
        held.close()
      })
      const literal: number[] = []
      for (const transferred of [2, 1, 1]) {
        const { device, path } = deviceWith(basis)
        const source = `rsync://127.0.0.1:${served.port}/m/file`
        const { stdout } = await rsyncEnds(0, ['-av', '--stats', ...options, source, `${device}/`], {
          protocol,
        })
        assert.deepEqual(readFileSync(path), data)
        assert.equal(parseStats(stdout).transferred, transferred)
        literal.push(served.reports.at(-1)!.figures.literalBytes)
        await refiner.idle()
      }
      const exact = 99 + BLOCK
      assert.deepEqual(literal, [99 + exact, exact, exact])
      assert.equal(served.reports.at(-1)!.figures.searched, 0)
    })
  }
})
