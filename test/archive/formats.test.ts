/**
 * Archives in every form that is read, made by the tools that people make them with: served, synced, and
 * compared with the tree that they were made of, exactly. What a form cannot hold is not put into its tree.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import type { ByteString } from '../../src/lib/bytes.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { buildsOnDisk, Mirror } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { isRoot } from '../support/scratch.ts'
import { assertSameTree, type Snapshot, snapshot } from '../support/snapshot.ts'
import { makeTree, randomBytes, repetitiveText, SpecWriter } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const TIME = 1_193_961_600 // 2007-11-02, as OLPC's builder has it

type Ability = 'owners' | 'devices' | 'hard links' | 'bytes in names' | 'inline' | 'checksums'

/** What needs a program, and what the form holds. */
interface Form {
  tool: string
  holds: readonly Ability[]
  /** Makes the archive of the tree that it runs in. */
  make(archive: string, tree: string): string
}

const list = (tree: string): string => `cd '${tree}' && find . -print0 | sort -z`
const ALL: Ability[] = ['owners', 'devices', 'hard links', 'bytes in names']
const ext =
  (type: string, features = ''): Form['make'] =>
  (archive, tree) =>
    `truncate -s 40M '${archive}' && /usr/sbin/mke2fs -q -F -t ${type} ${features} -d '${tree}' '${archive}'`

const FORMS: Record<string, Form> = {
  zip: {
    tool: 'zip',
    holds: ['checksums'],
    make: (archive, tree) =>
      `cd '${tree}' && zip -q -y -r '${archive}.zip' . && mv '${archive}.zip' '${archive}'`,
  },
  'cpio-newc': {
    tool: 'cpio',
    holds: ALL,
    make: (archive, tree) => `${list(tree)} | cpio --quiet -0 -o -H newc > '${archive}'`,
  },
  'cpio-crc': {
    tool: 'cpio',
    holds: [...ALL, 'checksums'],
    make: (archive, tree) => `${list(tree)} | cpio --quiet -0 -o -H crc > '${archive}'`,
  },
  'cpio-odc': {
    tool: 'cpio',
    holds: ['hard links', 'bytes in names'],
    make: (archive, tree) => `${list(tree)} | cpio --quiet -0 -o -H odc > '${archive}'`,
  },
  'cpio-gz': {
    tool: 'cpio',
    holds: [...ALL, 'checksums'],
    make: (archive, tree) => `${list(tree)} | cpio --quiet -0 -o -H crc | gzip > '${archive}'`,
  },
  squashfs: {
    tool: 'tar2sqfs',
    holds: ALL,
    make: (archive, tree) => `tar -C '${tree}' -cf - . | tar2sqfs -q -f '${archive}'`,
  },
  iso: {
    tool: 'xorriso',
    holds: ['owners', 'devices'],
    make: (archive, tree) => `xorriso -as mkisofs -quiet -R -o '${archive}' '${tree}'`,
  },
  'iso-xz': {
    tool: 'xorriso',
    holds: ['owners', 'checksums'],
    make: (archive, tree) =>
      `xorriso -as mkisofs -quiet -R -o '${archive}' '${tree}' && xz -0 '${archive}' && mv '${archive}.xz' '${archive}'`,
  },
  ext4: { tool: 'mke2fs', holds: ALL, make: ext('ext4') },
  'ext4-inline': {
    tool: 'mke2fs',
    holds: [...ALL, 'inline'],
    make: ext('ext4', '-O inline_data,64bit -I 512'),
  },
  ext3: { tool: 'mke2fs', holds: ALL, make: ext('ext3', '-b 1024') },
  'ext2-bz2': {
    tool: 'mke2fs',
    holds: [...ALL, 'checksums'],
    make: (archive, tree) =>
      `${ext('ext2')(archive, tree)} && bzip2 -1 '${archive}' && mv '${archive}.bz2' '${archive}'`,
  },
}

function treeFor(holds: readonly Ability[]) {
  const tree = new SpecWriter()
  const has = (ability: Ability): boolean => holds.includes(ability)
  const mtime = TIME
  // Where a form has no root, it is as old as the newest entry directly in it.
  tree.directory('', { mtime: mtime + 2 })
  for (const directory of ['etc', 'bin', 'deep', 'deep/er', 'deep/er/still', 'empty'])
    tree.directory(directory, { mtime: mtime + 2 })
  tree.file('etc/passwd', Buffer.from('root:x:0:0::/:/bin/sh\nolpc:x:500:500::/:/bin/sh\n'), { mtime })
  tree.file('bin/program', randomBytes(1, 1_500_000), { mtime, mode: 0o755 })
  tree.file('bin/setuid', randomBytes(2, 5000), { mtime, mode: 0o4755 })
  tree.file('bin/text', repetitiveText(3000), { mtime: mtime + 4 })
  tree.file('empty file', Buffer.alloc(0), { mtime })
  tree.file('tiny', Buffer.from('x'), { mtime })
  // mke2fs 1.47 gives a file whose end is a hole another size, where small content lies in inodes.
  if (!has('inline'))
    tree.file(
      'holes',
      { size: 900_000, pieces: [{ offset: 500_000, bytes: Buffer.from('here') }] },
      { mtime },
    )
  for (let n = 0; n < 300; n++)
    tree.file(`deep/er/still/file-${n}-${'x'.repeat(n % 60)}`, Buffer.from(`file ${n}\n`), { mtime })
  tree.symlink('bin/sh', 'program', { mtime })
  tree.symlink('long link', `../${'a long way/'.repeat(12)}end`, { mtime })
  if (has('owners') && isRoot)
    tree.file('owned', Buffer.from('mine'), { uid: 500, gid: 70_000, mtime, mode: 0o640 })
  if (has('hard links')) tree.hardlink('hard', 'bin/program')
  if (has('bytes in names')) tree.file('not utf-8 \xff\xfe', Buffer.from('bytes'), { mtime })
  if (has('devices') && isRoot) {
    tree.device('null', 'char-device', 1, 3, { mtime })
    tree.device('disk', 'block-device', 259, 1000, { mtime })
    tree.add('fifo', { type: 'fifo', mtime })
  }
  return tree.spec
}

describe('forms of archives', () => {
  const mirror = new Mirror()
  let upserv: Upserv
  before(async () => {
    upserv = await mirror.startUpserv({ sources: [`file://${mirror.path('www')}/{build}`] })
  })
  after(() => mirror[Symbol.asyncDispose]())

  const assertRefused = async (build: string): Promise<void> => {
    const refused = await run('rsync', ['-a', '--list-only', `${upserv.url}/build-${build}/root/`], {
      timeoutMs: 60_000,
    })
    assert.equal(refused.code, 5, refused.stdout)
    assert.match(refused.stderr + refused.stdout, /@ERROR: /)
  }

  for (const [form, { tool, holds, make }] of Object.entries(FORMS)) {
    test(form, async (t) => {
      if (!(await findProgram(tool)) && tool !== 'mke2fs') {
        t.skip(`needs ${tool}`)
        return
      }
      const tree = mirror.path('trees', form)
      makeTree(tree, treeFor(holds))
      const made = await run('sh', ['-c', make(mirror.archive(form), tree)], { timeoutMs: 60_000 })
      assert.equal(made.code, 0, made.stderr)
      const { place } = await mirror.sync(upserv, form)
      assertSameTree(expectedOf(form, tree, place), snapshot(place))
      assert.deepEqual(mirror.incoming(), [])
      // Cut short: nothing of it.
      const whole = readFileSync(mirror.archive(form))
      for (const tenth of [0, 1, 3, 6, 9]) {
        const cut = `${form}-cut-${tenth}`
        writeFileSync(mirror.archive(cut), whole.subarray(0, Math.floor((whole.length * tenth) / 10)))
        await assertRefused(cut)
      }
      // A bit of a file's content is another one: nothing of it either, where the form can tell.
      for (const percent of holds.includes('checksums') ? [35, 50, 65] : []) {
        const flipped = `${form}-flipped-${percent}`
        const bytes = Buffer.from(whole)
        bytes[Math.floor((bytes.length * percent) / 100)]! ^= 1 << (percent % 8)
        writeFileSync(mirror.archive(flipped), bytes)
        await assertRefused(flipped)
      }
      assert.ok(buildsOnDisk(mirror.data).includes(form))
    })
  }
})

/** mke2fs makes a root of its own, a moment ago. */
function expectedOf(form: string, tree: string, place: string): Snapshot {
  const expected = new Map(snapshot(tree))
  const root = snapshot(place).get('.' as ByteString)!
  if (form.startsWith('ext')) expected.set('.' as ByteString, root)
  return expected
}
