/**
 * What a device does: the first sync of a build, a poll that finds nothing new, the step to the next
 * build. With the real client at every protocol; trees are compared exactly.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { PROTOCOLS, parseStats, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { assertSameTree, carriedBy, type Snapshot, snapshot } from '../support/snapshot.ts'
import { EDITED_FILES, firstBuild, SILENTLY_CHANGED, secondBuild } from '../support/tree.ts'

const DELETES = ['--delete-before', '--delete-during', '--delete-delay', '--delete-after']

/** A client spends most of its time waiting for the other side, so a few fit into one processor. */
const CONCURRENCY = 3

let server: TestServer
before(async () => {
  const first = firstBuild()
  server = await startServer({ 1: first, 2: secondBuild(first) })
})
after(() => server?.stop())

const root = (id: string): string => `${server.url}/build-${id}/root/`

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: CONCURRENCY }, () => {
    const tolerance = carriedBy(protocol)

    test(`protocol ${protocol}: first sync, then a poll that finds nothing`, async () => {
      const device = server.place('first')
      const full = await rsyncSucceeds(['-aH', '--stats', root('1'), device], { protocol })
      assertSameTree(server.snapshotOf('1'), snapshot(device), tolerance)
      assert.equal(parseStats(full.stdout).matched, 0)

      const poll = await rsyncSucceeds(['-aH', '--itemize-changes', root('1'), device], { protocol })
      assert.equal(poll.stdout, '', 'a poll of what is there already changes something')
      const { literal, transferred } = parseStats(
        (await rsyncSucceeds(['-aH', '--stats', root('1'), device], { protocol })).stdout,
      )
      assert.deepEqual({ literal, transferred }, { literal: 0, transferred: 0 })
    })

    test(`protocol ${protocol}: -ii names every entry as unchanged`, async () => {
      const device = server.place('itemized')
      await rsyncSucceeds(['-aH', root('1'), device], { protocol })
      const { stdout } = await rsyncSucceeds(['-aH', '-ii', root('1'), device], { protocol })
      const lines = stdout.split('\n').filter((line) => line !== '')
      assert.equal(lines.length, server.snapshotOf('1').size)
      for (const line of lines) assert.match(line, /^[.h][fdLDS] {10}/)
    })

    for (const when of DELETES) {
      test(`protocol ${protocol}: to the next build with ${when}`, async () => {
        const device = server.place('update')
        await rsyncSucceeds(['-aH', root('1'), device], { protocol })
        const args = ['-aH', when, '--stats', root('2'), device]
        const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
        assertSameTree(keepingSilent(), snapshot(device), tolerance)
        assert.ok(stats.matched > 4_000_000, `only ${stats.matched} bytes were found in the old files`)
        assert.ok(stats.literal < 400_000, `${stats.literal} literal bytes for a small change`)
        if (protocol >= 31) assert.ok(stats.deleted > 5, `${stats.deleted} deletions`)
      })
    }

    test(`protocol ${protocol}: to the next build with -c sees what has equal size and time`, async () => {
      const device = server.place('checksum')
      await rsyncSucceeds(['-aH', root('1'), device], { protocol })
      await rsyncSucceeds(['-aHc', '--delete', root('2'), device], { protocol })
      assertSameTree(server.snapshotOf('2'), snapshot(device), tolerance)
      const poll = await rsyncSucceeds(['-aHc', '-i', root('2'), device], { protocol })
      assert.equal(poll.stdout, '')
    })

    test(`protocol ${protocol}: --delete-excluded and protected files`, async () => {
      const device = server.place('excluded')
      await rsyncSucceeds(['-aH', root('1'), device], { protocol })
      const excludes = ['--exclude=/names/', '--exclude=level-3']
      await rsyncSucceeds(['-aHc', '--delete', ...excludes, root('2'), device], { protocol })
      const isExcluded = (path: string): boolean => /^names(\/|$)|(^|\/)level-3(\/|$)/.test(path)
      assertSameTree(
        mix(server.snapshotOf('1'), server.snapshotOf('2'), isExcluded),
        snapshot(device),
        tolerance,
      )
      await rsyncSucceeds(['-aHc', '--delete-excluded', ...excludes, root('2'), device], { protocol })
      assertSameTree(mix(new Map(), server.snapshotOf('2'), isExcluded), snapshot(device), tolerance)
    })

    test(`protocol ${protocol}: -n tells all and changes nothing`, async () => {
      const device = server.place('dry-run')
      await rsyncSucceeds(['-aH', root('1'), device], { protocol })
      const untouched = snapshot(device)
      const dry = await rsyncSucceeds(['-aHn', '--delete', '-i', root('2'), device], { protocol })
      assertSameTree(untouched, snapshot(device))
      for (const path of EDITED_FILES) assert.match(dry.stdout, new RegExp(`^>f\\S+ ${path}$`, 'm'))
      assert.match(dry.stdout, /^\*deleting +data\/removed$/m)

      const real = await rsyncSucceeds(['-aH', '--delete', '-i', root('2'), device], { protocol })
      // Directory times and further names of a hard link are told differently once they are real.
      const changed = (text: string): string[] =>
        text
          .split('\n')
          .filter((line) => /^[>c*]/.test(line))
          .sort()
      assert.deepEqual(changed(dry.stdout), changed(real.stdout), 'the dry run told something else')
    })

    test(`protocol ${protocol}: back to the older build`, async () => {
      const device = server.place('back')
      await rsyncSucceeds(['-aH', root('2'), device], { protocol })
      await rsyncSucceeds(['-aHc', '--delete', root('1'), device], { protocol })
      // rsync joins files but never parts them again when nothing else is different.
      assertSameTree(server.snapshotOf('1'), snapshot(device), { ...tolerance, hardLinks: 'ignored' })
    })

    test(`protocol ${protocol}: --whole-file sends no delta`, async () => {
      const device = server.place('whole-file')
      await rsyncSucceeds(['-aH', root('1'), device], { protocol })
      const args = ['-aHW', '--delete', '--stats', root('2'), device]
      const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
      assertSameTree(keepingSilent(), snapshot(device), tolerance)
      assert.equal(stats.matched, 0)
      assert.equal(stats.literal, stats.transferredSize)
    })

    for (const options of [['-z'], ['-z', '--compress-level=9'], ['-zz']]) {
      const skip = options[0] === '-zz' && protocol < 31 ? 'new-style compression came with 31' : false
      test(`protocol ${protocol}: compressed with ${options.join(' ')}`, { skip }, async () => {
        const device = server.place('compressed')
        const first = parseStats(
          (await rsyncSucceeds(['-aH', ...options, '--stats', root('1'), device], { protocol })).stdout,
        )
        assertSameTree(server.snapshotOf('1'), snapshot(device), tolerance)
        assert.ok(first.received < first.literal - 700_000, `${first.received} bytes were received`)
        await rsyncSucceeds(['-aH', ...options, '--delete', root('2'), device], { protocol })
        assertSameTree(keepingSilent(), snapshot(device), tolerance)
      })
    }
  })
}

/** The second build as `rsync -a` without -c leaves it: equal size and time hide one change. */
function keepingSilent(): Snapshot {
  return mix(server.snapshotOf('1'), server.snapshotOf('2'), (path) => path === SILENTLY_CHANGED)
}

/** The entries of `left` whose path is `chosen`, the others from `right`. */
function mix(left: Snapshot, right: Snapshot, chosen: (path: string) => boolean): Snapshot {
  return new Map([
    ...[...left].filter(([path]) => chosen(path)),
    ...[...right].filter(([path]) => !chosen(path)),
  ])
}
