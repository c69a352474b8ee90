/**
 * Numbers that do not fit 32 bits: a file of more than 4 GiB, which costs nearly nothing because both
 * sides keep its holes. One protocol for each encoding of sizes and block counts.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { parseStats, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { hugeSparseFile, SpecWriter } from '../support/tree.ts'

const SIZE = 2 ** 32 + 2 ** 26

/** Sizes as longint and as varlong. */
const PROTOCOLS_BY_ENCODING = [29, 32]

/** At 29 the client hashes all of it by MD4 and the zeros cross the wire: the short form asks for its size alone. */
const LONG = process.env.UPSERV_LONG !== undefined

/** More than 4 GiB of zeros are sent, hashed on both ends and looked for holes. */
const TIMEOUT_MS = 240_000

/** Beyond what 32 bits count. Like no other block of the file, so that no other can take its place. */
const PIECE = { offset: 2 ** 32 + 12_345, bytes: Buffer.from('beyond 4 GiB') }

let server: TestServer
before(async () => {
  const spec = new SpecWriter()
  spec.directory('')
  const { pieces } = hugeSparseFile(SIZE)
  spec.file('huge', { size: SIZE, pieces: [...pieces, PIECE] })
  server = await startServer({ 1: spec.spec })
  await rsyncSucceeds(['--list-only', `${server.url}/build-1/`], { timeoutMs: TIMEOUT_MS })
})
after(() => server?.stop())

for (const protocol of PROTOCOLS_BY_ENCODING) {
  test(`protocol ${protocol}: a file of more than 4 GiB${protocol < 30 ? '' : ', then one change beyond 4 GiB'}`, async () => {
    const root = `${server.url}/build-1/root/`
    const list = await rsyncSucceeds(['--list-only', `${root}huge`], { protocol })
    assert.match(list.stdout, /4,362,076,160/)
    if (protocol < 30 && !LONG) return

    const device = server.place('huge')
    const copy = join(device, 'huge')
    const sync = async (): Promise<string> => {
      // Compressed from 30 on, so that the zeros do not cross the wire as they are; older clients feed
      // what matches to zlib too, which takes minutes.
      const args = [protocol < 30 ? '-aS' : '-aSz', '--stats', root, device]
      return (await rsyncSucceeds(args, { protocol, timeoutMs: TIMEOUT_MS })).stdout
    }
    await sync()
    assert.equal(statSync(copy).size, SIZE)
    assert.ok(statSync(copy).blocks * 512 < 50e6, 'its holes were filled')

    if (protocol < 30) return // the client takes minutes to look so much up by MD4
    const file = openSync(copy, 'r+')
    writeSync(file, 'changed', PIECE.offset)
    closeSync(file)
    const stats = parseStats(await sync())
    assert.equal(stats.literal + stats.matched, SIZE)
    assert.ok(stats.literal > 0 && stats.literal < 1_000_000, `${stats.literal} literal bytes`)
    const same = await rsyncSucceeds(['-acn', '-i', root, device], { protocol, timeoutMs: TIMEOUT_MS })
    assert.equal(same.stdout, '', 'its digest is another')
  })
}
