/** Archives that lead whoever reads them astray: to files of this machine. */
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { readArchive } from '../../src/archive/read.ts'
import { ArchiveError } from '../../src/errors.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { makeScratch } from '../support/scratch.ts'
import { RecordingSink } from '../support/tar-builder.ts'

async function whyNot(...programs: string[]): Promise<string | false> {
  for (const program of programs) if ((await findProgram(program)) === undefined) return `needs ${program}`
  return false
}

// ---------------------------------------------------------------------------------------------------
// What says where an image says that it is one, and is something else to a program.

/** An empty header of rpm's, and the lead before two of them: what follows is what the package holds. */
const RPM_HEADER = Buffer.concat([Buffer.from('8eade80100000000', 'hex'), Buffer.alloc(8)])
const RPM = Buffer.concat([Buffer.from('edabeedb0300', 'hex'), Buffer.alloc(90), RPM_HEADER, RPM_HEADER])

const DISGUISES: { name: string; before: Uint8Array; says: string }[] = [
  { name: 'mtree', before: Buffer.alloc(0), says: '#mtree\n' },
  { name: 'mtree without its first line', before: Buffer.alloc(0), says: '\n \t# a list\n' },
  { name: 'mtree in a package', before: RPM, says: '#mtree\n' },
]

describe('text that says it is an ISO image', { skip: await whyNot('bsdtar') }, () => {
  for (const { name, before, says } of DISGUISES)
    test(`${name}: no file of this machine gets into a build`, async () => {
      using scratch = makeScratch('astray')
      const [secret, file] = [join(scratch.path, 'secret'), join(scratch.path, 'archive')]
      writeFileSync(secret, 'of this machine\n')
      const image = Buffer.alloc(40_000, 'x')
      image.set(Buffer.concat([before, Buffer.from(`${says}./x type=file mode=0644 contents=${secret}\n# `)]))
      image.write('CD001\n# ', 32_769, 'latin1')
      image.write('\n', image.length - 1, 'latin1')
      const sink = new RecordingSink()
      const reading = readArchive(one(image), sink, {
        signal: AbortSignal.timeout(60_000),
        spill: async (chunks) => {
          for await (const chunk of chunks) writeFileSync(file, chunk, { flag: 'a' })
          return { path: file, read: () => image, [Symbol.asyncDispose]: async () => rmSync(file) }
        },
      })
      await assert.rejects(reading, (error: unknown) => {
        assert.ok(error instanceof ArchiveError, String(error))
        assert.match(error.message, /^the iso9660 archive is none: bsdtar says "Archive Format: mtree,/)
        return true
      })
      assert.deepEqual(sink.result(), [])
    })
})

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
