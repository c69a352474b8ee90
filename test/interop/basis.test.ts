/**
 * What a client may have already: an older file, a part of the file, a file elsewhere. Each way must end
 * in the right file, and with as few literal bytes as the stock daemon's answer would hold.
 */
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { PROTOCOLS, parseStats, type RsyncStats, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { assertSameTree, carriedBy, snapshot } from '../support/snapshot.ts'
import { randomBytes, repetitiveText, SpecWriter, splice } from '../support/tree.ts'

const LATER = 1_300_000_000

const SIZE = 1_000_000
const original = randomBytes(100, SIZE)

/** How `file` of build 2 differs from that of build 1, and the most literal bytes that may cost. */
// biome-ignore format: a table
const EDITS = [
  { name: 'inserted at the start', content: splice(original, 0, 0, randomBytes(101, 1_000)), literal: 1_000 },
  { name: 'inserted in the middle', content: splice(original, 500_123, 0, randomBytes(102, 777)), literal: 777 },
  { name: 'appended', content: splice(original, SIZE, 0, randomBytes(103, 4_321)), literal: 4_321 },
  { name: 'deleted at the start', content: splice(original, 0, 12_345, Buffer.alloc(0)), literal: 0 },
  { name: 'deleted in the middle', content: splice(original, 600_001, 9_999, Buffer.alloc(0)), literal: 0 },
  { name: 'deleted at the end', content: splice(original, SIZE - 5_000, 5_000, Buffer.alloc(0)), literal: 0 },
  { name: 'one byte overwritten', content: splice(original, 333_333, 1, Buffer.from('!')), literal: 1 },
  { name: 'overwritten in places', content: overwriteInPlaces(), literal: 500 },
  { name: 'halves swapped', content: splice(original.subarray(SIZE / 2), SIZE / 2, 0, original.subarray(0, SIZE / 2)), literal: 0 },
  { name: 'said twice', content: Buffer.concat([original, original]), literal: 0 },
]

/** A literal run reaches from one block border to another: up to two blocks of about 1,000 bytes per edit. */
const BLOCK_SLACK = 12 * 2 * 1_000

const build1 = new SpecWriter()
const build2 = new SpecWriter()
build1.directory('')
build2.directory('')
for (const { name, content } of EDITS) {
  build1.file(name, original)
  build2.file(name, content, { mtime: LATER })
}
build1.file('untouched', randomBytes(104, 200_000))
build2.file('untouched', randomBytes(104, 200_000))
build1.file('zeros', Buffer.alloc(400_000))
build2.file('zeros', Buffer.alloc(500_000), { mtime: LATER })
build1.file('repeats', Buffer.alloc(300_000, 'abcdefg'))
build2.file(
  'repeats',
  Buffer.concat([Buffer.alloc(150_000, 'abcdefg'), Buffer.from('-'), Buffer.alloc(150_000, 'abcdefg')]),
  { mtime: LATER },
)
build1.file('text', repetitiveText(5_000))
build2.file('text', Buffer.concat([repetitiveText(4_000), repetitiveText(6_000)]), { mtime: LATER })
build1.file('grew-from-nothing', Buffer.alloc(0))
build2.file('grew-from-nothing', randomBytes(105, 10_000), { mtime: LATER })

let server: TestServer
before(async () => {
  server = await startServer({ 1: build1.spec, 2: build2.spec })
})
after(() => server?.stop())

const root = (id: string): string => `${server.url}/build-${id}/root/`

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 3 }, () => {
    const tolerance = carriedBy(protocol)

    async function updated(
      name: string,
      options: readonly string[],
    ): Promise<{ device: string; stats: RsyncStats }> {
      const device = server.place(name)
      await rsyncSucceeds(['-a', root('1'), device], { protocol })
      const args = ['-a', ...options, '--stats', root('2'), device]
      const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
      assertSameTree(server.snapshotOf('2'), snapshot(device), tolerance)
      return { device, stats }
    }

    test(`protocol ${protocol}: each kind of edit costs little more than itself`, async () => {
      const device = server.place('edits')
      await rsyncSucceeds(['-a', root('1'), device], { protocol })
      for (const { name, content, literal } of EDITS) {
        const source = `${root('2')}${name}`
        const { stdout } = await rsyncSucceeds(['-a', '--stats', source, `${device}/`], { protocol })
        const stats = parseStats(stdout)
        assert.equal(stats.literal + stats.matched, content.length, name)
        assert.ok(stats.literal <= literal + BLOCK_SLACK, `${name}: ${stats.literal} literal bytes`)
        assert.deepEqual(readFileSync(join(device, name)), content, name)
      }
    })

    for (const options of [['--inplace'], ['-B', '512'], ['-B', '65536'], ['-z'], ['-c'], ['-I']]) {
      test(`protocol ${protocol}: delta with ${options.join(' ')}`, async () => {
        const { stats } = await updated('delta', options)
        assert.ok(stats.matched > 9_000_000, `${stats.matched} bytes matched`)
      })
    }

    test(`protocol ${protocol}: --inplace -B where the data moves backwards and forwards`, async () => {
      const { stats } = await updated('inplace', ['--inplace', '-B', '1000'])
      assert.ok(stats.matched > 5_000_000, `${stats.matched} bytes matched`)
    })

    for (const append of protocol < 30 ? ['--append'] : ['--append', '--append-verify']) {
      test(`protocol ${protocol}: ${append} sends only the tail`, async () => {
        const device = server.place('append', 'make')
        const name = 'appended'
        writeFileSync(join(device, name), original)
        const source = `${root('2')}${name}`
        const { stdout } = await rsyncSucceeds(['-a', append, '--stats', source, `${device}/`], { protocol })
        assert.deepEqual(readFileSync(join(device, name)), EDITS.find((edit) => edit.name === name)!.content)
        assert.equal(parseStats(stdout).literal, 4_321)
      })

      test(`protocol ${protocol}: ${append} on a beginning that is wrong`, async () => {
        const device = server.place('append-wrong', 'make')
        const name = 'appended'
        writeFileSync(join(device, name), splice(original, 1_000, 1, Buffer.from([original[1_000]! ^ 1])))
        await rsyncSucceeds(['-a', append, `${root('2')}${name}`, `${device}/`], { protocol })
        const arrived = readFileSync(join(device, name))
        const right = EDITS.find((edit) => edit.name === name)!.content
        // Since 30, --append trusts the beginning; before it, and with -verify, the sum tells and all is sent again.
        const trusts = append === '--append' && protocol >= 30
        assert.equal(arrived.equals(right), !trusts)
        assert.equal(arrived.length, right.length)
      })
    }

    test(`protocol ${protocol}: --partial goes on from what an earlier try left`, async () => {
      const device = server.place('partial', 'make')
      const name = 'untouched'
      writeFileSync(join(device, name), randomBytes(104, 150_000))
      utimesSync(join(device, name), 1, 1)
      const source = `${root('1')}${name}`
      const { stdout } = await rsyncSucceeds(['-a', '--partial', '--stats', source, `${device}/`], {
        protocol,
      })
      const stats = parseStats(stdout)
      assert.deepEqual(readFileSync(join(device, name)), randomBytes(104, 200_000))
      assert.ok(stats.matched >= 149_000 && stats.literal <= 51_000, JSON.stringify(stats))
    })

    test(`protocol ${protocol}: --partial-dir holds a basis`, async () => {
      const device = server.place('partial-dir', 'make')
      mkdirSync(join(device, '.parts'))
      writeFileSync(join(device, '.parts', 'untouched'), randomBytes(104, 150_000))
      const args = ['-a', '--partial-dir=.parts', '--stats', `${root('1')}untouched`, `${device}/`]
      const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
      assert.deepEqual(readFileSync(join(device, 'untouched')), randomBytes(104, 200_000))
      assert.ok(stats.matched >= 149_000, JSON.stringify(stats))
    })

    const skip = protocol < 29 ? '--fuzzy came with 29' : false
    test(`protocol ${protocol}: --fuzzy takes a file with a similar name`, { skip }, async () => {
      const device = server.place('fuzzy', 'make')
      writeFileSync(join(device, 'untouched.old'), randomBytes(104, 200_000))
      utimesSync(join(device, 'untouched.old'), 1, 1)
      const args = ['-a', '--fuzzy', '--stats', `${root('1')}untouched`, `${device}/`]
      const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
      assert.deepEqual(readFileSync(join(device, 'untouched')), randomBytes(104, 200_000))
      assert.equal(stats.literal, 0)
    })

    for (const kind of ['--compare-dest', '--copy-dest', '--link-dest']) {
      test(`protocol ${protocol}: ${kind}`, async () => {
        const older = server.place('older')
        const device = server.place('newer')
        await rsyncSucceeds(['-a', root('1'), older], { protocol })
        const args = ['-a', `${kind}=${older}`, '--stats', root('2'), device]
        const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
        const expected = new Map(server.snapshotOf('2'))
        if (kind === '--compare-dest')
          for (const path of expected.keys()) if (path === 'untouched') expected.delete(path)
        assertSameTree(expected, snapshot(device), { ...tolerance, hardLinks: 'ignored' })
        assert.ok(stats.matched > 9_000_000, `${stats.matched} bytes matched`)
      })
    }

    test(`protocol ${protocol}: a basis that is shorter than a block, longer than the file, or empty`, async () => {
      const device = server.place('odd-bases', 'make')
      for (const [name, size] of [
        ['zeros', 1],
        ['text', 0],
        ['appended', 699],
        ['repeats', 1_000_000],
      ] as const) {
        copyFileSync(join(server.treeOf('1'), name), join(device, name))
        truncateSync(join(device, name), size)
      }
      await rsyncSucceeds(['-a', root('2'), device], { protocol })
      assertSameTree(server.snapshotOf('2'), snapshot(device), tolerance)
    })
  })
}

function overwriteInPlaces(): Buffer {
  const content = Buffer.from(original)
  for (let place = 0; place < 10; place++) randomBytes(110 + place, 50).copy(content, 50_000 + place * 95_000)
  return content
}
