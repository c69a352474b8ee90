/** Manifests of a server that lies: decoded and checked as those of a parent are, or refused. */
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { checkManifest } from '../../src/build/replica.ts'
import { ArchiveError, StoreError } from '../../src/errors.ts'
import { asBuffer, type ByteString } from '../../src/lib/bytes.ts'
import { generateContents } from '../../src/store/contents.ts'
import { encodeManifest, Manifest, type TreeEntry } from '../../src/store/manifest.ts'
import { campaign, kindOf } from '../support/campaign.ts'

const SEAL_BYTES = 32
/** What a damaged manifest may announce is bounded by its size; more than this is no small file any more. */
const MOST_CONTENTS = 50e6

function entry(parent: number, name: string, mode: number, more: Partial<TreeEntry> = {}): TreeEntry {
  return {
    ...{
      parent,
      name: name as ByteString,
      mode,
      uid: 0,
      gid: 0,
      size: 0,
      mtime: 1,
      mtimeNsec: 2,
      major: 0,
      minor: 0,
    },
    ...{ linkTarget: '' as ByteString, sameAs: -1, xattrs: [], blob: -1 },
    ...more,
  }
}

function sample(files: number): Buffer {
  const xattrs = [{ name: 'user.a' as ByteString, value: Buffer.from('value') }]
  const entries = [
    entry(0, '', 0o040755),
    entry(0, 'dir', 0o041777, { xattrs }),
    entry(0, 'link', 0o120777, { linkTarget: 'dir/f-0' as ByteString, size: 7 }),
    entry(0, 'null', 0o020666, { major: 1, minor: 3 }),
    entry(0, 'fifo', 0o010600),
    ...Array.from({ length: files }, (_, n) => entry(1, `f-${n}`, 0o100644, { size: 10 * n, blob: n })),
    entry(0, 'hard', 0o100644, { sameAs: 5, blob: 0 }),
  ]
  const digests = (bytes: number): Buffer =>
    Buffer.concat(
      Array.from({ length: files }, (_, n) =>
        createHash('sha256').update(String(n)).digest().subarray(0, bytes),
      ),
    )
  const sizes = Array.from({ length: files }, (_, n) => 10 * n)
  const blobs = { count: files, sizes, sha256: digests(32), md5: digests(16), xxh128: digests(16) }
  return asBuffer(
    encodeManifest({
      entries,
      blobs,
      userNames: new Map([[0, 'root' as ByteString]]),
      groupNames: new Map(),
    }),
  )
}

test('damaged manifests', async (t) => {
  await campaign(t, {
    extension: 'manifest',
    seeds: [sample(1), sample(3), sample(40)],
    words: [
      '"entries":',
      '"entries":4294967295',
      '"offset":8',
      '"length":0',
      '{"',
      '..',
      '/',
      '\0',
      '"blobs":1',
      '[]',
      '-1',
      '1e308',
    ],
    // Whoever lies seals the lie.
    mend: (input) => {
      if (input.length < SEAL_BYTES) return input
      const body = input.subarray(0, input.length - SEAL_BYTES)
      return Buffer.concat([body, createHash('sha256').update(body).digest()])
    },
    check: async (input) => {
      try {
        const bytes = Uint8Array.from(input)
        const manifest = Manifest.decode(bytes)
        checkManifest(manifest, bytes)
        let size = 0
        for await (const chunk of generateContents(manifest)) size += chunk.length
        if (size > MOST_CONTENTS) throw new Error(`${size} bytes of contents`)
        return 'taken'
      } catch (error) {
        if (error instanceof StoreError || error instanceof ArchiveError) return kindOf(error)
        throw error
      }
    },
    leastOutcomes: 15,
  })
})
