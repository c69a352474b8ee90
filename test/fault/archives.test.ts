/**
 * Archives that are broken, lie or mean harm. Whoever waits gets one line that names what is wrong;
 * nothing of the archive stays, other builds are served as before, and once the upstream has put it right
 * the same id works.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { buildsOnDisk, bytesOnDisk, Mirror, randomTree, SizeWatch } from '../support/mirror.ts'
import { base256, paxMember, tarArchive, tarHeader, tarMember } from '../support/tar-builder.ts'
import { SpecWriter } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const MB = 1e6
const BUDGET = 200 * MB
/** What one fetch may have written when it is refused: the budget is checked before bytes are written. */
const BOUND = BUDGET + 5 * MB

const LONG = process.env.UPSERV_LONG !== undefined
/** The long form is what the issue names; 3 GB are refused at the same byte, and sooner. */
const BOMB_FILES = LONG ? 30_000 : 3_000
const BOMB_FILE_BYTES = 2 ** 20

interface Case {
  name: string
  /** What upstream publishes, and a checksum file beside it. */
  archive(): Buffer
  beside?: (archive: Buffer) => { suffix: string; text: string }
  says: RegExp
}

const file = (name: string): Buffer => tarMember({ name }, `content of ${name}\n`)
const digest = (algorithm: string, bytes: Buffer): string => createHash(algorithm).update(bytes).digest('hex')
/** Digest of something else. */
const wrong = (algorithm: string): string => digest(algorithm, Buffer.from('something else'))

const CASES: Case[] = [
  {
    name: 'truncated gzip',
    archive: () => cut(readFileSync(mirror.archive('good')), 0.6),
    says: /truncated|ends|incomplete|unexpected end/i,
  },
  {
    name: 'truncated tar',
    archive: () => cut(tarArchive(file('a'), tarMember({ name: 'b' }, Buffer.alloc(100_000))), 0.5),
    says: /truncated|ends/i,
  },
  {
    name: 'flipped bytes in gzip',
    archive: () => flipped(readFileSync(mirror.archive('good')), 0.5),
    says: /gzip|corrupt|damaged|header|checksum/i,
  },
  {
    name: 'flipped bytes in a tar header',
    archive: () => flipped(tarArchive(file('a'), file('b')), 1030 / 3072),
    says: /header|checksum/i,
  },
  {
    name: 'wrong sha256',
    archive: () => tarArchive(file('a')),
    beside: () => ({ suffix: '.sha256', text: `${wrong('sha256')}  archive\n` }),
    says: new RegExp(`has sha256 ${digest('sha256', tarArchive(file('a')))}, .* says ${wrong('sha256')}`),
  },
  {
    name: 'wrong md5',
    archive: () => tarArchive(file('a')),
    beside: () => ({ suffix: '.md5', text: `${wrong('md5')}  archive\n` }),
    says: new RegExp(`has md5 ${digest('md5', tarArchive(file('a')))}, .* says ${wrong('md5')}`),
  },
  {
    name: 'a page instead of an archive',
    archive: () => Buffer.from(`<!DOCTYPE html><html><body>${'<p>Please log in.</p>'.repeat(100)}</body>`),
    says: /HTML|web page|no archive|not an archive/i,
  },
  { name: 'an empty file', archive: () => Buffer.alloc(0), says: /empty/i },
  { name: 'an empty archive', archive: () => gzipSync(Buffer.alloc(0)), says: /empty|no (?:tar )?archive/i },
  {
    name: 'an entry that climbs out',
    archive: () => tarArchive(file('a'), file('../../etc/cron.d/evil')),
    says: /\.\.\/\.\.\/etc\/cron\.d\/evil/,
  },
  {
    name: 'an entry that climbs out from within',
    archive: () => tarArchive(file('a/../../evil')),
    says: /a\/\.\.\/\.\.\/evil/,
  },
  {
    name: 'an absolute path',
    archive: () => tarArchive(file('a'), file('/etc/shadow')),
    says: /\/etc\/shadow/,
  },
  {
    name: 'one name twice',
    archive: () => tarArchive(file('etc/passwd'), file('b'), file('./etc//passwd')),
    says: /etc\/passwd.*twice|twice.*etc\/passwd/i,
  },
  {
    name: 'a file below a symlink',
    archive: () => tarArchive(tarMember({ name: 'link', type: '2', linkName: '/etc' }), file('link/shadow')),
    says: /link/,
  },
  {
    name: 'a hard link to nothing',
    archive: () => tarArchive(tarMember({ name: 'h', type: '1', linkName: 'no-such-file' }), file('b')),
    says: /no-such-file/,
  },
  {
    name: 'a hard link out of the tree',
    archive: () => tarArchive(tarMember({ name: 'h', type: '1', linkName: '../../etc/shadow' })),
    says: /\.\.\/\.\.\/etc\/shadow/,
  },
  {
    name: 'a file that claims 100 GB',
    archive: () => tarArchive(tarHeader({ name: 'huge', size: base256(100_000_000_000n, 12) })),
    says: /100 GB.*the budget is 200 MB/,
  },
  {
    name: 'a sparse file of 100 GB',
    archive: () =>
      tarArchive(
        paxMember([
          ['GNU.sparse.major', '1'],
          ['GNU.sparse.minor', '0'],
          ['GNU.sparse.name', 'huge'],
          ['GNU.sparse.realsize', '100000000000'],
        ]),
        tarMember({ name: 'GNUSparseFile.0/huge' }, '1\n100000000000\n0\n'.padEnd(512, '\0')),
      ),
    says: /100 GB.*the budget is 200 MB/,
  },
  { name: 'a bomb of gzip', archive: () => bomb(gzipSync), says: /the budget is 200 MB/ },
  { name: 'a bomb of zstd', archive: () => bomb(zstdCompressSync), says: /the budget is 200 MB/ },
]

let mirror: Mirror
let upserv: Upserv
before(async () => {
  mirror = new Mirror()
  await mirror.publish('good', randomTree(1, 20, 50_000))
  await mirror.startNginx()
  upserv = await mirror.startUpserv({ budget: `${BUDGET}` })
  await mirror.assertServes(upserv, 'good')
})
after(() => mirror?.[Symbol.asyncDispose]())

describe('archives that are bad', () => {
  for (const [n, { name, archive, beside, says }] of CASES.entries()) {
    test(name, async (t) => {
      const id = `bad-${n}`
      const bytes = archive()
      writeFileSync(mirror.archive(id), bytes)
      const sidecar = beside?.(bytes)
      if (sidecar) writeFileSync(mirror.archive(id) + sidecar.suffix, sidecar.text)

      const size = new SizeWatch(mirror.data)
      const { stderr } = await mirror.sync(upserv, id, 5)
      const [message = '', ...rest] = stderr.trimEnd().split('\n')
      t.diagnostic(message)
      assert.match(message, /^@ERROR: /)
      assert.match(message, says)
      assert.match(message, new RegExp(`\\b${id}\\b`), 'does not say of which build it speaks')
      assert.doesNotMatch(message, /undefined|\[object|internal error|\/dev\/shm|node:/)
      assert.ok(message.length < 500, message)
      assert.deepEqual(
        rest.filter((line) => !line.startsWith('rsync error: ')),
        [],
        'more than one line',
      )

      size.stop()
      assert.ok(size.peak <= BOUND, `${size.peak} bytes were on the disk`)
      assert.deepEqual(mirror.incoming(), [])
      assert.ok(!buildsOnDisk(mirror.data).includes(id), 'it is held after all')
      await mirror.assertServes(upserv, 'good')

      if (sidecar) writeFileSync(mirror.archive(id) + sidecar.suffix, '')
      await mirror.publish(id, tinyTree(n))
      await mirror.assertServes(upserv, id)
    })
  }

  test('afterwards the server is well, and nothing of it all is left', async () => {
    assert.deepEqual(buildsOnDisk(mirror.data), [...CASES.map((_, n) => `bad-${n}`), 'good'].sort())
    for (const id of buildsOnDisk(mirror.data)) await mirror.assertServes(upserv, id)
    const open = readdirSync(`/proc/${upserv.process.child.pid}/fd`).length
    assert.ok(open < 60, `${open} files are open`)
    await upserv.stop()
    assert.doesNotMatch(upserv.process.stderr, /"level":(?:50|60)/)
    const used = bytesOnDisk(mirror.data)
    assert.ok(used < 2 * MB, `${used} bytes are left`)
  })
})

function tinyTree(seed: number) {
  const tree = new SpecWriter(randomTree(seed + 100, 2, 1000))
  tree.directory('put-right')
  return tree.spec
}

function cut(bytes: Buffer, share: number): Buffer {
  return bytes.subarray(0, Math.floor(bytes.length * share))
}

function flipped(bytes: Buffer, share: number): Buffer {
  const copy = Buffer.from(bytes)
  const at = Math.floor(bytes.length * share)
  for (let i = at; i < at + 8; i++) copy[i]! ^= 0xff
  return copy
}

/**
 * Many files of a megabyte, no two alike, almost all zeros. Both formats allow compressed pieces one after
 * the other, so the zeros are compressed once.
 */
function bomb(compress: (bytes: Buffer) => Buffer): Buffer {
  const zeros = compress(Buffer.alloc(BOMB_FILE_BYTES - 512))
  const pieces: Buffer[] = []
  for (let n = 0; n < BOMB_FILES; n++) {
    const head = tarHeader({ name: `file-${n}`, size: BOMB_FILE_BYTES })
    const unlike = Buffer.alloc(512)
    unlike.write(`file ${n}`)
    pieces.push(compress(Buffer.concat([head, unlike])), zeros)
  }
  pieces.push(compress(Buffer.alloc(1024)))
  return Buffer.concat(pieces)
}
