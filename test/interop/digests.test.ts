/**
 * Digests of whole files: which ones need a file to be read, and that none is read for one twice.
 *
 * `-c` is what a fleet asks for after a clock went wrong: the digest of every file of a build. Those that
 * stand in the manifest cost nothing; others are worked out for the first client and kept.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Cache } from '../../src/cache/cache.ts'
import { StoreError } from '../../src/errors.ts'
import { BlockPool } from '../../src/lib/block-pool.ts'
import { Derived } from '../../src/rsync/derived.ts'
import { Lists } from '../../src/rsync/lists.ts'
import type { Content } from '../../src/rsync/tree.ts'
import { MemoryTree } from '../support/memory-tree.ts'
import { rsync, rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { listen, SEED, sessionContext } from '../support/session.ts'
import { randomBytes } from '../support/tree.ts'

/** A tree whose files can be read until somebody says no more. */
class LockableTree extends MemoryTree {
  locked = false
  opened = 0

  override open(node: number): Promise<Content> {
    this.opened++
    if (this.locked) return Promise.reject(new StoreError('no file of this tree may be read'))
    return super.open(node)
  }
}

let scratch: Scratch
let tree: LockableTree
let device: string
const files = Object.fromEntries(
  // Small ones are worked on in the event loop, large ones in a thread.
  [0, 1, 1000, 65_536, 65_537, 300_000].map((size) => [
    `file-${size}`,
    { mode: 0o100644, mtime: 1_700_000_000, data: randomBytes(size + 1, size) },
  ]),
)

before(async () => {
  scratch = makeScratch('digests')
  tree = new LockableTree({ mode: 0o040755, mtime: 1_700_000_000, children: files })
  device = join(scratch.path, 'device')
  await using port = await listen(sessionContext({ m: tree }))
  await rsyncSucceeds(['-a', `rsync://127.0.0.1:${port.port}/m/`, device])
})
after(() => {
  tree?.close()
  scratch?.[Symbol.dispose]()
})

// biome-ignore format: a table
const RECORDED: readonly { protocol: number; options: string[] }[] = [
  { protocol: 32, options: [] },
  { protocol: 31, options: [] },
  { protocol: 30, options: [] },
  { protocol: 30, options: ['--checksum-choice=md5'] },
  { protocol: 32, options: ['--checksum-choice=md5'] },
  { protocol: 32, options: ['--checksum-choice=xxh128'] },
  { protocol: 32, options: ['--checksum-choice=auto'] },
  { protocol: 32, options: ['--checksum-choice=xxh64,md5'] },
  { protocol: 32, options: ['--checksum-choice=none,xxh128'] },
]
for (const { protocol, options } of RECORDED) {
  test(`protocol ${protocol}: -c ${options.join(' ')} reads no file`, async () => {
    await using port = await listen(sessionContext({ m: tree }))
    tree.locked = true
    try {
      const url = `rsync://127.0.0.1:${port.port}/m/`
      // Other times: without -c all would be asked for.
      const args = ['-a', '-c', '--no-times', '--stats', ...options, url, device]
      const { stdout } = await rsyncSucceeds(args, { protocol })
      assert.match(stdout, /^Number of regular files transferred: 0$/m)
      assert.equal(port.reports[0]!.outcome, 'done')
    } finally {
      tree.locked = false
    }
  })
}

// biome-ignore format: a table
const WORKED_OUT: readonly { protocol: number; options: string[] }[] = [
  { protocol: 27, options: [] },
  { protocol: 29, options: [] },
  { protocol: 30, options: ['--checksum-choice=md4'] },
  { protocol: 31, options: ['--checksum-choice=sha1'] },
  { protocol: 32, options: ['--checksum-choice=xxh64'] },
  { protocol: 32, options: ['--checksum-choice=xxh3'] },
  { protocol: 32, options: ['--checksum-choice=xxhash'] },
  { protocol: 32, options: ['--checksum-choice=md5,sha1'] },
]
for (const { protocol, options } of WORKED_OUT) {
  test(`protocol ${protocol}: -c ${options.join(' ')} reads each file once, also over a restart`, async () => {
    using data = makeScratch('kept-digests')
    const run = async (): Promise<string> => {
      // As a server has it that starts on this data directory.
      const kept = Cache.open({ directory: data.path, limit: 2 ** 30, pool: new BlockPool(2 ** 20) })
      await kept.ready
      const derived = new Derived({ kept, checksumSeed: SEED })
      const lists = new Lists(derived, kept)
      await using port = await listen(sessionContext({ m: tree }, { derived, lists }))
      const url = `rsync://127.0.0.1:${port.port}/m/`
      const { stdout } = await rsyncSucceeds(['-ac', '--stats', ...options, url, device], { protocol })
      await derived.close()
      await kept.close()
      return stdout
    }
    tree.opened = 0
    assert.match(await run(), /^Number of regular files transferred: 0$/m)
    assert.equal(tree.opened, Object.keys(files).length, 'each file is read once')
    tree.locked = true
    try {
      assert.match(await run(), /^Number of regular files transferred: 0$/m)
      assert.equal(tree.opened, Object.keys(files).length, 'and never again')
    } finally {
      tree.locked = false
    }
  })
}

test('a seed that a client brings keeps nothing', async () => {
  let kept = 0
  const derived = new Derived({
    kept: { get: () => undefined, peek: () => undefined, put: () => kept++ >= 0 },
    checksumSeed: SEED,
  })
  await using port = await listen(sessionContext({ m: tree }, { derived }))
  const url = `rsync://127.0.0.1:${port.port}/m/file-1000`
  for (const options of [['--checksum-seed=7'], []]) {
    const target = join(scratch.path, `seed-${options.length}`)
    await rsyncSucceeds(['-a', ...options, url, target], { protocol: 29 })
    assert.equal(kept, options.length > 0 ? 0 : 1)
  }
  await derived.close()
})

test('a file that differs is found by -c and sent, whatever its digest is called', async () => {
  await using port = await listen(sessionContext({ m: tree }))
  const url = `rsync://127.0.0.1:${port.port}/m/file-1000`
  const wrong = join(scratch.path, 'wrong')
  for (const choice of [
    'md4',
    'md5',
    'sha1',
    'xxh64',
    'xxh3',
    'xxh128',
    'xxh64,md5',
    'none,sha1',
    'md5,auto',
  ]) {
    const target = `${wrong}-${choice}`
    writeFileSync(target, Buffer.alloc(1000))
    const { stdout } = await rsyncSucceeds(['-ac', '-i', `--checksum-choice=${choice}`, url, target])
    assert.match(stdout, /^>fc/m, choice)
    const again = await rsyncSucceeds(['-ac', '-i', `--checksum-choice=${choice}`, url, target])
    assert.equal(again.stdout, '', choice)
  }
})

test('-c without a checksum is refused', async () => {
  await using port = await listen(sessionContext({ m: tree }))
  const url = `rsync://127.0.0.1:${port.port}/m/`
  for (const choice of ['none', 'md5,none']) {
    const { code } = await rsync(['-ac', `--checksum-choice=${choice}`, url, device])
    assert.equal(code, 4, choice)
    assert.equal(port.reports.at(-1)!.outcome, 'refused')
  }
})
