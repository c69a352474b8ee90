/** What compression is worth on the wire, with the real client: which options save bytes, and which don't. */
import assert from 'node:assert/strict'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Answers } from '../../src/rsync/answers.ts'
import { Derived } from '../../src/rsync/derived.ts'
import { Refiner } from '../../src/rsync/refiner.ts'
import { MemoryTree } from '../support/memory-tree.ts'
import { rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { listen, memoryKept, SEED, sessionContext, type TestPort } from '../support/session.ts'
import { randomBytes, repetitiveText, splice } from '../support/tree.ts'

const text = repetitiveText(10_000)
/** Of bytes that do not repeat; and with the bytes before some block boundaries said twice: less than a block. */
const noise = randomBytes(1, 400_000)
const doubled = [80, 60, 40, 20].reduce((file, block) => {
  const at = block * 4096
  return splice(file, at, 0, file.subarray(at - 3000, at))
}, noise)
let scratch: Scratch
let tree: MemoryTree
let port: TestPort
before(async () => {
  scratch = makeScratch('compression')
  tree = new MemoryTree({
    mode: 0o040755,
    children: { 'words.txt': { mode: 0o100644, data: text }, doubled: { mode: 0o100644, data: doubled } },
  })
  port = await listen(sessionContext({ m: tree }))
})
after(async () => {
  await port?.[Symbol.asyncDispose]()
  tree?.close()
  scratch?.[Symbol.dispose]()
})

// biome-ignore format: a table
const ROWS: readonly { options: readonly string[]; protocol?: number; saves: boolean }[] = [
  { options: [], saves: false },
  { options: ['-z'], saves: true },
  { options: ['-z'], protocol: 31, saves: true },
  { options: ['-z'], protocol: 29, saves: true },
  { options: ['-z', '--compress-threads=8'], saves: true },
  { options: ['-zz'], saves: true },
  { options: ['--old-compress'], saves: true },
  { options: ['--compress-choice=zstd'], saves: true },
  { options: ['--compress-choice=lz4'], saves: true },
  { options: ['--compress-choice=lz4'], protocol: 30, saves: true },
  { options: ['--compress-choice=lz4', '--compress-level=0'], saves: true },
  { options: ['--compress-choice=zstd', '--compress-level=0'], saves: true },
  { options: ['--compress-choice=zlib', '--compress-level=0'], saves: false },
  { options: ['--compress-choice=zlibx', '--compress-level=0'], saves: false },
  { options: ['--compress-choice=none'], saves: false },
  { options: ['--compress-level=9'], saves: true },
  { options: ['--old-compress', '--skip-compress=gz'], saves: true },
  { options: ['--old-compress', '--skip-compress=gz/t[xy]t'], saves: false },
  { options: ['--new-compress', '--skip-compress=TXT'], saves: false },
]
for (const [i, { options, protocol = 32, saves }] of ROWS.entries()) {
  test(`protocol ${protocol}: ${options.join(' ')}: ${saves ? 'saves' : 'does not save'} bytes`, async () => {
    const target = join(scratch.path, `words-${i}`)
    await rsyncSucceeds([...options, `rsync://127.0.0.1:${port.port}/m/words.txt`, target], { protocol })
    assert.deepEqual(readFileSync(target), text)
    const { bytesOut } = port.reports.at(-1)!
    if (saves) assert.ok(bytesOut < text.length / 4, `${bytesOut} of ${text.length} bytes`)
    else assert.ok(bytesOut > text.length, `${bytesOut} of ${text.length} bytes`)
  })
}

for (const [i, { options, protocol, saves }] of [
  { options: ['--old-compress', '-B4096'], protocol: 27, saves: true },
  { options: ['--old-compress', '-B4096'], protocol: 29, saves: true },
  { options: ['--old-compress', '-B4096'], protocol: 32, saves: true },
  // From blocks of more than 65535 bytes a client below protocol 31 feeds other bytes into its window.
  { options: ['--old-compress', '-B70000'], protocol: 29, saves: false },
  { options: ['--old-compress', '-B70000'], protocol: 30, saves: false },
  { options: ['--old-compress', '-B70000'], protocol: 32, saves: false },
  { options: ['--new-compress', '-B4096'], protocol: 32, saves: false },
].entries()) {
  const what = saves ? 'refers' : 'does not refer'
  test(`protocol ${protocol}: ${options.join(' ')}: literal data ${what} to blocks that the client has`, async () => {
    const target = join(scratch.path, `doubled-${i}`)
    writeFileSync(target, noise)
    const from = `rsync://127.0.0.1:${port.port}/m/doubled`
    await rsyncSucceeds([...options, '-I', '--no-whole-file', from, target], { protocol })
    assert.deepEqual(readFileSync(target), doubled)
    const { bytesOut, figures } = port.reports.at(-1)!
    const literal = figures?.literalBytes ?? 0
    assert.ok(literal >= 12_000 && literal < doubled.length)
    if (saves) assert.ok(bytesOut < literal / 2, `${bytesOut} for ${literal} literal bytes`)
  })
}

/** Of all kinds, more than one piece of it, with what refers back as far as deflate does. */
const window = randomBytes(7, 32_768)
const mixed = Buffer.concat([
  repetitiveText(12_000),
  window,
  window,
  Buffer.alloc(300_000),
  readFileSync(process.execPath).subarray(0, 900_000),
  randomBytes(8, 100_000).map((byte) => byte % 20),
])

test('what zlib clients get once it was compressed as well as can be: the same in fewer bytes', async (t) => {
  const tree = new MemoryTree({ mode: 0o040755, children: { mixed: { mode: 0o100644, data: mixed } } })
  const kept = memoryKept(64 * 2 ** 20)
  const derived = new Derived({ kept, checksumSeed: SEED })
  const refiner = new Refiner((problem) => assert.fail(problem))
  const answers = new Answers({ derived, kept, onQuick: (job) => refiner.add(job) })
  refiner.serve(answers)
  const port = await listen(sessionContext({ m: tree }, { derived, answers }))
  t.after(async () => {
    await port[Symbol.asyncDispose]()
    await refiner.close()
    await derived.close()
    tree.close()
  })
  /** Long runs that lie between blocks which the client has, and short ones. */
  const older = Buffer.concat([
    mixed.subarray(0, 340_000),
    randomBytes(9, 700_000),
    mixed.subarray(1_000_000),
  ])
  for (let at = 20_000; at < older.length; at += 30_000) older[at]! ^= 0x55
  for (const choice of ['--old-compress', '--new-compress']) {
    for (const basis of [undefined, older]) {
      const sent: number[] = []
      for (const protocol of [27, 29, 30, 31, 32, 32]) {
        const target = join(scratch.path, 'mixed')
        rmSync(target, { force: true })
        if (basis) writeFileSync(target, basis)
        const args = [
          choice,
          '-B4096',
          '-I',
          '--no-whole-file',
          `rsync://127.0.0.1:${port.port}/m/mixed`,
          target,
        ]
        await rsyncSucceeds(args, { protocol })
        assert.ok(mixed.equals(readFileSync(target)), `${choice}, protocol ${protocol}: another file`)
        sent.push(port.reports.at(-1)!.bytesOut)
        await refiner.idle()
      }
      const [quick, best] = [sent[0]!, sent.at(-1)!]
      assert.ok(best < 0.98 * quick, `${quick}, then ${best} bytes`)
    }
  }
})
