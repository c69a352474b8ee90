/** What people and scripts look at: module lists, directory lists. The same text as the stock daemon's. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { PROTOCOLS, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { firstBuild } from '../support/tree.ts'

let server: TestServer
before(async () => {
  server = await startServer({ 1: firstBuild() })
  await rsyncSucceeds(['-r', '--list-only', `${server.url}/build-1/`]) // upserv fetches it now
})
after(() => server?.stop())

const LISTINGS = [
  { name: 'a directory', args: [], path: '/root/' },
  { name: 'a directory by name', args: [], path: '/root/names' },
  { name: 'everything', args: ['-r'], path: '/root/' },
  { name: 'everything, one list', args: ['-r', '--no-inc-recursive'], path: '/root/' },
  { name: 'with link targets', args: ['-rl'], path: '/root/links/' },
  { name: 'devices', args: ['-a'], path: '/root/specials/' },
  { name: 'a file', args: ['--list-only'], path: '/root/data/random' },
  { name: 'a wildcard', args: ['--list-only'], path: '/root/data/s*' },
  { name: 'times', args: ['-r', '--list-only'], path: '/root/times/' },
  { name: 'human-readable sizes', args: ['-rh', '--list-only'], path: '/root/data/' },
  { name: 'bytes that are not text', args: ['-r8', '--list-only'], path: '/root/names/' },
  { name: 'checksums', args: ['-rc', '--list-only'], path: '/root/data/' },
]

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 3 }, () => {
    for (const { name, args, path } of LISTINGS) {
      test(`protocol ${protocol}: ${name} (${[...args, path].join(' ')})`, async () => {
        const stock = await server.stock()
        const ours = await rsyncSucceeds([...args, `${server.url}/build-1${path}`], { protocol })
        const theirs = await rsyncSucceeds([...args, `${stock.url}/build-1${path}`], { protocol })
        const expected = withoutDirectorySizes(theirs.stdout)
        const actual = withoutDirectorySizes(ours.stdout)
        assert.ok(actual.length > 0, 'an empty list')
        // Incremental recursion lists in another order, and using it is the server's choice.
        if (protocol < 30 || args.includes('--no-inc-recursive')) assert.deepEqual(actual, expected)
        else assert.deepEqual(actual.sort(), expected.sort())
      })
    }

    test(`protocol ${protocol}: the modules, one a line`, async () => {
      const { stdout } = await rsyncSucceeds([`${server.url}/`], { protocol })
      assert.match(stdout, /^build-1\s/m)
    })

    test(`protocol ${protocol}: a module`, async () => {
      const { stdout } = await rsyncSucceeds([`${server.url}/build-1/`], { protocol })
      assert.match(stdout, /^drwxr-xr-x +[\d,]+ 2007\/11\/22 23:59:55 root$/m)
      assert.match(stdout, /^-rw-r--r-- .* contents$/m)
    })

    test(`protocol ${protocol}: a list of what does not exist`, async () => {
      const { stderr } = await rsyncEnds(23, ['--list-only', `${server.url}/build-1/nothing`], { protocol })
      assert.match(stderr, /No such file or directory/)
    })
  })
}

/** The lines of a listing. What a directory's size is depends on the file system it was copied from. */
function withoutDirectorySizes(listing: string): string[] {
  return listing
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(/^(d\S+) +[\d,.KM]+ /, '$1 '))
}
