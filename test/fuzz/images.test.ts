/** Images and archives of which bytes are other than they were: read, or refused with an ArchiveError; never more. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CpioReader } from '../../src/archive/cpio.ts'
import { readExt } from '../../src/archive/ext.ts'
import { ArchiveError } from '../../src/errors.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { kindOf } from '../support/campaign.ts'
import { pick, randomOf, rounds, seedOfRun } from '../support/random.ts'
import { makeScratch } from '../support/scratch.ts'
import { RecordingSink } from '../support/tar-builder.ts'

/** Of each form, in a round. */
const RUNS = 1500
/** A file of holes can be said to be of any size: what comes of it is bounded by who takes it. */
const MOST_STEPS = 2000

const SEED = seedOfRun()

class Bounded extends RecordingSink {
  bytes = 0
  override data(chunk: Uint8Array): void {
    this.bytes += chunk.length
    if (this.bytes > 64 << 20) throw new ArchiveError('enough')
    super.data(chunk)
  }
}

function makeInputs(directory: string): Record<string, { bytes: Buffer; hot: number[] }> {
  const tree = join(directory, 'tree')
  mkdirSync(join(tree, 'dir'), { recursive: true })
  for (let n = 0; n < 20; n++) writeFileSync(join(tree, 'dir', `file-${n}`), 'x'.repeat(n * 90))
  symlinkSync('dir/file-1', join(tree, 'link'))
  const sh = (script: string): void =>
    assert.equal(spawnSync('sh', ['-c', script], { cwd: directory }).status, 0)
  sh(
    'truncate -s 512K ext4 && /usr/sbin/mke2fs -q -F -t ext4 -O ^has_journal,inline_data -I 256 -d tree ext4',
  )
  sh('truncate -s 512K ext2 && /usr/sbin/mke2fs -q -F -t ext2 -b 1024 -d tree ext2')
  sh('cd tree && find . | cpio --quiet -o -H newc > ../newc && find . | cpio --quiet -o -H odc > ../odc')
  return Object.fromEntries(
    ['ext4', 'ext2', 'newc', 'odc'].map((name) => {
      const bytes = readFileSync(join(directory, name))
      // Most of an image is free space: what is not zero is what matters.
      return [name, { bytes, hot: [...bytes.keys()].filter((at) => bytes[at] !== 0) }]
    }),
  )
}

const skip = (await findProgram('cpio')) === undefined && 'needs cpio'

test('bytes that are others', { skip }, (t) => {
  using scratch = makeScratch('images')
  t.diagnostic(`FUZZ_SEED=${SEED}`)
  const inputs = Object.entries(makeInputs(scratch.path))
  const outcomes = new Set<string>()
  let cases = 0
  for (const seed of rounds(SEED)) {
    const random = randomOf(seed)
    for (const [name, { bytes, hot }] of inputs) {
      for (let run = 0; run < RUNS; run++, cases++) {
        const damaged = Buffer.from(bytes)
        for (let n = 0; n < 1 + random(3); n++) damaged[pick(random, hot)] = random(256)
        try {
          read(name, damaged)
          outcomes.add('read')
        } catch (error) {
          if (!(error instanceof ArchiveError))
            throw new Error(`FUZZ_SEED=${seed}, ${name}, run ${run}: ${(error as Error).stack}`, {
              cause: error,
            })
          outcomes.add(kindOf(error))
        }
      }
      read(name, bytes)
    }
  }
  t.diagnostic(`${cases} cases, ${outcomes.size} kinds of outcome`)
})

function read(name: string, bytes: Buffer): void {
  const sink = new Bounded()
  if (name.startsWith('ext')) {
    let steps = 0
    for (const _ of readExt((position, length) => bytes.subarray(position, position + length), sink)) {
      if (++steps > MOST_STEPS) throw new ArchiveError('enough')
    }
    return
  }
  const reader = new CpioReader(sink)
  for (let at = 0; at < bytes.length; at += 777) reader.write(bytes.subarray(at, at + 777))
  reader.end()
}
