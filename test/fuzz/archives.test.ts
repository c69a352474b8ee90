/**
 * Whole archives in every form there is, damaged, through the reader that fetches use: detection, decompression,
 * programs and parsers. Members come out or an ArchiveError does, and nothing that was not in the archive.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readArchive } from '../../src/archive/read.ts'
import { ArchiveError } from '../../src/errors.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { campaign, kindOf } from '../support/campaign.ts'
import { makeScratch } from '../support/scratch.ts'
import { RecordingSink } from '../support/tar-builder.ts'

const MOST_BYTES = 16e6

class ModestSink extends RecordingSink {
  bytes = 0
  override entry(entry: Parameters<RecordingSink['entry']>[0]): void {
    if (entry.size > MOST_BYTES) throw new ArchiveError('larger than this sink takes')
    super.entry(entry)
  }
  override data(chunk: Uint8Array): void {
    this.bytes += chunk.length
    if (this.bytes > MOST_BYTES) throw new ArchiveError('more than this sink takes')
    super.data(chunk)
  }
}

/** How each form is made of the directory `tree`, small. */
const FORMS: Record<string, string> = {
  tar: 'tar -C tree -cf - .',
  gz: 'tar -C tree -cf - . | gzip -n',
  bz2: 'tar -C tree -cf - . | bzip2',
  xz: 'tar -C tree -cf - . | xz',
  lzma: 'tar -C tree -cf - . | xz --format=lzma',
  zst: 'tar -C tree -cf - . | zstd -q',
  // Not to a pipe: zip can't store a link there.
  zip: 'cd tree && zip -q -y -r ../out.zip . && cat ../out.zip',
  squashfs: 'tar -C tree -cf - . | tar2sqfs -q -f out >&2 && cat out',
  iso: 'xorriso -as mkisofs -quiet -R -o out.iso tree 2>/dev/null && cat out.iso',
  cpio: 'cd tree && find . | sort | cpio --quiet -o -H newc',
  ext: 'truncate -s 256K image && /usr/sbin/mke2fs -q -F -t ext4 -O ^has_journal -d tree image >&2 && cat image',
}

const needed = ['zip', 'bsdtar', 'tar2sqfs', 'sqfs2tar', 'xorriso', 'cpio', 'zstd', 'xz', 'bzip2']
const found = await Promise.all(needed.map((name) => findProgram(name)))
const skip = found.includes(undefined) && `needs ${needed.join(', ')}`

test('damaged archives of every form', { skip }, async (t) => {
  using scratch = makeScratch('archives')
  const tree = join(scratch.path, 'tree')
  mkdirSync(join(tree, 'dir'), { recursive: true })
  for (let n = 0; n < 5; n++) writeFileSync(join(tree, 'dir', `file-${n}`), `${n} `.repeat(n * 50))
  symlinkSync('dir/file-1', join(tree, 'link'))
  const seeds = Object.values(FORMS).map((form) => {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', form], { cwd: scratch.path, maxBuffer: 4e6 })
    if (status !== 0 || stdout.length === 0) throw new Error(`${form}: ${stderr}`)
    return stdout
  })
  const spills = mkdtempSync(join(scratch.path, 'spill-'))
  await campaign(t, {
    extension: 'archive',
    seeds,
    words: [
      '\x1f\x8b\x08',
      'BZh91AY&SY',
      '\xfd7zXZ\0',
      '\x28\xb5\x2f\xfd',
      'PK\x03\x04',
      'PK\x01\x02',
      'hsqs',
      'CD001',
      'ustar\0',
      '070701',
      '../',
      '/etc/',
      'TRAILER!!!',
    ],
    check: async (input) => {
      const sink = new ModestSink()
      const file = join(spills, 'archive')
      try {
        const { format, compression } = await readArchive(pieces(input), sink, {
          signal: AbortSignal.timeout(60_000),
          spill: async (chunks) => {
            const all: Uint8Array[] = []
            for await (const chunk of chunks) all.push(chunk)
            const bytes = Buffer.concat(all)
            writeFileSync(file, bytes)
            return {
              path: file,
              read: (position, length) => bytes.subarray(position, position + length),
              [Symbol.asyncDispose]: async () => rmSync(file),
            }
          },
        })
        for (const { path } of sink.result()) {
          if (/^\/|(?:^|\/)\.\.?(?:\/|$)|\0/.test(path) && path !== '.')
            throw new Error(`a member is named ${JSON.stringify(path)}`)
        }
        return `${compression} ${format}`
      } catch (error) {
        if (error instanceof ArchiveError) return kindOf(error)
        throw error
      }
    },
    leastOutcomes: 15,
  })
})

async function* pieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000)
}
