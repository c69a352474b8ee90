/** What a read-only server refuses: the client ends with the right exit code and says why. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { PROTOCOLS, rsync, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { SMALL_TREE_PATHS, smallTree } from '../support/small-tree.ts'
import { pathsOf, snapshot } from '../support/snapshot.ts'

let server: TestServer
before(async () => {
  server = await startServer({ 1: smallTree() })
})
after(() => server?.stop())

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 3 }, () => {
    /** Below 31 a server cannot tell its exit code, so the client finds the connection closed. */
    const refused = protocol >= 31 ? 1 : 12

    for (const name of ['build-999', 'nothing', 'build-', 'build-../1', '-x', 'build-1\\', '*']) {
      test(`protocol ${protocol}: no such module: ${name}`, async () => {
        const device = server.place('unknown')
        const { stderr } = await rsyncEnds(5, ['-r', `${server.url}/${name}/root/`, device], { protocol })
        assert.match(stderr, /^@ERROR: \S/m)
      })
    }

    test(`protocol ${protocol}: an upload`, async () => {
      const source = server.place('source', 'make')
      writeFileSync(`${source}/new`, 'new\n')
      const { code, stdout, stderr } = await rsync(['-a', `${source}/`, `${server.url}/build-1/root/`], {
        protocol,
      })
      assert.match(stdout + stderr, /read only/)
      // Below 31 the client may still be sending when the server closes: code 10 or 12, as with the stock daemon.
      if (protocol >= 31) assert.equal(code, 1, stderr)
      else assert.ok(code === 10 || code === 12, `code ${code}: ${stderr}`)
      const { stdout: list } = await rsyncSucceeds(['-r', '--list-only', `${server.url}/build-1/root/`])
      assert.doesNotMatch(list, /new/)
    })

    for (const option of ['--remove-source-files', '--remove-sent-files']) {
      test(`protocol ${protocol}: ${option}`, async () => {
        const device = server.place('remove')
        const args = ['-a', option, `${server.url}/build-1/root/`, device]
        const { stdout, stderr } = await rsyncEnds(refused, args, { protocol })
        // The stock daemon ends without its message below 31.
        if (protocol >= 31 || server.kind === 'upserv') assert.match(stdout + stderr, /read-only|read only/)
        const again = server.place('after-remove')
        await rsyncSucceeds(['-a', `${server.url}/build-1/root/`, again], { protocol })
        assert.deepEqual(pathsOf(snapshot(again)), SMALL_TREE_PATHS)
      })
    }

    test(`protocol ${protocol}: a client that is killed disturbs nobody`, async () => {
      const device = server.place('survivor')
      const victim = rsync(['-a', '--bwlimit=1', `${server.url}/build-1/root/`, server.place('victim')], {
        protocol,
        timeoutMs: 300,
      }).catch(() => undefined)
      await rsyncSucceeds(['-a', `${server.url}/build-1/root/`, device], { protocol })
      await victim
      await rsyncSucceeds(['-a', `${server.url}/build-1/root/`, device], { protocol })
      assert.deepEqual(pathsOf(snapshot(device)), SMALL_TREE_PATHS)
    })
  })
}
