/**
 * --iconv: refused as by the stock daemon without a charset; and where the operator says that names are
 * UTF-8, a client that has another charset gets them in its own.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { MemoryTree } from '../support/memory-tree.ts'
import { PROTOCOLS, rsync, rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { listen, sessionContext, type TestPort } from '../support/session.ts'

const file = (data: string) => ({ mode: 0o100644, data: Buffer.from(data) })
/** In the order of transmission the directory comes before its content; sorted, other charsets differ. */
const TREE = {
  mode: 0o040755,
  children: {
    'caf\u00e9': file('coffee'),
    zebra: file('stripes'),
    '\u00e0 la carte': { mode: 0o040755, children: { 'cr\u00eape': file('thin'), plain: file('plain') } },
    lien: { mode: 0o120777, target: 'caf\u00e9' },
  },
}
/** The paths as a client with ISO 8859-1 has them, one byte for each character. */
const PATHS = ['caf\xe9', 'lien', 'zebra', '\xe0 la carte', '\xe0 la carte/cr\xeape', '\xe0 la carte/plain']

let scratch: Scratch
let tree: MemoryTree
let port: TestPort
before(async () => {
  scratch = makeScratch('iconv')
  tree = new MemoryTree(TREE)
  port = await listen(sessionContext({ m: tree }, { charset: 'utf-8' }))
})
after(async () => {
  await port?.[Symbol.asyncDispose]()
  tree?.close()
  scratch?.[Symbol.dispose]()
})

let devices = 0
const place = (): string => join(scratch.path, `device-${++devices}`)
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')

function pathsIn(device: string): string[] {
  return readdirSync(latin1(device), { recursive: true, encoding: 'buffer' })
    .map((path) => path.toString('latin1'))
    .sort()
}

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, () => {
    test(`protocol ${protocol}: names arrive in the client's charset`, async () => {
      for (const options of [[], ['-s'], ['-H'], ['-c'], ['--delete', '--exclude=nothing']]) {
        const device = place()
        const args = [
          '-a',
          '--iconv=iso-8859-1,utf-8',
          ...options,
          `rsync://127.0.0.1:${port.port}/m/`,
          device,
        ]
        await rsyncSucceeds(args, { protocol })
        assert.deepEqual(pathsIn(device), [...PATHS].sort(), options.join(' '))
        assert.equal(readFileSync(latin1(`${device}/caf\xe9`), 'utf8'), 'coffee')
        assert.equal(readFileSync(latin1(`${device}/\xe0 la carte/cr\xeape`), 'utf8'), 'thin')
        if (protocol >= 30) {
          const target = readlinkSync(latin1(`${device}/lien`), { encoding: 'buffer' })
          assert.equal(target.toString('latin1'), 'caf\xe9')
        }
        const again = await rsyncSucceeds(['-i', ...args], { protocol })
        assert.equal(again.stdout, '', 'a second time there is nothing to do')
      }
    })

    test(`protocol ${protocol}: a name in a list is found`, async () => {
      const device = place()
      const url = `rsync://127.0.0.1:${port.port}/m/`
      const input = latin1('caf\xe9\n\xe0 la carte/cr\xeape\n')
      // Clients convert these only together with their arguments.
      const options = ['-a', '-s', '--iconv=iso-8859-1,utf-8', '--files-from=-']
      await rsyncSucceeds([...options, url, device], { protocol, input })
      assert.deepEqual(pathsIn(device), ['caf\xe9', '\xe0 la carte', '\xe0 la carte/cr\xeape'])
    })

    test(`protocol ${protocol}: without a charset it is refused, and said so`, async () => {
      await using plain = await listen(sessionContext({ m: tree }))
      for (const spec of ['.', 'utf-8', 'utf-8,iso-8859-1', 'utf-8,utf-8']) {
        const args = ['-a', `--iconv=${spec}`, `rsync://127.0.0.1:${plain.port}/m/`, place()]
        const { code, stdout, stderr } = await rsync(args, { protocol })
        assert.equal(code, protocol >= 31 ? 4 : 12)
        assert.match(stdout + stderr, /refuse --iconv/)
      }
    })
  })
}
